# SPDX-License-Identifier: Apache-2.0
"""Crash points: what outlives the process changes only between two, and outside of tests there are none."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import ciming
from ciming import points
from ciming.providers import base

ROOT = pathlib.Path(ciming.__file__).parent
PROVIDERS = list((ROOT / "providers").rglob("*.py"))
Calls = Callable[[str, list[str]], bool]
"""Is a call by this name and with these literals one that changes something?"""


def named(*names: str) -> Calls:
    return lambda name, _literals: name.rpartition(".")[2] in names


def asks_to_change(name: str, literals: list[str]) -> bool:
    verbs = {"POST", "PUT", "PATCH", "DELETE"}
    return name.rpartition(".")[2] in ("ask", "call") and bool(verbs.intersection(literals))


def calls_to_change(name: str, literals: list[str]) -> bool:
    """AWS's calls begin with a verb."""
    looks = ("Describe", "List", "Get", "Head", "Block")
    asked = name.rpartition(".")[2] in ("ask", "call")
    return asked and any(CALL.fullmatch(each) and not each.startswith(looks) for each in literals)


def asks_google(name: str, literals: list[str]) -> bool:
    """Google's calls have names: of a service, of a kind of thing, and of what is done."""
    looks = ("get", "list", "testIamPermissions", "getIamPolicy")
    found = [each.split(".") for each in literals if re.fullmatch(r"(storage|compute)\.\w+\.\w+", each)]
    return name.rpartition(".")[2] == "call" and any(each[-1] not in looks for each in found)


def changes_files(name: str, literals: list[str]) -> bool:
    """Methods, and functions of other modules: those of `staging` are marked."""
    writes = ("mkdir", "rename", "link", "unlink", "rmdir", "rmtree", "write", "write_text")
    of, _, last = name.rpartition(".")
    if of in ("", "staging"):
        return False
    opens = last == "open" and any(set(mode) & set("xwa") for mode in literals)
    return opens or last in (*writes, "copy_file_range")


CALL = re.compile("[A-Z][a-z]+([A-Z][a-z]+)+")
CHANGING: dict[str, Calls] = {
    **{f"providers/aws/{file.name}": calls_to_change for file in (ROOT / "providers/aws").glob("*.py")},
    **{f"providers/gcp/{file.name}": asks_google for file in (ROOT / "providers/gcp").glob("*.py")},
    **{
        f"providers/openstack/{file.name}": asks_to_change
        for file in (ROOT / "providers/openstack").glob("*.py")
    },
    "staging.py": changes_files,
    "trusts.py": named("post", "put", "patch", "delete"),
    "db/api.py": named("writer"),
    "db/images.py": named("writer"),
    "db/uploads.py": named("writer"),
    "db/jobs.py": named("writer"),
    "db/pending.py": named("writer"),
    "db/work.py": named("writer", "fenced"),
    "db/zone_syncs.py": named("writer"),
    "db/zone_work.py": named("writer", "fenced"),
    "engine/sources.py": changes_files,
    "engine/stage_tools.py": changes_files,
    "engine/target_tools.py": changes_files,
    "engine/tools.py": changes_files,
    "engine/persistence.py": named("destroy_logbook"),
}
UNMARKED = {
    ("providers/aws/snapshots.py", "try_out"): "no Job does it",
    ("db/work.py", "fenced"): "those who write with it are marked",
    ("db/work.py", "check"): "only the time changes",
    ("staging.py", "__init__"): "at a start, before any Job",
    ("staging.py", "marker_of"): "at a start, before any Job",
}


def unmarked(file: str, changes: Calls) -> Iterator[str]:
    """The functions that change something without being marked."""

    def walk(node: ast.AST, function: str, marked: bool) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                decorators = [ast.unparse(each) for each in child.decorator_list]
                yield from walk(child, child.name, marked or "points.mutation" in decorators)
                continue
            if isinstance(child, ast.Call) and not marked:
                name = ast.unparse(child.func)
                arguments = [*child.args, *(keyword.value for keyword in child.keywords)]
                literals = [str(each.value) for each in arguments if isinstance(each, ast.Constant)]
                if changes(name, literals):
                    yield function
            yield from walk(child, function, marked)

    yield from walk(ast.parse((ROOT / file).read_text()), "", False)


@pytest.mark.parametrize("file", CHANGING)
def test_what_changes_something_is_marked(file: str) -> None:
    exempt = {function for name, function in UNMARKED if name == file}
    assert set(unmarked(file, CHANGING[file])) == exempt


def test_every_module_of_rows_and_every_provider_is_looked_at() -> None:
    there = {f"{file.relative_to(ROOT)}" for file in PROVIDERS if file.stem != "__init__"}
    there |= {
        f"db/{file.name}"
        for file in (ROOT / "db").glob("*.py")
        if file.name != "session.py" and re.search(r"(writer|work\.fenced)\(", file.read_text())
    }
    there.discard("providers/pace.py")      # it makes no calls of its own
    there.discard(f"{base.__name__.removeprefix('ciming.').replace('.', '/')}.py")
    there.discard("db/purge.py")        # the operator's command, batch by batch, each one transaction
    there.discard("db/areas.py")        # likewise, in one transaction
    there.discard("db/clouds.py")       # one transaction each, and nothing beside it
    looked_at = {name for name in CHANGING if name.startswith(("db/", "providers/"))}
    assert there == {name for name in looked_at if not name.endswith("__init__.py")}


def test_a_flow_is_loaded_in_one_place() -> None:
    """There its atoms get their points."""
    loading = [file.name for file in ROOT.rglob("*.py") if "engines.load(" in file.read_text()]
    assert loading == ["runner.py"]


def test_outside_of_tests_there_are_none() -> None:
    assert points.FOLDER is None
    staging = importlib.import_module("ciming.staging")
    assert "staging.write_all" in points.MUTATIONS
    assert not hasattr(staging.write_all, "__wrapped__")
    points.reached("before anything")


PROGRAM = """
import os
from ciming import points

@points.mutation
def change():
    print("changed", flush=True)

for _ in range(3):
    change()
"""


def test_a_point_kills_once(tmp_path: pathlib.Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"CIMING_CRASH_POINTS": str(tmp_path)},
            cwd=ROOT.parent,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )

    (tmp_path / "kill").write_text("before __main__.change\t2")
    killed = run()
    assert (killed.returncode, killed.stdout) == (-9, "changed\n"), killed.stderr
    assert (tmp_path / "killed").exists() and not (tmp_path / "kill").exists()
    one = ["before __main__.change\t", "after __main__.change\t"]
    assert (tmp_path / "trace").read_text().splitlines() == [*one, one[0]]
    again = run()
    assert (again.returncode, again.stdout) == (0, "changed\n" * 3), again.stderr
