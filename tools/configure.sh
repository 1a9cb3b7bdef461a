#!/usr/bin/env bash
# Finds compilers and libraries by compiling and linking small programs with the flags that the build will use, writes them
# as make variables to the file named by $1, and prints one screen about what was found. Asked by environment: CXX, CUDA
# (0 turns it off), CUDA_HOME.
set -euo pipefail
out=$1
read -ra cxx <<<"${CXX:-g++}"  # may be "ccache g++"
mkdir -p "$(dirname "$out")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lines=() report=() lacking=()

row() { report+=("$(printf '  %-12s %s' "$1" "$2")"); }

# try NAME PROGRAM FLAGS...: does PROGRAM compile and link with FLAGS?
try() {
  local name=$1 program=$2
  shift 2
  printf '%s\n' "$program" >"$work/$name.cpp"
  "${cxx[@]}" -std=c++20 "$work/$name.cpp" -o "$work/$name" "$@" >"$work/$name.log" 2>&1
}

# library NAME VARIABLE PROGRAM FLAGS...: like try, and remembers the flags.
library() {
  local name=$1 variable=$2 program=$3
  shift 3
  local includes=() links=() f
  for f in "$@"; do case $f in -I*) includes+=("${f/#-I/-isystem}") ;; -D*) includes+=("$f") ;; *) links+=("$f") ;; esac; done
  if try "$name" "$program" "${includes[@]}" "${links[@]}"; then
    lines+=("${variable}_CFLAGS := ${includes[*]}" "${variable}_LIBS := ${links[*]}")
    row "$name" "found"
  else
    row "$name" "NOT FOUND ($(grep -m1 -E 'error|cannot find' "$work/$name.log" | sed 's/.*error: //' | cut -c1-80))"
    lacking+=("$name")
  fi
}

pc() { pkg-config --cflags --libs "$1" 2>/dev/null || echo "$2"; }

row compiler "$("${cxx[@]}" --version | head -n 1)"
library HDF5 HDF5 '#include <hdf5.h>
int main() { return H5open(); }' $(pc hdf5-serial "-lhdf5")
library fmt FMT '#include <fmt/core.h>
int main() { fmt::print("{}", 1); }' -lfmt
library OpenBLAS BLAS '#include <cblas.h>
int main() { openblas_set_num_threads(1); }' $(pc openblas "-lopenblas")
library zlib ZLIB '#include <zlib.h>
int main() { return zlibVersion()[0] == 0; }' -lz
library xxhash XXHASH '#include <xxhash.h>
int main() { return int(XXH64("", 0, 0)); }' -lxxhash
library toml++ TOML '#include <toml++/toml.h>
int main() { return int(toml::parse("a = 1").size()) - 1; }' -DTOML_HEADER_ONLY=1
library json JSON '#include <nlohmann/json.hpp>
int main() { return nlohmann::json::parse("0"); }'
library GoogleTest GTEST '#include <gtest/gtest.h>
TEST(A, B) {}' -lgtest -lgtest_main -pthread

cuda_home=${CUDA_HOME:-}
if [ -z "$cuda_home" ]; then
  for d in /usr/local/cuda /opt/cuda; do [ -x "$d/bin/nvcc" ] && cuda_home=$d && break; done
  [ -n "$cuda_home" ] || cuda_home=$(dirname "$(dirname "$(command -v nvcc || echo /none/bin/nvcc)")")
fi
have_cuda=0
if [ "${CUDA:-1}" = 0 ]; then
  row CUDA "left out (CUDA=0); kernels run in the emulator of the tests only"
elif [ -x "$cuda_home/bin/nvcc" ] && try CUDA '#include <cublasLt.h>
#include <cuda_runtime_api.h>
int main() { int n; cublasLtHandle_t h; return cudaGetDeviceCount(&n) + cublasLtCreate(&h) == -1; }' \
  -isystem "$cuda_home/include" -L"$cuda_home/lib64" -Wl,-rpath,"$cuda_home/lib64" -lcudart_static -lcublasLt -ldl -lrt -pthread; then
  have_cuda=1
  version=$("$cuda_home/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
  gpu=$(command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 || true)
  row CUDA "found, $version (GPU: ${gpu:-none here})"
else
  row CUDA "not found; kernels run in the emulator of the tests only"
fi
lines+=("HAVE_CUDA := $have_cuda" "CUDA_HOME := $cuda_home")

printf 'ModRWKV build:\n'
printf '%s\n' "${report[@]}"
if [ "${#lacking[@]}" -gt 0 ]; then
  echo "missing: ${lacking[*]}; tools/setup.sh installs what is needed (as root on Debian or Ubuntu)"
  exit 1
fi
printf '%s\n' "# written by tools/configure.sh" "${lines[@]}" >"$out"
