#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# gpu_check.sh - everything that only a machine with a GPU can tell, in one go: `make gpu-check`.
#
#     BUILD=build/cuda scripts/gpu_check.sh [FOLDER]        default build/gpu
#
# Runs the programs that are built in $BUILD and builds nothing, so that they may come from a
# machine without a GPU: the kernel and network tests on the GPU, the same under the four tools
# of compute-sanitizer, the predictions on both data sets, and --compare. FOLDER gets
# gpu_report.txt, which names device, driver and date, gpu_compare.json and eval.txt;
# scripts/readme.py FOLDER puts them into the README. Exit 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

BUILD=${BUILD:-build/cuda}
export H5_TO_BLOB=$BUILD/h5_to_blob
FOLDER=${1:-build/gpu}
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

mkdir -p "$FOLDER"
: >"$REPORT"
say "lenet5 GPU check, $(date -u +%Y-%m-%d)"
if ! nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.sm,clocks.mem,power.limit \
    --format=csv,noheader | tee -a "$REPORT"; then
    say "no GPU on this machine"
    exit 1
fi

for program in layers network device simd golden; do
    [ -x "$BUILD/tests/test_$program" ] && check "test_$program" "$BUILD/tests/test_$program"
done

# The sanitizers slow a kernel down a hundredfold; a few hundred images reach all of its code.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        check "compute-sanitizer $tool, --eval" compute-sanitizer --tool "$tool" \
            --error-exitcode 9 "$BUILD/lenet5" --eval --backend cuda --limit 300 --batch 128 --quiet
        check "compute-sanitizer $tool, test_layers" timeout 150 \
            compute-sanitizer --tool "$tool" --error-exitcode 9 "$BUILD/tests/test_layers"
        check "compute-sanitizer $tool, test_device" timeout 150 env LENET5_QUICK=1 \
            compute-sanitizer --tool "$tool" --error-exitcode 9 "$BUILD/tests/test_device"
    done
else
    say "compute-sanitizer is not here: its checks are left out"
fi

for blob in weights/*.bin; do
    for dataset in mnist fashion_mnist; do
        check "$blob on $dataset" "$BUILD/lenet5" --compare --weights "$blob" \
            --dataset "$dataset"
    done
done
check "figures for the README" sh -c \
    "'$BUILD/lenet5' --eval >'$FOLDER/eval.txt' &&
     '$BUILD/lenet5' --compare --batch 10000 --json >'$FOLDER/gpu_compare.json'"

say "" "$failures failures"
tail -n 60 "$REPORT"
exit $((failures > 0))
