#!/usr/bin/env bash
# All that is proved and measured on a GPU, in one go of some ten minutes:  benchmarks/gpu.sh OUT [STEP...]
#
# OUT gets gpu.json (of these steps, or all; see benchmarks/gpu.py), checks.tsv (each check, its exit
# code and seconds) and a log of each.
# WHEELS=FOLDER installs the wheels in it first, digitfast's own among them, for a machine without a package index.
# TINY=FOLDER tries it all out on a CPU, with the digits of a small folder.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
export OMP_NUM_THREADS=2  # many processes at a time: threads that wait for each other would take all cores
said() { printf '== %s (%s s)\n' "$1" "$SECONDS"; }

check() {  # NAME LIMIT COMMAND...: its output goes to a log, its exit code and seconds to checks.tsv
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    timeout "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    printf '%s\t%s\t%s\n' "$name" "$code" $((SECONDS - start)) >> "$out/checks.tsv"
    [ $code = 0 ] || { echo "$name: exit code $code"; tail -n 12 "$out/$name.log" | cut -c1-300; }
    return $code
}

if [ -n "${WHEELS:-}" ]; then
    said "wheels"
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" \
        "$WHEELS"/*.whl || exit 1
    export PYTHONPATH="$work/site"
fi
digitfast="$python -m digitfast"
source=${TINY:-mnist}
small=${TINY:+--bs 32}
rm -f "$out/checks.tsv"

said "tests, beside the unpacking of the digits"
for file in $(grep -l "mark.gpu" tests/test_*.py); do
    marked="gpu"
    [ "$file" = tests/test_cuda_graphs.py ] && marked=""
    (check "$(basename "$file" .py)" 120 "$python" -m pytest -q -p no:cacheprovider -m "$marked" "$file"
     tail -n 1 "$out/$(basename "$file" .py).log") &
done
check data 120 $digitfast data "$source" || exit 1

said "commands"
image=$("$python" -c "from digitfast import digits_path; print(next((digits_path('$source') / 'testing/7').iterdir()))")
runs="$work/runs"
fit="$digitfast fit --source $source --runs $runs $small"
(check fit 90 $fit --name first --holdout 0.1 &&
    { check export_onnx 60 $digitfast export "$runs/first" --to "$work/first.onnx" &
      check evaluate 60 $digitfast evaluate "$runs/first" &
      check predict 60 $digitfast predict "$runs/first" "$image" &
      check report 90 $digitfast report "$runs/first" &
      wait; }) &
(check lr_find 90 $digitfast lr-find --source "$source" $small --plot "$work/lr.png") &
(check fit_fp16 90 $fit --arch digitnet --precision fp16 --name fp16) &
(check fit_bf16 90 $fit --arch resnet18 --precision bf16 --name bf16) &
(check fit_killed 90 timeout -s KILL 45 $fit --run digitnet-deep --epochs 400 --name killed
 check resumed 70 timeout -s INT 40 $digitfast fit --resume "$runs/killed"
 grep -h "going on" "$out/resumed.log") &
wait

said "measurements, with nothing beside them"
unset OMP_NUM_THREADS
"$python" benchmarks/gpu.py "$out/gpu.json" "$@" 2>&1 | tee "$out/gpu.log"
said "checks: name, exit code, seconds"
cat "$out/checks.tsv"
