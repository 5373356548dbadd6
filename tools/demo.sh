#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One image, two OpenStack zones and another OpenStack, one identity, on real services; sets up all it needs.
#   tools/demo.sh           shows it and stops what it started
#   tools/demo.sh --keep    leaves it up, to be used: see .demo/env
#   tools/demo.sh --down    stops what --keep left up
#   tools/demo.sh --distributed [--keep]    the same with API, engine, RabbitMQ and PostgreSQL apart
set -euo pipefail
cd "$(dirname "$0")/.."
case " $* " in
    *" --down "*) [ -x .venv/bin/python ] || exit 0 ;;
    *" --distributed "*) tools/setup.sh distributed ;;
    *) tools/setup.sh ;;
esac
exec .venv/bin/python -m tests.sandbox.demo "$@"
