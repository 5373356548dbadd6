# SPDX-License-Identifier: Apache-2.0
"""Start OpenStack API services of one kind; run by the Python of the sandbox's environment.

``python -m tests.sandbox.serve KIND FOLDER:PORT [FOLDER:PORT ...]``

KIND is keystone, glance or barbican; a folder holds one instance's configuration, database and
logs. The service is imported once, which is most of a start, and each instance is forked from
that image: it creates its database if there is none, then serves with gunicorn (one worker with
threads: it takes chunked uploads and ranged downloads correctly). This process writes each one's
``pid`` file and returns; the instances live on in process groups of their own.
"""

import atexit
import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import sqlite3
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Never

from gunicorn.app import base

from tests.sandbox import processes

PRELOAD = {
    "keystone": (
        "keystone.server.flask.core",
        "keystone.server.flask.application",
        "keystone.server.wsgi",
        "keystone.identity.backends.sql",
        "keystone.token.providers.fernet.core",
        "saml2",
    ),
    "glance": (
        "glance.common.wsgi_app",
        "glance.api.versions",
        "glance.api.v2.router",
        "glance.db.sqlalchemy.api",
        "glance.api.middleware.context",
        "glance.api.middleware.version_negotiation",
        "glance.common.trust_auth",
        "glance_store._drivers.filesystem",
        "keystonemiddleware.auth_token",
        "keystoneauth1.identity.v3",
        "osprofiler.web",
        "oslo_middleware.cors",
        "oslo_middleware.healthcheck",
        "taskflow.engines",
    ),
    "barbican": ("barbican.common.config", "barbican.api.app"),
}
Manage = Callable[[list[str]], object]


class Server(base.BaseApplication):  # type: ignore[misc]
    """One instance under gunicorn."""

    def __init__(self, kind: str, folder: pathlib.Path, port: int) -> None:
        self.kind = kind
        self.folder = folder
        self.options = {
            "bind": f"{processes.HOST}:{port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": 16,
            "timeout": 0,
            "graceful_timeout": 1,
            "keepalive": 15,
            "loglevel": "warning",
            "proc_name": f"sandbox {folder}",
            "control_socket_disable": True,
        }
        if pathlib.Path("/dev/shm").is_dir():
            self.options["worker_tmp_dir"] = "/dev/shm"
        super().__init__()

    def load_config(self) -> None:
        """Hand our options to gunicorn."""
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Load the service; a failure ends gunicorn, which would start a new worker for ever."""
        try:
            return application(self.kind, self.folder)
        except BaseException:
            traceback.print_exc()
            leave(3)


def leave(status: int) -> Never:
    """End this process without running what belongs to the process it was forked from."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def application(kind: str, folder: pathlib.Path) -> Any:
    """Return the service's WSGI application."""
    sys.argv = [kind]  # Keystone and Glance parse it while loading
    if kind == "keystone":
        os.environ["OS_KEYSTONE_CONFIG_DIR"] = str(folder)
        return importlib.import_module("keystone.wsgi.api").application
    if kind == "glance":
        os.environ["OS_GLANCE_CONFIG_DIR"] = str(folder)
        return importlib.import_module("glance.wsgi.api").application
    # Barbican's own entry point has the path of its paste file hard-coded.
    return importlib.import_module("paste.deploy").loadapp(
        f"config:{folder}/barbican-api-paste.ini"
    )


