# SPDX-License-Identifier: Apache-2.0
"""What an API process does before it serves, under any WSGI server.

A WSGI server has a command line of its own, so the environment says where the configuration is:
OS_CIMING_CONFIG_FILES (with `:` between several) and OS_CIMING_CONFIG_DIR, else /etc/ciming.
"""

import os
from typing import Any

from ciming import cmd, config, rpc, staging, trusts
from ciming.api import uwsgi
from ciming.db import session

PROGRAM = "ciming-api"
# By these, gunicorn and uWSGI know that to start the worker again would be of no use.
GUNICORN_BOOT_ERROR, UWSGI_FAILED_APP = 3, 22


def prepare() -> None:
    """Read the configuration; end the process with one clear line if it is of no use."""
    cmd.leave_no_core()
    with cmd.one_clear_line(PROGRAM, UWSGI_FAILED_APP if uwsgi.is_here() else GUNICORN_BOOT_ERROR):
        conf = config.load([], **_configuration())
        trusts.check_trustee()
        rpc.transport()
        session.require_current_schema()
        staging.open_area(conf.staging)
        # The server may fork after this.
        session.forget_connections()
        rpc.transport.cache_clear()


def _configuration() -> dict[str, Any]:
    """What oslo.config gets to know of the environment."""
    found: dict[str, Any] = {"prog": PROGRAM}
    files, folder = (os.environ.get(f"OS_CIMING_CONFIG_{kind}") for kind in ("FILES", "DIR"))
    if files:
        found["default_config_files"] = [file for file in files.split(os.pathsep) if file]
    if folder:
        found["default_config_dirs"] = [folder]
    return found
