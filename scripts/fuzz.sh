#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# fuzz.sh - runs one fuzz target for a while on a copy of its corpus; see `make fuzz`.
#
#     scripts/fuzz.sh BUILD TARGET SECONDS       as build/fuzz fuzz_blob 30
#
# The corpus is tests/corpus/NAME for fuzz_NAME; it is copied, so that what the fuzzer adds
# stays out of the tree. Exit 1 on any finding, whose input is kept in BUILD/findings.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# != 3 ]; then
    echo "usage: scripts/fuzz.sh BUILD TARGET SECONDS" >&2
    exit 2
fi
build=$1 target=$2 seconds=$3
if [ ! -x "$build/$target" ]; then
    echo "fuzz.sh: $build/$target is not built; make fuzz builds it" >&2
    exit 1
fi

corpus=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf "$corpus" "$log"' EXIT
find "tests/corpus/${target#fuzz_}" -type f -exec cp {} "$corpus" \;
mkdir -p "$build/findings"

if "$build/$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -seed=1 \
    -print_final_stats=1 -artifact_prefix="$build/findings/$target-" "$corpus" >"$log" 2>&1; then
    printf '%-18s %s inputs in %s s, none harmful\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$seconds"
else
    tail -n 60 "$log" >&2
    printf '%-18s FAILED: the input is kept in %s\n' "$target" "$build/findings" >&2
    exit 1
fi
