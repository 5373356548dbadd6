#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One image, two OpenStack zones, one identity, on real services; sets up all it needs.
#   tools/demo.sh           shows it and stops what it started
#   tools/demo.sh --keep    leaves it up, to be used: see .demo/env
#   tools/demo.sh --down    stops what --keep left up
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" != --down ]; then
    tools/setup.sh
elif [ ! -x .venv/bin/python ]; then
    exit 0
fi
exec .venv/bin/python -m tests.sandbox.demo "$@"
