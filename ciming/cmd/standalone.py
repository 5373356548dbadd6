# SPDX-License-Identifier: Apache-2.0
"""ciming-standalone: API and engine in one process, SQLite, no broker.

One gunicorn worker serves the API; the engine's threads run beside it.
"""

import functools
import signal
import socket
import sys
from typing import Any

from gunicorn.app import base
from oslo_config import cfg
from oslo_log import log
from oslo_utils import netutils

from ciming import cmd, config, metrics, notifications, rpc, staging, trusts
from ciming.cmd import gunicorn
from ciming.db import session

LOG = log.getLogger(__name__)


class Standalone(base.BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn, told by our configuration instead of its own.

    :param scraped: where metrics are asked for; the worker inherits it
    """

    def __init__(self, scraped: socket.socket | None) -> None:
        self._scraped = scraped
        super().__init__()

    def load_config(self) -> None:
        api = cfg.CONF.api
        settings = {name: value for name, value in vars(gunicorn).items() if name in self.cfg.settings}
        settings |= {
            "bind": f"{netutils.escape_ipv6(api.bind_host)}:{api.bind_port}",
            "pidfile": api.pid_file,
            "proc_name": "ciming-standalone",
            "workers": 1,
            "threads": api.threads,
            "on_starting": lambda _arbiter: None,       # prepare() was there before
            "post_worker_init": functools.partial(start_engine, self._scraped),
            "worker_exit": stop_engine,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """In the worker, after the fork."""
        from ciming.api import app

        return app.create_app()


def start_engine(scraped: socket.socket | None, worker: Any) -> None:
    from ciming.engine import service

    gunicorn.give_up_silent_clients(worker, cfg.CONF.api.upload_timeout)
    worker.engine = service.Engine()
    worker.engine.start()
    metrics.serve(scraped)
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
    notifications.check()
    session.upgrade()
    session.forget_connections()
    staging.open_area(cfg.CONF.staging)
    liveness = claims.Liveness()
    liveness.start()
    liveness.stop()


def main() -> int:
    cmd.leave_no_core()
    rpc.stay_in_process()
    with cmd.one_clear_line():
        config.load(sys.argv[1:])
        prepare()
        scraped = metrics.listen()
    Standalone(scraped).run()
    return 0
