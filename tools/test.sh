#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up all it needs and runs every check; all of them, also after one failed.
#   tools/test.sh           one row per axis
#   tools/test.sh --all     the full matrix (the tests see it as CIMING_TEST_ALL=1)
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    "") ;;
    --all) export CIMING_TEST_ALL=1 ;;
    *) echo "usage: tools/test.sh [--all]" >&2; exit 2 ;;
esac
tools/setup.sh test
PATH=$PWD/.venv/bin:$PATH:/usr/sbin:/sbin
# The tests bring their own clouds: nobody else's credentials get in.
for name in $(compgen -e OS_ || true); do unset "$name"; done

logs=.cache/test
mkdir -p "$logs"
report=()
status=0

# stage NAME COMMAND…: run a check, keep its output, and remember how it ended.
stage() {
    local name=$1 began=$SECONDS word=ok log=$logs/$1.log
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if ! "$@" 2>&1 | tee "$log"; then
        word=FAILED
        status=1
    fi
    report+=("$(printf '%-8s %-12s %4d s  %s' "$word" "$name" $((SECONDS - began)) "$(tail -n 1 "$log")")")
}

# The shapes of the service side by side: tests with real services mostly wait.
shapes() {
    local log=$logs/distributed.log others=distributed status=0
    [ -z "${CIMING_TEST_ALL:-}" ] || others="distributed uwsgi"
    CIMING_TEST_SHAPE=$others pytest -q --timeout 600 -k "${others// / or } or engines" tests/functional >"$log" 2>&1 &
    CIMING_TEST_SHAPE=standalone pytest -q --timeout 600 --durations 10 \
        --ignore tests/functional/test_distributed.py --ignore tests/functional/test_engines.py \
        tests/contract tests/functional || status=1
    wait $! || status=1
    printf '\n== %s\n' "$others"
    cat "$log"
    return $status
}

stage ruff ruff check .
stage hacking flake8
stage mypy mypy
stage imports lint-imports
stage docs sphinx-build -q -W --keep-going -b html doc/source doc/build/html
stage unit pytest -q --timeout 120 tests/unit
stage fuzz pytest -q --timeout 900 tests/fuzz

stage real shapes

printf '\n'
printf '%s\n' "${report[@]}"
exit $status
