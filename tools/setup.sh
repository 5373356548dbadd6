#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets up what the other scripts here need, as far as it is not there yet:
#   tools/setup.sh                Debian packages, .venv with CIMinG, .cache/sandbox-venv with OpenStack
#   tools/setup.sh distributed    and RabbitMQ, PostgreSQL and MariaDB, with the drivers for them
#   tools/setup.sh test           and the test tools in .venv
# SANDBOX_VENV names an environment to use in place of .cache/sandbox-venv.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
python=${PYTHON:-python3}
wanted=${1:-}

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
    elif [ "$1" = postgresql ]; then compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
    else command -v "$2" >/dev/null
    fi
}

# without_start COMMAND…: install packages, and let Debian start none of the servers in them.
without_start() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then
        "$@" || status=$?
    else
        trap "as_root rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"
        "$@" || status=$?
        as_root rm -f "$policy"
        trap - EXIT
    fi
    return $status
}

system_packages() {
    local missing=() package command unwanted
    case $wanted in
        test) unwanted='^$' ;;
        distributed) unwanted=' (browser|liveness)\]' ;;
        *) unwanted=' (browser|distributed|liveness)\]' ;;
    esac
    while read -r package command; do
        has "$package" "$command" || missing+=("$package")
    done < <(sed -nE "/$unwanted/d; s/^([a-z0-9-]+) .*# (.+)\$/\1 \2/p" bindep.txt)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "please install what Debian calls: ${missing[*]}"
    echo "Installing Debian packages: ${missing[*]}"
    as_root apt-get -qq update
    without_start as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "${missing[@]}" >/dev/null
    for package in "${missing[@]}"; do # nor at the next start of the system
        case $package in
            etcd-server) as_root systemctl --quiet disable etcd 2>/dev/null || true ;;
            rabbitmq-server | postgresql | redis-server)
                as_root systemctl --quiet disable "$package" 2>/dev/null || true ;;
        esac
    done
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
    -c tools/constraints.txt -e '.[aws,gcp]' -e ./osc_plugin gcp-storage-emulator # which the demo needs
if [ "$wanted" = distributed ]; then
    provide .venv distributed "setup.cfg tools/constraints.txt" \
        -c tools/constraints.txt -e '.[postgresql,mysql]'
elif [ "$wanted" = test ]; then
    provide .venv test "test-requirements.txt doc/requirements.txt tools/constraints.txt" \
        -c tools/constraints.txt -r test-requirements.txt -r doc/requirements.txt
fi
if [ -n "${other:-}" ]; then
    wait "$other"
    trap - EXIT
fi
