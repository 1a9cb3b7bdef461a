#!/usr/bin/env bash
# Compares the kernels that the emulator executed (a file written by test processes under SIMT_COVERAGE) with every
# instantiation that a launch in the emulated objects can reach, and with every __global__ of the sources. The kernels of
# tests are not counted. Prints what was not executed; exit status 1 if there is anything.
# Usage: tools/kernel_coverage.sh OBJ_DIR COVERAGE_FILE [SCHEDULE...]
# With schedules (ascending, descending, ...) a kernel counts only if it ran under each of them.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }
objects=$1 coverage=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
[ -s "$coverage" ] || { echo "kernels: $coverage is empty or missing: did any test run with SIMT_COVERAGE?" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# symbol, object's source stem ("-" where the symbol is external and so unique in the program)
find "$objects" -name '*.o' -not -path '*/tests/*' | sort | while read -r object; do
  stem=$(basename "$object")
  nm "$object" 2>/dev/null | awk -v stem="${stem%%.*}" '
    $3 ~ /^_ZTSN4simt6detail9KernelTagI/ { print substr($3, 5) "\t" ($2 ~ /[VWu]/ ? "-" : stem) }'
done | sort -u >"$work/reachable"
[ -s "$work/reachable" ] || { echo "kernels: no launch in the objects of $objects" >&2; exit 1; }

awk -F'\t' -v wanted="$*" '
  BEGIN { orders = split(wanted, order, " ") }
  FNR == NR {
    file = $2
    sub(/.*\//, "", file)
    sub(/\..*/, "", file)
    ran[$1 "\t" file "\t" $3] = ran[$1 "\t-\t" $3] = any[$1 "\t" file] = any[$1 "\t-"] = 1
    next
  }
  {
    missing = ""
    for (i = 1; i <= orders; ++i) if (!(($0 "\t" order[i]) in ran)) missing = missing (missing == "" ? "" : ", ") order[i]
    all += 1
    if (!($0 in any)) print $1 "\tnot executed"
    else if (missing != "") print $1 "\tnot executed in the order " missing
    else good += 1
  }
  END { print good + 0 " of " all > "/dev/stderr" }' "$coverage" "$work/reachable" >"$work/missing" 2>"$work/count"

# Kernels of the sources that no launch reaches: their names occur in no symbol. Comments do not count.
find "$root" \( -name build -o -name tests -o -name .git -o -path "$root/core/simt" \) -prune -o \
  \( -name '*.cu' -o -name '*.h' -o -name '*.cuh' \) -print | sort |
  xargs perl -0777 -ne '
    s{//[^\n]*}{}g; s{/\*.*?\*/}{}gs;
    my $p = qr/(?:\((?:[^()]|\([^()]*\))*\))/;
    while (/__global__((?:\s+(?:static|void|inline)|\s+__launch_bounds__\s*$p)*)\s+(\w+)\s*\(/g) { print "$2\t$ARGV\n" }' >"$work/sources"
while IFS=$'\t' read -r name file; do
  grep -q "[0-9]$name[IE]" "$work/reachable" || printf '%s (%s)\n' "$name" "${file#"$root"/}"
done <"$work/sources" >"$work/unreached"

names() { # demangled, without what surrounds the kernel
  awk -F'\t' '{ print "_ZTS" $1 }' "$1" | c++filt | sed -E 's/^typeinfo name for simt::detail::KernelTag<&\(?(void )?//; s/\)?>$//' |
    paste - <(awk -F'\t' '{ print $2 }' "$1") | awk -F'\t' '{ print "  " $2 ": " $1 }'
}
names "$work/missing"
sed 's/^/  never launched: /' "$work/unreached"
echo "kernels: $(cat "$work/count") instantiations executed${*:+ (orders: $*)}, $(wc -l <"$work/sources") kernels in the sources"
[ ! -s "$work/missing" ] && [ ! -s "$work/unreached" ]
