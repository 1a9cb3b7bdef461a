#!/usr/bin/env bash
# Runs GoogleTest binaries one after the other from the checkout's root and prints `N passed, N failed` as the last line. A
# binary that dies without a summary counts as one failed test. Usage: tools/run_tests.sh BINARY...
set -u
passed=0 failed=0 skipped=0
for binary in "$@"; do
  log=$(mktemp)
  start=$(date +%s.%N)
  OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1} "$binary" --gtest_color=no >"$log" 2>&1
  code=$?
  seconds=$(echo "$(date +%s.%N) $start" | awk '{printf "%.1f", $1 - $2}')
  p=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log")
  f=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log")
  s=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log")
  if [ "$code" -ne 0 ] && [ "${f:-0}" -eq 0 ]; then f=1; fi
  printf '%-28s %4d passed %4d failed %4d skipped  %7s s\n' "$(basename "$(dirname "$(dirname "$binary")")")/$(basename "$binary")" \
    "${p:-0}" "${f:-0}" "${s:-0}" "$seconds"
  if [ "$code" -ne 0 ]; then grep -vE '^\[ +(OK|RUN) ' "$log" | tail -n 60; fi
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
  rm -f "$log"
done
[ "$skipped" -eq 0 ] || echo "$skipped skipped (not counted as passed)"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
