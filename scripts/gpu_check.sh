#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# gpu_check.sh - everything that only a machine with a GPU can tell, in one go: `make gpu-check`.
#
#     BUILD=build/cuda scripts/gpu_check.sh [REPORT]        default gpu_report.txt
#
# Runs the programs that are built in $BUILD and builds nothing, so that they may come from a
# machine without a GPU: the kernel and network tests on the GPU, the same under the four tools
# of compute-sanitizer, the predictions on both data sets, and --compare. REPORT names device,
# driver and date. Exit 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build/cuda}
REPORT=${1:-gpu_report.txt}
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

: >"$REPORT"
say "lenet5 GPU check, $(date -u +%Y-%m-%d)"
if ! nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.sm,clocks.mem,power.limit \
    --format=csv,noheader | tee -a "$REPORT"; then
    say "no GPU on this machine"
    exit 1
fi

for program in layers network simd golden; do
    [ -x "$BUILD/tests/test_$program" ] && check "test_$program" "$BUILD/tests/test_$program"
done

# The sanitizers slow a kernel down a hundredfold; a few hundred images reach all of its code.
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        check "compute-sanitizer $tool, --eval" compute-sanitizer --tool "$tool" \
            --error-exitcode 9 "$BUILD/lenet5" --eval --backend cuda --limit 300 --batch 128 --quiet
        check "compute-sanitizer $tool, test_layers" compute-sanitizer --tool "$tool" \
            --error-exitcode 9 "$BUILD/tests/test_layers"
    done
else
    say "compute-sanitizer is not here: its checks are left out"
fi

for blob in weights/*.bin; do
    for dataset in mnist fashion_mnist; do
        check "$blob on $dataset" "$BUILD/lenet5" --compare --weights "$blob" \
            --dataset "$dataset" --batch 10000
    done
done
check "report for the README" "$BUILD/lenet5" --compare

say "" "$failures failures"
tail -n 60 "$REPORT"
exit $((failures > 0))
