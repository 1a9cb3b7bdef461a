#!/usr/bin/env bash
# Were all kernels executed, in all thread orders? The list comes from the emulated objects: every instantiation that a launch
# reaches, and every __global__ of the sources, which must be among them. Prints what was not executed and fails if there is any.
# Usage: tools/kernel_coverage.sh OBJ_DIR COVERAGE_FILE   (the file that SIMT_COVERAGE named)
set -euo pipefail
objects=$1 coverage=$2
orders="ascending descending greedy"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "source file <TAB> kernel instantiation" of every object but those of tests
find "$objects" -name '*.cu.o' ! -path '*/tests/*' | sort | while read -r object; do
  source=${object#"$objects"/}
  nm -C "$object" | sed -n 's/.* typeinfo name for \(simt::detail::KernelTag<.*\)$/\1/p' | sort -u | sed "s|^|${source%.o}\t|"
done >"$work/known"
[ -s "$work/known" ] || { echo "kernels: no emulated objects in $objects"; exit 1; }
[ -s "$coverage" ] || { echo "kernels: $coverage is empty: nothing was executed"; exit 1; }

status=0
for order in $orders; do
  awk -F'\t' -v order="$order" '$3 == order { print $2 "\t" $1 }' "$coverage" | sort -u >"$work/$order"
  sort "$work/known" | comm -23 - "$work/$order" >"$work/missing"
  total=$(wc -l <"$work/known") missing=$(wc -l <"$work/missing")
  echo "kernels: $((total - missing)) of $total instantiations executed in $order order"
  if [ "$missing" -gt 0 ]; then
    sed -E 's/simt::detail::KernelTag<&\(void //; s/\(anonymous namespace\):://g; s/modrwkv::(cuda::)?//g; s/\(.*//; s/^/  not executed: /' "$work/missing"
    status=1
  fi
done

# A __global__ that no launch reaches has no instantiation at all.
for source in $(cut -f1 "$work/known" | sort -u) $(git ls-files '*.cu' '*.h' | grep -v '^tests/'); do
  [ -f "$source" ] || continue
  # the name is the word in front of the first parenthesis behind __global__, launch bounds apart
  tr '\n' ' ' <"$source" | grep -oE '__global__ [^;{]*' | sed -E 's/__launch_bounds__\([^)]*\)//; s/^__global__ *void *//; s/\(.*//' |
    while read -r name; do [ -n "$name" ] && echo "$name"; done
done | sort -u >"$work/globals"
while read -r name; do
  if ! grep -q "[:(]$name[<(]" "$work/known"; then
    echo "  never launched: $name"
    status=1
  fi
done <"$work/globals"
echo "kernels: $(wc -l <"$work/globals") __global__ functions in the sources"
exit $status
