#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# gpu_check.sh - everything that only a machine with a GPU can tell, in one go: `make gpu-check`.
#
#     BUILD=build/cuda scripts/gpu_check.sh [FOLDER [checks|figures]]     default build/gpu, both
#
# Runs the programs that are built in $BUILD and builds nothing, so that they may come from a
# machine without a GPU. Checks: the tests on the GPU, every kernel under the four tools of
# compute-sanitizer, every member of the family, predictions on both data sets, the figures of
# the card. Figures: --eval, --compare, --bench, and scripts/bench_gpu.py with the peers that
# are installed. FOLDER gets gpu_report.txt, which names device, driver and date, and what
# scripts/readme.py FOLDER puts into the README. Exit 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

BUILD=${BUILD:-build/cuda}
export H5_TO_BLOB=$BUILD/h5_to_blob
FOLDER=${1:-build/gpu}
DATA=${LENET5_DATA:-fashion_mnist/data}
REPORT=$FOLDER/gpu_report.txt
failures=0

say() {
    printf '%s\n' "$*" | tee -a "$REPORT"
}

# check NAME COMMAND...: runs it, its output into the report, and counts a failure
check() {
    local name=$1 start=$SECONDS
    shift
    say "" "==== $name: $*"
    if "$@" >>"$REPORT" 2>&1; then
        say "ok: $name ($((SECONDS - start)) s)"
    else
        say "FAILED: $name (exit $?, $((SECONDS - start)) s)"
        failures=$((failures + 1))
    fi
}

# Small batches, as the tools slow kernels down a hundredfold, and all at once: nothing is timed.
sanitize() {
    local tool program name status=0
    local -A running=()
    for tool in memcheck racecheck initcheck synccheck; do
        for program in "test_layers" "test_device" "bench_gpu --quick --family"; do
            name=$tool-${program%% *}
            # shellcheck disable=SC2086 # the program's options
            LENET5_QUICK=1 timeout 400 compute-sanitizer --tool "$tool" --error-exitcode 9 \
                "$BUILD"/tests/$program >"$FOLDER/$name.txt" 2>&1 &
            running[$name]=$!
        done
    done
    for name in "${!running[@]}"; do
        if wait "${running[$name]}"; then
            echo "clean: $name"
        else
            status=1
            echo "NOT clean: $name"
            cat "$FOLDER/$name.txt"
        fi
        rm -f "$FOLDER/$name.txt"
    done
    return "$status"
}

# The figure of the card (weights/results.json), from every backend on the test set of $1.
card() {
    local backend status=0
    for backend in reference simd cuda fused tensor; do
        "$BUILD/lenet5" --eval --backend "$backend" --weights "weights/lenet5_$1.bin" \
            --data "$DATA/$1" --json | python3 -c "import json, sys
right = json.load(sys.stdin)['correct']
print('$backend:', right, 'right')
sys.exit(right != json.load(open('weights/results.json'))['$1']['test']['right'])" || status=1
    done
    return "$status"
}

# Images as bench_gpu wants them, not compressed; without them it says so and fails.
unpacked() {
    gzip -dc "$DATA/$1/t10k-images-idx3-ubyte.gz" >"$FOLDER/$1.idx"
    printf '%s' "$FOLDER/$1.idx"
}

mkdir -p "$FOLDER"
: >"$REPORT"
say "lenet5 GPU check, $(date -u +%Y-%m-%d)"
if ! nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.max.sm,clocks.max.mem,power.limit \
    --format=csv,noheader | tee -a "$REPORT"; then
    say "no GPU on this machine"
    exit 1
fi

checks() {
    local program blob dataset
    for program in layers network device simd golden; do
        check "test_$program" "$BUILD/tests/test_$program"
    done
    if command -v compute-sanitizer >/dev/null; then
        check "compute-sanitizer" sanitize
    else
        say "FAILED: compute-sanitizer is not here; it is part of the CUDA toolkit"
        failures=$((failures + 1))
    fi
    check "every member of the family" "$BUILD/tests/bench_gpu" --check --family
    for dataset in mnist fashion_mnist; do
        blob=weights/lenet5_$dataset.bin
        check "$blob, every backend" "$BUILD/lenet5" --compare --weights "$blob" \
            --data "$DATA/$dataset"
        check "$blob, the card's figure" card "$dataset"
        check "$blob, against float64" "$BUILD/tests/bench_gpu" --check --blob "$blob" \
            --images "$(unpacked "$dataset")"
    done
}

figures() {
    check "against peers" python3 scripts/bench_gpu.py --bench "$BUILD/tests/bench_gpu" \
        --out "$FOLDER" --blob weights/lenet5_mnist.bin --images "$(unpacked mnist)"
    check "figures of the command" sh -c \
        "'$BUILD/lenet5' --eval >'$FOLDER/eval.txt' &&
         '$BUILD/lenet5' --compare --batch 10000 --json >'$FOLDER/gpu_compare.json' &&
         '$BUILD/lenet5' --bench --json >'$FOLDER/bench.json'"
}

case ${2:-both} in
checks) checks ;;
figures) figures ;;
both)
    checks
    figures
    ;;
*) say "FAILED: '$2' is neither checks nor figures" && failures=1 ;;
esac
rm -f "$FOLDER"/*.idx

say "" "$failures failures"
grep -E '^(ok|FAILED):' "$REPORT"
exit $((failures > 0))
