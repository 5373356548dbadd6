#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up what the other scripts here need, as far as it is not there yet:
#   tools/setup.sh         Debian packages, .venv with CIMinG, .cache/sandbox-venv with OpenStack
#   tools/setup.sh test    and the test tools in .venv
# SANDBOX_VENV names an environment to use in place of .cache/sandbox-venv.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
python=${PYTHON:-python3}

fail() {
    echo "setup: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# has PACKAGE COMMAND: is there what we want the package for?
has() {
    if [ "$1" = python3-venv ]; then "$python" -c 'import ensurepip, venv' 2>/dev/null
    else command -v "$2" >/dev/null
    fi
}

# system_packages [test]
system_packages() {
    local missing=() package command skipped='browser\]'
    [ "${1:-}" != test ] || skipped='^$'
    while read -r package command; do
        has "$package" "$command" || missing+=("$package")
    done < <(grep -v "$skipped" bindep.txt | sed -nE 's/^([a-z0-9-]+) .*# (.+)$/\1 \2/p')
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "please install what Debian calls: ${missing[*]}"
    echo "Installing Debian packages: ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "${missing[@]}" >/dev/null
}

# fingerprint VENV "FILE…" PIP-ARGUMENT…: what an environment was made of and for.
fingerprint() {
    local venv=$1 files=$2
    shift 2
    # shellcheck disable=SC2086
    { echo "$PWD/$venv" "$@"; "$venv/bin/python" -VV; cat $files; } 2>&1 | sha256sum
}

# provide VENV NAME "FILE…" PIP-ARGUMENT…: install into VENV, unless that was done from the same
# files. What was interrupted is done again from the beginning.
provide() {
    local venv=$1 stamp=$1/.$2 files=$3 log=.cache/pip-$2.log unfinished
    unfinished=.cache/unfinished-$(basename "$venv")
    shift 3
    [ "$(cat "$stamp" 2>/dev/null)" != "$(fingerprint "$venv" "$files" "$@")" ] || return 0
    echo "Installing Python packages into $venv ($*)"
    if [ -e "$unfinished" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        touch "$unfinished"
        "$python" -m venv --clear "$venv"
    fi
    touch "$unfinished"
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check install "$@" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "pip failed; all of it is in $log"
    }
    fingerprint "$venv" "$files" "$@" >"$stamp"
    rm "$unfinished"
}

system_packages "${1:-}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later, please"
mkdir -p .cache
exec 9>.cache/setup.lock
flock -n 9 || { # two scripts that start at the same time do not build one environment twice
    echo "Waiting for another tools/setup.sh"
    flock 9
}

# pbr asks git for the version: say one where git does not answer (no repository, or another's).
git rev-parse HEAD >/dev/null 2>&1 || export PBR_VERSION=${PBR_VERSION:-0.0.1.dev0}

if [ -z "${SANDBOX_VENV:-}" ]; then
    set -m # a process group of its own, to be ended as a whole
    provide .cache/sandbox-venv sandbox tests/sandbox/requirements.lock \
        -r tests/sandbox/requirements.lock &
    other=$!
    set +m
    trap 'kill -- -$other 2>/dev/null || true' EXIT
fi
provide .venv run \
    "requirements.txt setup.cfg osc_plugin/requirements.txt osc_plugin/setup.cfg tools/constraints.txt" \
    -c tools/constraints.txt -e . -e ./osc_plugin
if [ "${1:-}" = test ]; then
    provide .venv test "test-requirements.txt doc/requirements.txt tools/constraints.txt" \
        -c tools/constraints.txt -r test-requirements.txt -r doc/requirements.txt
fi
if [ -n "${other:-}" ]; then
    wait "$other"
    trap - EXIT
fi
