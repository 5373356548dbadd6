# SPDX-License-Identifier: Apache-2.0
"""How gunicorn serves the API: `gunicorn --config python:ciming.cmd.gunicorn ciming.api.wsgi`.

Its options on the command line (--bind, --workers, --pid) go over what is written here.
"""

import ctypes
import os
import signal
import socket
import struct
from typing import Any

from gunicorn.http import errors
from oslo_config import cfg

PR_SET_PDEATHSIG = 1                            # <linux/prctl.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # <malloc.h>

bind = "0.0.0.0:9899"
workers = 2
worker_class = "gthread"
threads = 32                # above [api] max_uploads, so that other calls get through
timeout = 0                 # an upload takes as long as it takes
graceful_timeout = 15
keepalive = 15
limit_request_field_size = 16384        # tokens can be long
loglevel = "warning"
control_socket_disable = True
forwarded_allow_ips = ""    # [oslo_middleware] enable_proxy_headers_parsing says whether a proxy is believed


def on_starting(_arbiter: Any) -> None:
    """In the master, once: of several workers that can not start, each would say why."""
    from ciming.api import startup

    startup.prepare()
    cfg.CONF.reset()        # each worker reads it for itself


def post_fork(_arbiter: Any, worker: Any) -> None:
    """In each worker, before it loads the application."""
    die_with_parent(worker)
    keep_large_buffers()
    quote_nothing()


def post_worker_init(worker: Any) -> None:
    """In each worker, after it has loaded the application."""
    give_up_silent_clients(worker, cfg.CONF.api.upload_timeout)


def give_up_silent_clients(worker: Any, timeout: float) -> None:
    """gunicorn waits for the rest of a request's head for ever, in a thread: let the kernel end that."""
    seconds, rest = divmod(timeout, 1)
    patience = struct.pack("ll", int(seconds), int(rest * 1_000_000))
    for listener in worker.sockets:     # what it accepts inherits this
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)


def quote_nothing() -> None:
    """gunicorn logs and answers what it can not parse: of a header without its colon, the token."""
    for name, kind in vars(errors).items():
        is_error = isinstance(kind, type) and issubclass(kind, Exception)
        if is_error and not name.startswith("Limit"):       # those say how much is too much
            kind.__str__ = _name_of


def _name_of(error: Exception) -> str:
    return type(error).__name__


def die_with_parent(worker: Any) -> None:
    """kill -9 of the master must leave nothing alive and the port free."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker.ppid:
        os._exit(1)


def keep_large_buffers() -> None:
    """Have glibc reuse the blocks of uploads.

    It maps and unmaps each, and the page faults cost more than the copying: 400 MiB in blocks of 1 MiB
    took 0.4 to 0.65 s, and 0.16 to 0.28 s so.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):        # musl has none
        libc.mallopt(M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 16 << 20)
