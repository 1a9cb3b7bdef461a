#!/usr/bin/env bash
# make demo: installs what is missing, builds what it needs, imports a CSV, trains a forecaster, evaluates it beside baselines
# and draws its forecasts. Environment: DATA (a CSV; default the shipped sample), OUT (default runs/demo), JOBS.
set -euo pipefail
data=${DATA:-data/samples/nyc_hourly_2013.csv}
out=${OUT:-runs/demo}
jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
programs="build/bin/import build/bin/train_timeseries build/bin/eval_timeseries"

clock() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(clock)" 'BEGIN { printf "%.0f", b - a }'; }

start=$(clock)
tools/setup.sh
setup=$(since "$start")

start=$(clock)
make --no-print-directory -j"$jobs" $programs
build=$(since "$start")

start=$(clock)
rm -rf "$out"
mkdir -p "$out"
build/bin/import timeseries --csv "$data" --split 0.8,0.1,0.1 --out "$out.h5" --overwrite
build/bin/train_timeseries --config train/configs/demo.toml --data "$out.h5" --out "$out"
training=$(since "$start")

start=$(clock)
table=$(build/bin/eval_timeseries --model "$out" --data "$out.h5")
evaluation=$(since "$start")
echo "$table"

# score NAME COLUMN: from the table of the evaluation
score() { awk -v name="$1" -v column="$2" 'index($0, name "  ") == 1 { print column == "mse" ? $(NF - 1) : $NF; exit }' <<<"$table"; }
echo "report: $out/report.html"
echo "seconds: set-up $setup, build $build, import and training $training, evaluation $evaluation"
echo "demo: mse=$(score model mse) mae=$(score model mae) last=$(score 'last value' mse) seasonal=$(score 'seasonal naive 24' mse)"
