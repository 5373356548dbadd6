# SPDX-License-Identifier: Apache-2.0
"""ciming-standalone: API and engine in one process, SQLite, no broker.

One gunicorn worker serves the API; the engine's threads run beside it.
"""

import ctypes
import os
import signal
import socket
import struct
import sys
from typing import Any

from gunicorn.app import base as gunicorn
from oslo_config import cfg
from oslo_log import log
from oslo_utils import netutils

from ciming import cmd, config, rpc, staging, trusts
from ciming.db import session

LOG = log.getLogger(__name__)
PR_SET_PDEATHSIG = 1                            # <linux/prctl.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # <malloc.h>


class Standalone(gunicorn.BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn, told by our configuration instead of its own."""

    def load_config(self) -> None:
        api = cfg.CONF.api
        settings = {
            "bind": f"{netutils.escape_ipv6(api.bind_host)}:{api.bind_port}",
            "pidfile": api.pid_file,
            "proc_name": "ciming-standalone",
            "worker_class": "gthread",
            "workers": 1,
            "threads": api.threads,
            "timeout": 0,               # an upload takes as long as it takes
            "graceful_timeout": 15,
            "keepalive": 15,
            "limit_request_field_size": 16384,      # tokens can be long
            "loglevel": "warning",
            "control_socket_disable": True,
            "post_fork": after_fork,
            "post_worker_init": start_engine,
            "worker_exit": stop_engine,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """In the worker, after the fork."""
        from ciming.api import app

        return app.create_app()


def after_fork(arbiter: Any, worker: Any) -> None:
    die_with_parent(arbiter, worker)
    keep_large_buffers()


def keep_large_buffers() -> None:
    """Have glibc reuse the blocks of uploads.

    It maps and unmaps each, and the page faults cost more than the copying: 400 MiB in blocks of 1 MiB
    took 0.4 to 0.65 s, and 0.16 to 0.28 s so.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):        # musl has none
        libc.mallopt(M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 16 << 20)


def die_with_parent(_arbiter: Any, worker: Any) -> None:
    """kill -9 of the master must leave nothing alive and the port free."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker.ppid:
        os._exit(1)


def give_up_silent_clients(worker: Any) -> None:
    """gunicorn waits for the rest of a request's head for ever, in a thread: let the kernel end that."""
    seconds, rest = divmod(float(cfg.CONF.api.upload_timeout), 1)
    patience = struct.pack("ll", int(seconds), int(rest * 1_000_000))
    for listener in worker.sockets:     # what it accepts inherits this
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)


def start_engine(worker: Any) -> None:
    from ciming.engine import service

    give_up_silent_clients(worker)
    session.keep_open()
    worker.engine = service.Engine()
    worker.engine.start()
    by_gunicorn = signal.getsignal(signal.SIGTERM)

    def stop_both(signum: int, frame: Any) -> None:
        """gunicorn first waits for requests that run; Jobs need not wait for those."""
        worker.engine.begin_to_stop()
        by_gunicorn(signum, frame)      # type: ignore[operator, misc]  # it is a function

    signal.signal(signal.SIGTERM, stop_both)


def stop_engine(_arbiter: Any, worker: Any) -> None:
    if hasattr(worker, "engine"):
        worker.engine.stop()


def prepare() -> None:
    """Bring the schema up to date, and fail here, in one place, if the configuration is of no use."""
    from ciming.engine import claims

    trusts.service_session()        # before anything is made
    session.upgrade()
    session.forget_connections()
    staging.open_area(cfg.CONF.staging)
    claims.Liveness(cfg.CONF.engine.coordination_url)


def main() -> int:
    rpc.stay_in_process()
    with cmd.one_clear_line():
        config.load(sys.argv[1:])
        prepare()
    Standalone().run()
    return 0
