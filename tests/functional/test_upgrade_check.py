# SPDX-License-Identifier: Apache-2.0
"""ciming-status upgrade check: what it finds, and what it says of it."""

import contextlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
import yaml

from tests.functional.test_commands import Operator, one_clear_line
from tests.sandbox import processes, servers

SUCCESS, WARNING, FAILURE = 0, 1, 2
CHECKS = [
    "Database schema",
    "TaskFlow's schema",
    "Coordination URL",
    "Configuration",
    "Staging folder",
    "Policy file",
    "Policy file is YAML",
]


@pytest.fixture
def operator(tmp_path: pathlib.Path) -> Operator:
    """One whose schema is up to date."""
    made = Operator(tmp_path)
    assert made.run("ciming-manage", "db", "sync").returncode == 0
    return made


def check(operator: Operator) -> tuple[int, dict[str, tuple[int, str]]]:
    """Exit status; result and details of each check."""
    run = operator.run("ciming-status", "upgrade", "check", "--json")
    assert "swordfish" not in run.stdout + run.stderr
    assert not run.stderr, run.stderr
    found = {each["check"]: (each["result"], each["details"]) for each in json.loads(run.stdout)["checks"]}
    assert list(found) == CHECKS
    return run.returncode, found


def finds(operator: Operator, name: str, code: int, *words: str) -> None:
    """This check alone has something to say."""
    status, found = check(operator)
    result, details = found.pop(name)
    assert (status, result) == (code, code), found
    for word in words:
        assert word in details
    assert {each for each, _ in found.values()} <= {SUCCESS}, found


def test_all_is_well(operator: Operator) -> None:
    status, found = check(operator)
    assert status == SUCCESS and {result for result, _ in found.values()} == {SUCCESS}
    assert "this host only" in found["Coordination URL"][1]
    assert "not there yet" in found["Staging folder"][1]
    assert all(details for name, (_, details) in found.items() if name != "Policy file is YAML")


def test_without_a_database_none_is_made(tmp_path: pathlib.Path) -> None:
    operator = Operator(tmp_path)
    status, found = check(operator)
    absent = f"There is no database {operator.database}. Run: ciming-manage db sync"
    assert status == FAILURE
    assert found["Database schema"] == found["TaskFlow's schema"] == (FAILURE, absent)
    assert list(tmp_path.iterdir()) == [operator.config]


def test_a_database_of_a_newer_release(operator: Operator) -> None:
    """No command that this release has makes it good."""
    with contextlib.closing(sqlite3.connect(operator.database)) as connection, connection:
        connection.execute("UPDATE ciming_alembic_version SET version_num = '9999'")
    words = "The database is of a newer release: install that, or restore the backup."
    finds(operator, "Database schema", FAILURE, words)
    for program in ("ciming-manage", "ciming-engine", "ciming-standalone"):
        run = operator.run(program)
        one_clear_line(run, words)
        assert run.returncode == 1


