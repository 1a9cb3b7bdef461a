#!/usr/bin/env bash
# Installs the packages that the build needs and this machine lacks. Only root on Debian or Ubuntu installs; elsewhere the
# missing packages are printed and the script stops with exit code 1. Arguments are further packages that are wanted.
set -euo pipefail
packages=(g++ make pkg-config libhdf5-dev libfmt-dev libgtest-dev libopenblas-openmp-dev libtomlplusplus-dev
  nlohmann-json3-dev zlib1g-dev libxxhash-dev "$@")

missing=()
if command -v dpkg-query >/dev/null; then
  for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
  done
else
  # Not a Debian system: look for the things themselves.
  for h in H5public.h fmt/core.h gtest/gtest.h cblas.h toml++/toml.h nlohmann/json.hpp zlib.h xxhash.h; do
    find /usr/include /usr/local/include /opt/homebrew/include -path "*/$h" -print -quit 2>/dev/null | grep -q . ||
      missing+=("the header $h")
  done
fi
if [ "${#missing[@]}" -eq 0 ]; then
  echo "setup: nothing is missing"
  exit 0
fi
echo "setup: missing: ${missing[*]}"
if [ "$(id -u)" -ne 0 ] || ! grep -qiE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null; then
  echo "setup: install them and run the command again; on Debian or Ubuntu, as root:"
  echo "  apt-get install -y --no-install-recommends ${packages[*]}"
  exit 1
fi
echo "setup: installing them with apt-get"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
rm -f build/config.mk
echo "setup: done"
