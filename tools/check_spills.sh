#!/usr/bin/env bash
# Reads what ptxas said about every kernel (OBJ_DIR/**/*.cu.o.log) and fails when one spills registers to memory.
# Usage: tools/check_spills.sh OBJ_DIR
set -eu
logs=$(find "$1" -name '*.cu.o.log' | sort)
[ -n "$logs" ] || { echo "spills: no compiled kernels in $1"; exit 1; }
bad=$(awk '/Compiling entry function|Function properties for/ { name = $NF } /[1-9][0-9]* bytes spill/ { print FILENAME ": " name ": " $0 }' $logs)
count=$(cat $logs | grep -c 'bytes spill' || true)
if [ -n "$bad" ]; then
  echo "$bad"
  echo "spills: some of $count compiled kernels spill"
  exit 1
fi
echo "spills: none in $count compiled kernels"
