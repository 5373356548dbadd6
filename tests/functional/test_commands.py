# SPDX-License-Identifier: Apache-2.0
"""The operator's commands, run as an operator runs them."""

import contextlib
import pathlib
import re
import socket
import sqlite3
import subprocess
import sys
from concurrent import futures

import pytest

from tests.sandbox import ciming, files, processes, servers
from tests.sandbox.distributed import UWSGI_INI

PROGRAMS = {
    "ciming-standalone": (),
    "ciming-engine": (),
    "ciming-manage": ("db", "sync"),
    "ciming-status": ("upgrade", "check"),
}
WSGI_SERVERS = {
    "gunicorn": ("--config", "python:ciming.cmd.gunicorn", "--bind", "127.0.0.1:0", "ciming.api.wsgi"),
    # Two processes that fail would interrupt each other.
    "uwsgi": ("--ini", str(UWSGI_INI), "--http", "127.0.0.1:0", "--processes", "1"),
}
LOGIN = {
    ("service_user", "auth_type"): "password",
    ("service_user", "auth_url"): "http://127.0.0.1:1",
    ("service_user", "username"): "ciming",
    ("service_user", "password"): "swordfish",
}


class Operator:
    """Has a configuration file and runs commands with it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.config = folder / "ciming.conf"
        self.database = folder / "state/ciming.sqlite"
        self.configure({})

    def configure(self, options: ciming.Options, login: ciming.Options = LOGIN) -> None:
        sections: dict[str, dict[str, object]] = {"DEFAULT": {"state_path": self.folder / "state"}}
        for (section, option), value in {**login, **options}.items():
            sections.setdefault(section, {})[option] = value
        files.write(self.config, files.ini(sections))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = ("--config-file", str(self.config))
        return self._run(program, *config, *(arguments or PROGRAMS[program]))

    def serve(self, server: str) -> subprocess.CompletedProcess[str]:
        """Start the API under a WSGI server, and wait until that has ended."""
        return self._run(server, *WSGI_SERVERS[server], OS_CIMING_CONFIG_FILES=str(self.config))

    def _run(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(pathlib.Path(sys.executable).parent / program), *arguments],
            env=processes.environment(**environment),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run_all(self) -> dict[str, subprocess.CompletedProcess[str]]:
        """Run every program, all at once."""
        with futures.ThreadPoolExecutor() as pool:
            return dict(zip(PROGRAMS, pool.map(self.run, PROGRAMS), strict=True))

    def tables(self) -> set[str]:
        with sqlite3.connect(self.database) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


@pytest.fixture
def operator(tmp_path: pathlib.Path) -> Operator:
    return Operator(tmp_path)


LOGGED = re.compile(r"\d{4}-\d\d-\d\d .* (WARNING|INFO) ")


def one_clear_line(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """Look at what a command said that could not do it; ciming-status has its table for that."""
    said = run.stdout + run.stderr
    assert run.returncode not in (0, None), run
    assert "Traceback" not in said, said.strip().splitlines()[-1]
    assert "swordfish" not in said
    lines = [line for line in said.splitlines() if not LOGGED.match(line) and line[0] != "+"]
    if lines[0].startswith("|"):
        assert "Result: Failure" in lines[2] and "Details: " in lines[3]
        lines = [" ".join(line.strip("| ") for line in lines)]
    [line] = lines
    for word in words:
        assert word in line


def test_db_sync(operator: Operator) -> None:
    for _ in range(2):
        run = operator.run("ciming-manage", "db", "sync")
        assert run.returncode == 0, run
        assert run.stdout == "The database schema is up to date.\n"
    assert {"images", "jobs", "targets", "links", "uploads", "logbooks"} <= operator.tables()


def test_db_sync_by_several_at_once(operator: Operator) -> None:
    with futures.ThreadPoolExecutor() as pool:
        runs = [pool.submit(operator.run, "ciming-manage", "db", "sync") for _ in range(3)]
    assert [run.result().returncode for run in runs] == [0, 0, 0], [run.result() for run in runs]


def test_db_purge(operator: Operator) -> None:
    operator.run("ciming-manage", "db", "sync")
    for _ in range(2):
        run = operator.run("ciming-manage", "db", "purge")
        assert (run.returncode, run.stdout) == (0, "Purged.\n"), run


def test_db_purge_of_old_rows(operator: Operator) -> None:
    operator.run("ciming-manage", "db", "sync")
    for arguments in (("--age-in-days", "0"), ("--age_in_days", "30", "--max_rows", "5")):
        run = operator.run("ciming-manage", "db", "purge", *arguments)
        assert run.stdout == "Purged: 0 jobs, 0 targets, 0 logbooks, 0 images.\n", run
        assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--age-in-days", "-1"), "argument --age-in-days"),
        (("--age-in-days", "many"), "many is not a whole number from 0 to"),
        (("--age-in-days", "1.5"), "1.5 is not a whole number"),
        (("--age-in-days", "99999"), "99999 is not a whole number from 0 to"),
        (("--age-in-days",), "expected one argument"),
        (("--age-in-days", "1", "--max-rows", "0"), "0 is not a whole number from 1 to"),
        (("--age-in-days", "9" * 5000), f" {'9' * 18} is not a whole number"),
        (("--age-in-days", "1", "--max-rows", "1e3"), "1e3 is not a whole number"),
        (("--max-rows", "5"), "--max-rows needs --age-in-days"),
        (("30",), "unrecognized arguments: 30"),
    ],
)
def test_db_purge_of_nonsense(operator: Operator, arguments: tuple[str, ...], words: str) -> None:
    """Nothing is even looked at: there is no schema here."""
    run = operator.run("ciming-manage", "db", "purge", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "usage: ciming-manage" in run.stderr and words in run.stderr


def test_db_purge_without_a_schema(operator: Operator) -> None:
    one_clear_line(operator.run("ciming-manage", "db", "purge"), "db sync")


@pytest.mark.parametrize("arguments", [("db", "purge"), ("staging", "list"), ("staging", "take-over", "x")])
def test_what_needs_a_database_makes_none(operator: Operator, arguments: tuple[str, ...]) -> None:
    run = operator.run("ciming-manage", *arguments)
    one_clear_line(run, f"There is no database {operator.database}. Run: ciming-manage db sync")
    assert run.returncode == 1 and list(operator.folder.iterdir()) == [operator.config]


def test_db_purge_with_a_schema_that_is_behind(operator: Operator) -> None:
    operator.run("ciming-manage", "db", "sync")
    with contextlib.closing(sqlite3.connect(operator.database)) as connection, connection:
        for table in ("zone_entries", "zone_locks"):
            connection.execute(f"DROP TABLE {table}")
        for column in ("report", "begun"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        connection.execute("ALTER TABLE uploads DROP COLUMN converted")
        connection.execute("DELETE FROM mutexes WHERE name = 'zones'")
        connection.execute("UPDATE ciming_alembic_version SET version_num = '0008'")
    one_clear_line(operator.run("ciming-manage", "db", "purge", "--age-in-days", "0"), "db sync")
    operator.run("ciming-manage", "db", "sync")
    assert operator.run("ciming-manage", "db", "purge", "--age-in-days", "0").returncode == 0


def test_upgrade_check(operator: Operator) -> None:
    run = operator.run("ciming-status")
    assert run.returncode == 2, run
    assert "There is no database" in re.sub(r"[\s|]+", " ", run.stdout)
    operator.run("ciming-manage", "db", "sync")
    run = operator.run("ciming-status")
    assert (run.returncode, "Success" in run.stdout) == (0, True), run
    assert not run.stderr


# What an operator got wrong


def test_no_such_config_file(operator: Operator) -> None:
    operator.config = operator.folder / "absent.conf"
    for run in operator.run_all().values():
        one_clear_line(run, "absent.conf")


def test_a_config_file_that_is_none(operator: Operator) -> None:
    operator.config.write_text("state_path: what\n[")
    for run in operator.run_all().values():
        one_clear_line(run, "ciming.conf")


def test_a_value_that_is_none(operator: Operator) -> None:
    operator.configure({("engine", "max_jobs"): "many"})
    one_clear_line(operator.run("ciming-standalone"), "max_jobs", "many")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite:////proc/nowhere/x.sqlite",
        "sqlite:////etc/hostname",
        "postgresql+nosuchdriver://ciming:swordfish@127.0.0.1:1/ciming",
    ],
)
def test_wrong_database_url(operator: Operator, program: str, url: str) -> None:
    operator.configure({("database", "connection"): url})
    one_clear_line(operator.run(program))


@pytest.mark.parametrize("program", PROGRAMS)
def test_state_path_that_can_not_be_used(operator: Operator, program: str) -> None:
    operator.configure({("DEFAULT", "state_path"): "/etc/hostname"})
    one_clear_line(operator.run(program), "/etc/hostname")


def test_standalone_without_a_service_user(operator: Operator) -> None:
    operator.configure({}, login={})
    one_clear_line(operator.run("ciming-standalone"), "auth_type")


# Separate processes


@pytest.mark.parametrize(
    ("program", "kind", "words"),
    [
        ("ciming-engine", "postgresql+psycopg2", "refused"),
        ("ciming-manage", "mysql+pymysql", "refused"),
        ("ciming-engine", "mariadb+pymysql", "mysql+pymysql:"),
    ],
)
def test_a_database_server_that_is_away(
    operator: Operator, program: str, kind: str, words: str
) -> None:
    """Said at once: to try again is for who started it."""
    url = f"{kind}://ciming:swordfish@127.0.0.1:1/ciming"
    operator.configure({("database", "connection"): url})
    one_clear_line(operator.run(program), words)


@pytest.mark.parametrize("program", ["ciming-standalone", "ciming-engine"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("moon://ciming:swordfish@127.0.0.1", "moon:"),
        ("redis://ciming:swordfish@127.0.0.1:1", "refused"),
        ("${database.connection}", "must begin with"),
    ],
)
def test_coordination_of_no_use(operator: Operator, program: str, url: str, words: str) -> None:
    operator.run("ciming-manage", "db", "sync")
    operator.configure({("engine", "coordination_url"): url})
    one_clear_line(operator.run(program), "coordination_url", words)


@pytest.mark.parametrize(
    "url", ["nonsense", "carrier-pigeon://ciming:swordfish@127.0.0.1/", "rabbit://ciming:swordfish@host:port/"]
)
def test_a_broker_of_no_kind(operator: Operator, url: str) -> None:
    operator.run("ciming-manage", "db", "sync")
    operator.configure({("DEFAULT", "transport_url"): url})
    one_clear_line(operator.run("ciming-engine"), "transport_url")


def test_an_engine_without_a_schema(operator: Operator) -> None:
    one_clear_line(operator.run("ciming-engine"), "ciming-manage db sync")


API_LOGIN = {
    **{("keystone_authtoken", option): value for (_, option), value in LOGIN.items()},
    ("trust", "trustee_user_id"): "somebody",
}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "ciming-manage db sync"),
        ({("database", "connection"): "nonsense"}, "[database] connection"),
        ({("trust", "trustee_user_id"): ""}, "trustee_user_id"),
        ({("keystone_authtoken", "auth_type"): ""}, "auth_type"),
        ({("DEFAULT", "transport_url"): "nonsense"}, "transport_url"),
        ({("api", "max_uploads"): "many"}, "max_uploads"),
    ],
)
@pytest.mark.parametrize("server", WSGI_SERVERS)
def test_an_api_that_can_not_start(
    operator: Operator, server: str, wrong: ciming.Options, words: str
) -> None:
    """The server says why and ends; it does not try again for ever."""
    operator.configure(wrong, login=API_LOGIN)
    run = operator.serve(server)
    assert run.returncode == {"gunicorn": 3, "uwsgi": 22}[server]
    said = {line for line in run.stderr.splitlines() if line.startswith("ciming-api: ")}
    assert len(said) == 1 and words in said.pop(), run.stderr       # by each worker
    assert "Traceback" not in run.stderr and "swordfish" not in run.stderr


def test_an_api_without_its_file(operator: Operator) -> None:
    operator.config = operator.folder / "absent.conf"
    assert "absent.conf" in operator.serve("gunicorn").stderr


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_db_sync_from_two_hosts_at_once(
    request: pytest.FixtureRequest, server: str, tmp_path: pathlib.Path
) -> None:
    """Nothing that they share but the database."""
    database: servers.Database = request.getfixturevalue(server)
    url = database.create("ciming_at_once")
    hosts = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        hosts.append(Operator(tmp_path / name))
        hosts[-1].configure({("database", "connection"): url})
    with futures.ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda host: host.run("ciming-manage", "db", "sync"), hosts))
    assert [run.returncode for run in runs] == [0, 0, 0], runs
    assert "Success" in hosts[0].run("ciming-status").stdout
    database.drop("ciming_at_once")


def test_unknown_words_are_explained(operator: Operator) -> None:
    for arguments in (("db",), ("db", "drop"), ("fly",)):
        run = operator.run("ciming-manage", *arguments)
        assert run.returncode == 2 and "usage: ciming-manage" in run.stderr, run


def test_a_taken_port(operator: Operator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        operator.configure(
            {("api", "bind_host"): "127.0.0.1", ("api", "bind_port"): str(port)}
        )
        run = operator.run("ciming-standalone")
    assert run.returncode != 0
    assert str(port) in run.stderr and "Traceback" not in run.stderr
    assert "swordfish" not in run.stderr


@pytest.mark.parametrize("program", ["ciming-standalone", "ciming-engine"])
def test_a_taken_port_of_metrics(operator: Operator, program: str) -> None:
    operator.run("ciming-manage", "db", "sync")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        operator.configure({("metrics", "bind_port"): port, ("api", "bind_host"): "127.0.0.1"})
        one_clear_line(operator.run(program), f"[metrics] 127.0.0.1 port {port}", "in use")


@pytest.mark.parametrize("program", ["ciming-standalone", "ciming-engine"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("driver", "carrier-pigeon"),
        ("transport_url", "carrier-pigeon://ciming:swordfish@127.0.0.1/"),
        ("transport_url", "nonsense"),
    ],
)
def test_notifications_of_no_kind(operator: Operator, program: str, option: str, value: str) -> None:
    operator.run("ciming-manage", "db", "sync")
    group = "oslo_messaging_notifications"
    operator.configure({(group, "driver"): "messagingv2", (group, option): value})
    one_clear_line(operator.run(program), f"[{group}] {option}")


@pytest.mark.parametrize("program", ["ciming-standalone", "ciming-engine", "ciming-manage"])
def test_version_and_help(operator: Operator, program: str) -> None:
    assert re.match(r"\d+\.\d+", operator.run(program, "--version").stdout)
    assert operator.run(program, "--help").stdout.startswith(f"usage: {program}")


def test_no_process_imports_eventlet() -> None:
    """Chosen by a library behind our back, it would turn threads into something else."""
    code = (
        "import sys, ciming.cmd.standalone, ciming.cmd.engine, ciming.api.app, ciming.engine.service;"
        "assert sys.modules['eventlet'] is None;"
        "assert not [name for name in sys.modules if name.startswith('eventlet.')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