def test_tables_of_taskflow(operator: Operator) -> None:
    with sqlite3.connect(operator.database) as connection:
        connection.execute("ALTER TABLE atomdetails DROP COLUMN revert_results")
    finds(operator, "TaskFlow's schema", FAILURE, "ciming-manage db sync")
    for command in (("ciming-manage", "db", "purge"), ("ciming-engine",)):
        run = operator.run(*command)
        assert run.returncode != 0 and "ciming-manage db sync" in run.stdout + run.stderr, run


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_on_a_server(operator: Operator, request: pytest.FixtureRequest, server: str) -> None:
    """And TaskFlow's version is looked at apart from ours."""
    database: servers.Database = request.getfixturevalue(server)
    operator.configure({("database", "connection"): database.create("ciming_check")})
    try:
        status, found = check(operator)
        assert status == FAILURE
        for name in ("Database schema", "TaskFlow's schema"):
            assert found[name][0] == FAILURE and "db sync" in found[name][1]
        operator.run("ciming-manage", "db", "sync")
        assert check(operator)[0] == SUCCESS
        engine = sa.create_engine(database.url("ciming_check"), poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '40fc8c914bd2'"))
        finds(operator, "TaskFlow's schema", FAILURE)
    finally:
        database.drop("ciming_check")


@pytest.mark.parametrize("url", ["moon://127.0.0.1", "nonsense", "redis://:swordfish/x@127.0.0.1:6379"])
def test_coordination(operator: Operator, url: str) -> None:
    operator.configure({("engine", "coordination_url"): url})
    finds(operator, "Coordination URL", FAILURE, "coordination_url")


def test_coordination_on_other_hosts(operator: Operator) -> None:
    """No service is asked."""
    operator.configure({("engine", "coordination_url"): "etcd3+http://:swordfish@192.0.2.1:2379"})
    finds(operator, "Coordination URL", SUCCESS, "etcd3+http", "all hosts")


def test_options_of_another_release(operator: Operator) -> None:
    operator.configure(
        {
            ("engine", "publish_threads"): "8",
            ("keystone_authtoken", "memcache_servers"): "127.0.0.1:11211",
            ("oslo_messaging_rabbit", "direct_mandatory_flag"): "true",
            ("stagng", "quota"): "1",
            ("DEFAULT", "use_keystone_limit"): "true",
            ("service_user", "auth_section"): "trustee",
            ("trustee", "username"): "ciming",
        }
    )
    _, found = check(operator)
    assert "[trustee]" not in found["Configuration"][1]     # other options are in it
    finds(
        operator,
        "Configuration",
        WARNING,
        "[engine] publish_threads is no option of this release",
        "[stagng] quota does nothing: no section of this release is called so",
        "[DEFAULT] use_keystone_limit is no option of this release",
        "[keystone_authtoken] memcache_servers is called [keystone_authtoken] memcached_servers now",
        "[oslo_messaging_rabbit] direct_mandatory_flag will go",
    )


def test_options_in_a_folder_of_files(operator: Operator) -> None:
    folder = operator.folder / "conf.d"
    folder.mkdir()
    (folder / "one.conf").write_text("[staging]\nquotta = 7\n")
    run = operator.run("ciming-status", "--config-dir", str(folder), "upgrade", "check")
    assert (run.returncode, "[staging] quotta" in run.stdout) == (WARNING, True)


def test_values_that_are_none(operator: Operator) -> None:
    operator.configure({("engine", "max_jobs"): "many", ("staging", "quota"): "-1"})
    finds(operator, "Configuration", FAILURE, "[engine] max_jobs", "'many'", "[staging] quota", "equal to 0")


def test_staging_folder(operator: Operator) -> None:
    folder = operator.folder / "staging"
    operator.configure({("staging", "path"): str(folder)})
    folder.write_text("a file")
    finds(operator, "Staging folder", FAILURE, str(folder), "not writable")
    folder.unlink()
    folder.mkdir()
    finds(operator, "Staging folder", SUCCESS, str(folder), "is writable")
    assert not list(folder.iterdir())
    operator.configure({("staging", "path"): "/proc/nowhere/staging"})
    assert check(operator)[1]["Staging folder"][0] == FAILURE


def test_staging_folder_that_one_may_not_write(operator: Operator) -> None:
    folder = operator.folder / "staging"
    folder.mkdir(0o500)
    operator.configure({("staging", "path"): str(folder)})
    program = pathlib.Path(sys.executable).parent / "ciming-status"
    nobody = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    run = subprocess.run(
        [*nobody, str(program), "--config-file", str(operator.config), "upgrade", "check", "--json"],
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = {each["check"]: each for each in json.loads(run.stdout)["checks"]}
    assert found["Staging folder"]["result"] == FAILURE, run
    assert "Permission denied" in found["Staging folder"]["details"]


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [
        ({"ciming:job:list": "role:auditor", "auditor": "role:auditor"}, SUCCESS, "2 rules"),
        ({"ciming:job:list": "!"}, SUCCESS, "1 rules"),
        ({"ciming:job:liszt": "role:auditor"}, WARNING, "ciming:job:liszt"),
        ({"ciming:job:list": "rule:nobody_wrote_it"}, FAILURE, "ciming:job:list"),
        ({"ciming:job:list": "rule:a", "a": "rule:b", "b": "rule:a"}, FAILURE, "a"),
        ({"ciming:job:list": "role:auditor and"}, FAILURE, "not understood"),
    ],
)
def test_policy(operator: Operator, rules: dict[str, str], code: int, words: str) -> None:
    file = operator.folder / "policy.yaml"
    operator.configure({("oslo_policy", "policy_file"): str(file)})
    finds(operator, "Policy file", WARNING, str(file), "not found")
    file.write_text(yaml.safe_dump(rules))
    finds(operator, "Policy file", code, str(file), words)


@pytest.mark.parametrize("text", ["a: b: c", "- 1", "just text"])
def test_a_policy_file_that_is_none(operator: Operator, text: str) -> None:
    file = operator.folder / "policy.yaml"
    file.write_text(text)
    operator.configure({("oslo_policy", "policy_file"): str(file)})
    finds(operator, "Policy file", FAILURE, str(file))


def test_a_policy_file_of_old(operator: Operator) -> None:
    file = operator.folder / "policy.json"
    file.write_text('{"ciming:job:list": "role:auditor"}')
    operator.configure({("oslo_policy", "policy_file"): str(file)})
    finds(operator, "Policy file is YAML", FAILURE, "oslopolicy-convert-json-to-yaml")
