# SPDX-License-Identifier: Apache-2.0
"""Both distributions build from a shallow clone without tags, and from what that built."""

import configparser
import email
import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import pytest

from tests.sandbox import processes

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = {"ciming": ".", "python-cimingclient": "osc_plugin"}
SDIST = "import sys; from pbr import build; print(build.build_sdist(sys.argv[1]))"
CLIENT_NEEDS = {"pbr", "keystoneauth1", "openstacksdk", "osc-lib", "python-openstackclient", "pyyaml"}


class Built(NamedTuple):
    """One distribution: its wheel from the clone, its sdist, and the wheel from that."""

    wheel: pathlib.Path
    sdist: pathlib.Path
    second: pathlib.Path


def run(*command: object, cwd: pathlib.Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=processes.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An interpreter that has what pyproject.toml asks for, and nothing else: an isolated build, once."""
    folder = tmp_path_factory.mktemp("builder")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    made = folder / "bin/python"
    projects = [tomllib.loads((ROOT / path / "pyproject.toml").read_text()) for path in FOLDERS.values()]
    wanted = {need for project in projects for need in project["build-system"]["requires"]}
    run(made, "-m", "pip", "install", "--quiet", *wanted, cwd=folder)
    return made


def wheel(python: pathlib.Path, source: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", out)
    run(python, "-m", "pip", "wheel", *options, source, cwd=out)
    [made] = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def built(python: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    folder = tmp_path_factory.mktemp("packaging")

    def build(name: str) -> Built:
        clone, first, second = (folder / f"{name}-{part}" for part in ("clone", "first", "second"))
        run("git", "clone", "--quiet", "--depth", 1, f"file://{ROOT}", clone, cwd=folder)
        assert not run("git", "tag", cwd=clone)
        first.mkdir()
        second.mkdir()
        source = clone / FOLDERS[name]
        sdist = first / run(python, "-c", SDIST, first, cwd=source).split()[-1]
        return Built(wheel(python, source, first), sdist, wheel(python, sdist, second))

    with futures.ThreadPoolExecutor() as pool:
        return dict(zip(FOLDERS, pool.map(build, FOLDERS), strict=True))


def content(file: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata_of(file: pathlib.Path, name: str) -> str:
    [text] = [data for path, data in content(file).items() if path.endswith(f".dist-info/{name}")]
    return text.decode()


def wheels(built: dict[str, Built], name: str) -> Iterator[pathlib.Path]:
    yield built[name].wheel
    yield built[name].second


def tracked(folder: str) -> set[str]:
    """Files of a package that git knows."""
    return set(run("git", "ls-tree", "-r", "--name-only", "HEAD", folder, cwd=ROOT).split())


@pytest.mark.parametrize("name", FOLDERS)
def test_wheel_from_the_sdist_is_the_wheel_from_git(built: dict[str, Built], name: str) -> None:
    """But for pbr's note of the commit."""
    first, second = (set(content(file)) for file in wheels(built, name))
    assert first - second <= {each for each in first if each.endswith("/pbr.json")}
    assert second <= first
    assert built[name].wheel.name == built[name].second.name


@pytest.mark.parametrize("name", FOLDERS)
def test_metadata(built: dict[str, Built], name: str) -> None:
    for file in wheels(built, name):
        found = email.message_from_string(metadata_of(file, "METADATA"))
        assert found["Name"] == name
        assert re.match(r"\d+\.\d+\.\d+", found["Version"])
        assert found["Requires-Python"] == ">=3.11"
        assert "Apache-2.0" in (found["License-Expression"] or found["License"])
        assert found["Summary"] and found.get_payload()
        assert any(path.endswith("/LICENSE") for path in content(file))


def test_server_has_all_its_files_and_no_tests(built: dict[str, Built]) -> None:
    expected = tracked("ciming")
    assert "ciming/db/migrations/script.py.mako" in expected
    assert "ciming/db/migrations/versions/0001_initial.py" in expected
    for file in wheels(built, "ciming"):
        names = {name for name in content(file) if ".dist-info/" not in name and ".data/" not in name}
        assert names == expected


def test_client_has_all_its_files_and_nothing_of_the_server(built: dict[str, Built]) -> None:
    expected = {name.removeprefix("osc_plugin/") for name in tracked("osc_plugin/cimingclient")}
    for file in wheels(built, "python-cimingclient"):
        names = {name for name in content(file) if ".dist-info/" not in name}
        assert names == expected


@pytest.mark.parametrize("name", FOLDERS)
def test_entry_points(built: dict[str, Built], name: str) -> None:
    wanted = configparser.ConfigParser()
    wanted.read(ROOT / FOLDERS[name] / "setup.cfg")
    for file in wheels(built, name):
        found = configparser.ConfigParser(delimiters="=")
        found.optionxform = str  # type: ignore[assignment, method-assign]  # names as they are
        found.read_string(metadata_of(file, "entry_points.txt"))
        assert set(found.sections()) == set(wanted["entry_points"])
        for group, lines in wanted["entry_points"].items():
            pairs = (line.split("=") for line in lines.split("\n") if line)
            assert dict(found[group]) == {key.strip(): value.strip() for key, value in pairs}


def test_entry_points_name_what_is_there(built: dict[str, Built]) -> None:
    for name, package in (("ciming", "ciming/"), ("python-cimingclient", "cimingclient/")):
        names = content(built[name].wheel)
        for module in re.findall(r"= ([\w.]+)", metadata_of(built[name].wheel, "entry_points.txt")):
            path = module.replace(".", "/")
            assert path.startswith(package)
            assert f"{path}.py" in names or f"{path}/__init__.py" in names


def requirements(file: pathlib.Path) -> set[str]:
    found = email.message_from_string(metadata_of(file, "METADATA")).get_all("Requires-Dist") or []
    return {re.split(r"[^\w.-]", line)[0].lower() for line in found if "extra ==" not in line}


def test_the_client_pulls_nothing_of_the_server(built: dict[str, Built]) -> None:
    for file in wheels(built, "python-cimingclient"):
        assert requirements(file) == CLIENT_NEEDS


def test_the_server_names_all_that_it_imports(built: dict[str, Built]) -> None:
    wanted = {
        re.split(r"[^\w.-]", line)[0].lower()
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    for file in wheels(built, "ciming"):
        assert requirements(file) == wanted
    assert not any("cimingclient" in name for name in wanted)


@pytest.mark.parametrize("name", FOLDERS)
def test_sdist_has_the_source_and_no_secret_of_the_workplace(
    built: dict[str, Built], name: str
) -> None:
    with tarfile.open(built[name].sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {"setup.py", "setup.cfg", "pyproject.toml", "requirements.txt", "PKG-INFO"} <= names
    assert not [each for each in names if each.startswith((".git/", ".cache", ".venv", ".demo"))]
    if name == "ciming":
        assert tracked("ciming") | tracked("tests") <= names
