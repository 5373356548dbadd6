# SPDX-License-Identifier: Apache-2.0
"""ciming-engine: runs Jobs, on as many hosts as there are; the API is elsewhere."""

import signal
import sys
import threading

from ciming import cmd, config, metrics, notifications, rpc, trusts
from ciming.db import session
from ciming.engine import service


def prepare() -> service.Engine:
    """Fail here, in one place, if the configuration is of no use."""
    trusts.service_session()
    rpc.transport()
    notifications.check()
    session.require_current_schema()
    return service.Engine()


def main() -> int:
    cmd.leave_no_core()
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    with cmd.one_clear_line():
        config.load(sys.argv[1:])
        engine = prepare()
        scraped = metrics.listen()
        engine.start()
    metrics.serve(scraped)
    stopping.wait()
    engine.stop()
    return 0
