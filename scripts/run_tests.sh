#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# run_tests.sh - runs every test that is built in $BUILD and every tests/*.bats, and counts.
#
#     BUILD=build/cuda scripts/run_tests.sh [NAME...]     default build/cpu, and all of them
#
# One line a program; below it what failed, with what it said, and what was skipped, with the
# reason. The last line is `N passed, N failed, N skipped`. Exit 1 if anything failed, if a
# program crashed, ran too few tests or none, or left anything to the sanitizers.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

export BUILD=${BUILD:-build/cpu}
LIMIT=${TEST_SECONDS:-900} # for one program

passed=0 failed=0 skipped=0 programs=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Reads TAP, as cmocka and bats write it, and prints the failures and skips for a person. Its
# last line is: passed failed skipped planned. cmocka writes a skipped test as "not ok N # SKIP
# NAME", its reason in a line "# skip: REASON" before, and a failure's reason before and after
# it; bats writes "ok N NAME # skip REASON", and a failure's reason after it.
tally() {
    awk '
        function flush_said(  k) {
            for (k = 1; k <= said; k++) print "        " line[k]
            said = 0
        }
        /^1\.\.[0-9]+/ { planned += substr($0, 4); next }
        /^(not )?ok [0-9]+/ {
            failing = 0
            name = $0
            sub(/^(not )?ok [0-9]+ *(- )?/, "", name)
            if (match(name, /# *[Ss][Kk][Ii][Pp]/)) {
                skips++
                why = substr(name, RSTART + RLENGTH)
                name = substr(name, 1, RSTART - 1)
                if (name == "") { name = why; why = reason }
                gsub(/^ +| +$/, "", name)
                gsub(/^[ :]+| +$/, "", why)
                if (why == "") why = "no reason given"
                if (!(why in times)) order[++reasons] = why
                if (++times[why] <= 2) names[why] = names[why] (times[why] > 1 ? "; " : "") name
            } else if ($0 ~ /^not/) {
                fails++
                print "    FAILED: " name
                flush_said()
                failing = 1
            } else
                good++
            said = 0
            reason = ""
            next
        }
        /^# (not )?ok - / { next }
        /^# skip: / { reason = substr($0, 9); next }
        failing && /^#/ { print "        " $0; next }
        { failing = 0; if (said < 40) line[++said] = $0 }
        END {
            for (k = 1; k <= reasons; k++) {
                why = order[k]
                more = times[why] > 2 ? " and " times[why] - 2 " more" : ""
                print "    skipped: " names[why] more ": " why
            }
            if (good + fails + skips != planned) flush_said()
            print good + 0, fails + 0, skips + 0, planned + 0
        }' "$1"
}

# run NAME COMMAND...: runs one program that writes TAP
run() {
    local name=$1 start=$SECONDS status good bad skips planned text
    shift
    programs=$((programs + 1))
    timeout -k 10 "$LIMIT" "$@" >"$log" 2>&1
    status=$?
    text=$(tally "$log")
    read -r good bad skips planned <<<"${text##*$'\n'}"
    text=${text%"$good $bad $skips $planned"}
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        text+="    FAILED: $name: stopped after $LIMIT seconds"$'\n'
        bad=$((bad + 1))
    elif [ $((good + bad + skips)) != "$planned" ] || [ "$planned" = 0 ]; then
        text+="    FAILED: $name: exit $status after $((good + bad + skips)) of $planned tests"$'\n'
        bad=$((bad + 1))
    elif [ "$bad" = 0 ] && [ "$status" != 0 ]; then
        text+=$(tail -n 30 "$log")
        text+=$'\n'"    FAILED: $name: exit $status, though no test failed"$'\n'
        bad=$((bad + 1))
    fi
    printf '%-18s %3d passed, %d failed, %d skipped (%d s)\n' "$name" "$good" "$bad" "$skips" \
        $((SECONDS - start))
    printf '%s' "$text"
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skips))
}

wanted() {
    local name
    [ $# -gt 1 ] || return 0
    for name in "${@:2}"; do
        [ "$name" = "$1" ] && return 0
    done
    return 1
}

for source in tests/test_*.c tests/test_*.cu; do
    name=$(basename "${source%.*}")
    wanted "$name" "$@" || continue
    if [ "${source##*.}" = cu ] && [ ! -e "$BUILD/layers/cuda.cu.o" ]; then
        continue # a build without CUDA has none of these
    fi
    if [ -x "$BUILD/tests/$name" ]; then
        CMOCKA_MESSAGE_OUTPUT=TAP run "$name" "$BUILD/tests/$name"
    else
        printf '%-18s FAILED: %s is not built; make tests builds it\n' "$name" \
            "$BUILD/tests/$name"
        failed=$((failed + 1))
    fi
done

for suite in tests/*.bats; do
    wanted "$(basename "$suite")" "$@" || continue
    if command -v bats >/dev/null; then
        run "$(basename "$suite")" bats --tap "$suite"
    else
        printf '%-18s FAILED: bats is not installed; scripts/setup.sh test installs it\n' \
            "$(basename "$suite")"
        failed=$((failed + 1))
    fi
done

if [ $programs = 0 ]; then
    echo "nothing ran: there is no such test"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
