#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up all it needs and runs every check; all of them, also after one failed.
#   tools/test.sh                  one row per axis
#   tools/test.sh --all [SHAPE…]   the full matrix (the tests see it as CIMING_TEST_ALL=1), or that of some of
#                                  the shapes standalone, distributed and uwsgi: all of it takes hours
set -euo pipefail
cd "$(dirname "$0")/.."
shapes=(standalone)
# With real services four run side by side, as they mostly wait.
workers=3 killers=0
case "${1:-}" in
    "") ;;
    --all)
        export CIMING_TEST_ALL=1
        workers=2 killers=2
        shift
        shapes=("$@")
        [ $# -gt 0 ] || shapes=(standalone distributed uwsgi)
        ;;
    *) echo "usage: tools/test.sh [--all [SHAPE…]]" >&2; exit 2 ;;
esac
tools/setup.sh test
PATH=$PWD/.venv/bin:$PATH:/usr/sbin:/sbin
# The tests bring their own clouds: nobody else's credentials get in.
for name in $(compgen -e OS_ || true); do unset "$name"; done

logs=.cache/test
mkdir -p "$logs"
report=$logs/report
: >"$report"

# stage NAME COMMAND…: run a check, keep its output, and note how it ended.
stage() {
    local name=$1 began=$SECONDS word=ok log=$logs/$1.log
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log" || word=FAILED
    printf '%-8s %-12s %4d s  %s\n' "$word" "$name" $((SECONDS - began)) "$(tail -n 1 "$log")" >>"$report"
}

run=(pytest -q --timeout 600 --durations 10)
engines=tests/functional/test_engines.py
crash=tests/functional/test_crash.py
rest=(--ignore "$engines" --ignore "$crash" tests/functional)

# What is killed again and again takes longest with --all, and least without.
killed() {
    local status=0 shape
    for shape in "${shapes[@]}"; do
        case $shape in
            standalone)
                CIMING_TEST_SHAPE=$shape "${run[@]}" "$engines" || status=1
                CIMING_TEST_SHAPE=$shape "${run[@]}" -n $killers --dist worksteal "$crash" || status=1
                ;;
            distributed)
                CIMING_TEST_SHAPE=$shape "${run[@]}" -n $killers --dist worksteal "$crash" || status=1
                ;;
        esac
    done
    [ -n "${CIMING_TEST_ALL:-}" ] ||
        CIMING_TEST_SHAPE=distributed "${run[@]}" -k distributed "${rest[@]}" || status=1
    return $status
}

# Tests with real services.
real() {
    local status=0 beside shape
    killed >"$logs/beside.log" 2>&1 &
    beside=$!
    for shape in "${shapes[@]}"; do
        case $shape in
            standalone) set -- --ignore tests/functional/test_distributed.py tests/contract ;;
            *) set -- -k "$shape" ;;
        esac
        CIMING_TEST_SHAPE=$shape "${run[@]}" -n $workers --dist loadfile "$@" "${rest[@]}" || status=1
    done
    wait "$beside" || status=1
    printf '\n== beside\n'
    cat "$logs/beside.log"
    return $status
}

# What needs one processor, beside what mostly waits.
reading() {
    stage ruff ruff check .
    stage hacking flake8
    stage mypy mypy
    stage imports lint-imports
    stage docs sphinx-build -q -W --keep-going -b html doc/source doc/build/html
    stage fuzz pytest -q --timeout 900 tests/fuzz
}

reading >"$logs/reading.log" 2>&1 &
stage unit pytest -q --timeout 120 --durations 10 -n 2 tests/unit
wait $!
cat "$logs/reading.log"

stage real real

printf '\n'
cat "$report"
! grep -q ^FAILED "$report"