def bear_load(kind: str, folder: pathlib.Path) -> None:
    """Have SQLite's readers and writers not trip over each other: "database is locked" is a 500.

    The services begin with a read and write later, which SQLite refuses where another wrote
    meanwhile, without waiting: so each transaction asks for the right to write at its beginning.
    """
    with contextlib.closing(sqlite3.connect(folder / f"{kind}.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    sqlalchemy = importlib.import_module("sqlalchemy")
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _patiently)
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", _at_once, retval=True)


def _patiently(connection: Any, _record: Any) -> None:
    for pragma in ("busy_timeout=60000", "synchronous=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def _at_once(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
) -> tuple[str, Any]:
    return "BEGIN IMMEDIATE" if statement == "BEGIN" else statement, parameters


def prepare(kind: str, folder: pathlib.Path) -> None:
    """Create the database, unless an earlier start did.

    The empty one is kept beside the services' code: making it is a good part of a first start.
    """
    ready = folder / "ready"
    if ready.exists():
        return
    database = folder / f"{kind}.db"
    version = importlib.metadata.version(kind)
    template = pathlib.Path(sys.prefix) / f"sandbox-{kind}-{version}.db"
    if template.exists():
        shutil.copy(template, database)
    else:
        database.unlink(missing_ok=True)
        _create(kind, folder)
        with contextlib.suppress(PermissionError):  # somebody else's environment
            copy = template.with_name(f"{template.name}.{os.getpid()}")
            shutil.copy(database, copy)
            copy.replace(template)
    if kind == "keystone":
        _bootstrap(folder)
    ready.touch()


def _create(kind: str, folder: pathlib.Path) -> None:
    if kind == "keystone":
        _manage(_keystone_manage, "--config-file", f"{folder}/keystone.conf", "db_sync")
    elif kind == "glance":
        _manage(_glance_manage, "--config-file", f"{folder}/glance-api.conf", "db_sync")
    else:
        commands = importlib.import_module("barbican.model.migration.commands")
        commands.upgrade(to_version="head", sql_url=f"sqlite:///{folder}/barbican.db")


def _bootstrap(folder: pathlib.Path) -> None:
    first = json.loads((folder / "bootstrap.json").read_text())
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    bootstrap = ["bootstrap", "--bootstrap-password", first["password"]]
    bootstrap += ["--bootstrap-region-id", first["region"], "--bootstrap-public-url", first["url"]]
    for command in (["fernet_setup", *owner], ["credential_setup", *owner], bootstrap):
        _manage(_keystone_manage, "--config-file", f"{folder}/keystone.conf", *command)


def _keystone_manage(argv: list[str]) -> object:
    return importlib.import_module("keystone.cmd.cli").main(argv=["keystone-manage", *argv])


def _glance_manage(argv: list[str]) -> object:
    sys.argv = ["glance-manage", *argv]
    return importlib.import_module("glance.cmd.manage").main()


def _manage(command: Manage, *argv: str) -> None:
    """Run a management command in a fork: each parses oslo.config's global anew."""
    pid = os.fork()
    if not pid:
        try:
            leave(int(bool(command(list(argv)))))
        except SystemExit as error:
            leave(int(bool(error.code)))
        except BaseException:
            traceback.print_exc()
            leave(1)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"{command.__name__} failed: {argv[2]}")


def serve(kind: str, folder: pathlib.Path, port: int) -> Never:
    """Be one instance, in a process group of its own."""
    os.setsid()
    os.chdir(folder)
    log = os.open(folder / "stdout.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        prepare(kind, folder)
        bear_load(kind, folder)
        Server(kind, folder, port).run()
    except Exception:
        traceback.print_exc()
    leave(1)


def main() -> None:
    """Import the service and fork its instances."""
    gc.disable()    # there is no garbage yet, and to look for it takes a fifth of the time
    warnings.filterwarnings("ignore")
    kind, *instances = sys.argv[1:]
    sys.argv = [kind]
    if kind == "barbican":  # parses $HOME/.barbican/barbican.conf while it is imported
        os.environ["HOME"] = instances[0].rpartition(":")[0]
    for module in (*PRELOAD[kind], "gunicorn.arbiter", "gunicorn.workers.gthread"):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    atexit.register(gc.freeze)
    for instance in instances:
        folder, _, port = instance.rpartition(":")
        pid = os.fork()
        if not pid:
            serve(kind, pathlib.Path(folder), int(port))
        processes.record(pathlib.Path(folder) / "pid", pid)


if __name__ == "__main__":
    main()
