# SPDX-License-Identifier: Apache-2.0
"""What was listed is kept: for one user alone, and for lists without a request."""

import json
import os
import pathlib
import re
import stat
import time
from collections.abc import Callable
from typing import Any

import openstack
import pytest
from osc_lib import exceptions

from cimingclient import sdk
from cimingclient.osc import cloud, image, job
from cimingclient.sdk import _kept, _query, cache
from cimingclient.sdk import exceptions as sdk_exceptions
from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub

NAMES = ("-f", "value", "-c", "Name")


@pytest.fixture
def three(stub: _stub.Stub) -> list[_stub.Json]:
    stub.images = [
        _stub.image("one", size=1, created_at="2026-01-01T00:00:00Z"),
        _stub.image("two", size=None, status="error", links=[], created_at="2026-01-02T00:00:00Z"),
        _stub.image("three", size=3, created_at="2026-01-03T00:00:00Z"),
    ]
    return stub.images


def file_of(home: pathlib.Path, what: str = "images") -> pathlib.Path:
    [found] = home.glob(f"cimingclient/*/{what}.json")
    return found


def test_a_list_is_kept_and_answers_without_a_request(
    stub: _stub.Stub, run: conftest.Runner, three: object, cache_home: pathlib.Path
) -> None:
    with pytest.raises(exceptions.CommandError, match=r"images was kept yet\. To ask the service: --refresh"):
        run(image.ListImage, "--cached")
    run(image.ListImage)
    stub.images = []
    asked = len(stub.calls)
    listed = run(image.ListImage, "--cached", "--sort", "name", *NAMES)
    assert listed.stdout.split() == ["one", "three", "two"]
    assert re.search(r"This is of \d+ s ago: images", listed.stderr)
    for arguments, names in (
        (("--status", "error"), ["two"]),
        (("--status", "error", "--status", "active", "--cloud", "zone-a"), ["three", "one"]),
        (("--name", "three"), ["three"]),
        (("--limit", "1", "--marker", "three"), ["two"]),
        (("--sort", "size:desc", "--limit", "2"), ["two", "three"]),
    ):
        assert run(image.ListImage, "--cached", *arguments, *NAMES).stdout.split() == names
    first = run(image.ListImage, "--cached", "-f", "json", "--long").json[0]
    assert (first["Name"], first["Size"], first["Clouds"]) == ("three", 3, ["zone-a"])
    with pytest.raises(exceptions.CommandError, match="no filter or order by colour"):
        run(image.ListImage, "--cached", "--sort", "colour")
    assert len(stub.calls) == asked
    assert stat.S_IMODE(file_of(cache_home).stat().st_mode) == 0o600
    for folder in [*file_of(cache_home).parents][:3]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = file_of(cache_home).read_text()
    assert "secret" not in kept and "token-" not in kept


def test_what_is_a_part_is_not_kept(stub: _stub.Stub, run: conftest.Runner, three: object) -> None:
    for arguments in (("--name", "one"), ("--limit", "2"), ("--marker", "one")):
        run(image.ListImage, *arguments)
    run(image.ListImage, "--all-projects")
    with pytest.raises(exceptions.CommandError, match="Nothing of images was kept yet"):
        run(image.ListImage, "--cached")
    assert len(run(image.ListImage, "--cached", "--all-projects", *NAMES).stdout.split()) == 3


def test_refresh_and_max_age_ask_again(
    stub: _stub.Stub, run: conftest.Runner, three: list[_stub.Json], cache_home: pathlib.Path
) -> None:
    assert run(image.ListImage, "--refresh", "--name", "one", *NAMES).stdout == "one\n"
    three[0]["name"] = "renamed"
    assert run(image.ListImage, "--max-age", "60", "--name", "one", *NAMES).stdout == "one\n"
    said = json.loads(file_of(cache_home).read_text())
    file_of(cache_home).write_text(json.dumps(said | {"at": time.time() - 7200}))
    assert "This is of 2 h ago" in run(image.ListImage, "--max-age", "9999").stderr
    assert run(image.ListImage, "--max-age", "60", "--name", "renamed", *NAMES).stdout == "renamed\n"
    three[0]["name"] = "again"
    assert "again" in run(image.ListImage, "--refresh", *NAMES).stdout
    assert "again" in run(image.ListImage, "--cached", *NAMES).stdout
    for wrong in (("--max-age", "-1"), ("--max-age", "soon"), ("--cached", "--refresh")):
        with pytest.raises(SystemExit):
            run(image.ListImage, *wrong)


def test_clouds_and_jobs_are_kept_too(
    stub: _stub.Stub, run: conftest.Runner, three: list[_stub.Json]
) -> None:
    stub.jobs = {"a": [_stub.job("success", _stub.target("zone-a", "success"), identity="a")]}
    stub.jobs["a"][0]["image_id"] = three[0]["id"]
    for command in (cloud.ListCloud, job.ListJob, image.ListImage):
        run(command)
    asked = len(stub.calls)
    assert "zone-a" in run(cloud.ListCloud, "--cached").stdout
    listed = run(job.ListJob, "--cached", "-f", "json", "--image", "one", "--long").json
    assert [each["Targets"][0]["cloud"] for each in listed] == ["zone-a"]
    assert run(job.ListJob, "--cached", "-f", "json", "--image", "two").json == []
    assert len(stub.calls) == asked


# Files that are not to be trusted


def _foreign(file: pathlib.Path) -> None:
    os.chown(file, 12345, -1)


def _readable(file: pathlib.Path) -> None:
    file.chmod(0o644)


def _linked(file: pathlib.Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _open_folder(file: pathlib.Path) -> None:
    file.parent.chmod(0o777)


def _cut(file: pathlib.Path) -> None:
    file.write_text(file.read_text()[:-10])


def _text(text: str) -> Callable[[pathlib.Path], object]:
    return lambda file: file.write_text(text)


def _in_the_way(file: pathlib.Path) -> None:
    file.unlink()
    file.mkdir()


def _other(**changes: Any) -> Callable[[pathlib.Path], None]:
    def change(file: pathlib.Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


SPOILT: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    "foreign": (_foreign, "is not yours alone"),
    "readable": (_readable, "is not yours alone"),
    "link": (_linked, "cannot be read"),
    "folder": (_open_folder, "is not yours alone"),
    "cut": (_cut, "is broken"),
    "deep": (_text("[" * 100_000), "is broken"),
    "list": (_text("[]"), "is broken"),
    "format": (_other(format=2), "is broken"),
    "who": (_other(who={"username": "another"}), "written for somebody else"),
    "what": (_other(what="jobs"), "is broken"),
    "future": (_other(at=9e12), "is broken"),
    "items": (_other(items=["one"]), "is broken"),
    "folder for a file": (_in_the_way, "cannot be read"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_not_ours_or_broken_is_said_and_not_used(
    stub: _stub.Stub, run: conftest.Runner, three: object, cache_home: pathlib.Path, how: str
) -> None:
    if how == "foreign" and os.geteuid():
        pytest.skip("for root only")
    run(image.ListImage)
    spoil, why = SPOILT[how]
    spoil(file_of(cache_home))
    with pytest.raises(exceptions.CommandError, match=why):
        run(image.ListImage, "--cached")
    again = run(image.ListImage, "--max-age", "60", *NAMES)
    assert len(again.stdout.split()) == 3
    assert "What was kept of images is of no use: " in again.stderr and why in again.stderr
    if how not in ("folder", "folder for a file"):      # the others are replaced
        assert len(run(image.ListImage, "--cached", *NAMES).stdout.split()) == 3


def test_where_nothing_can_be_kept_lists_go_on(
    stub: _stub.Stub, run: conftest.Runner, three: object, cache_home: pathlib.Path
) -> None:
    cache_home.write_text("in the way")
    assert len(run(image.ListImage, *NAMES).stdout.split()) == 3
    refreshed = run(image.ListImage, "--refresh", *NAMES)
    assert len(refreshed.stdout.split()) == 3 and "What was listed of images is not kept" in refreshed.stderr


def test_where_nobody_has_a_home_lists_go_on(
    stub: _stub.Stub, run: conftest.Runner, three: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(_path: pathlib.Path) -> pathlib.Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "expanduser", homeless)
    assert len(run(image.ListImage, *NAMES).stdout.split()) == 3
    assert "Without a home" in run(image.ListImage, "--refresh").stderr
    with pytest.raises(exceptions.CommandError, match=r"nothing is kept\. To ask .*, leave --cached out"):
        run(image.ListImage, "--cached")


def test_with_a_token_lists_go_on_and_nothing_is_kept(
    stub: _stub.Stub, run: conftest.Runner, three: object, cache_home: pathlib.Path
) -> None:
    conn: Any = run.client._get_connection()
    conn.config.config["auth"]["token"] = "t"
    assert run(image.ListImage, *NAMES).stderr == ""
    for how in (("--refresh",), ("--max-age", "60")):
        listed = run(image.ListImage, *how, "--name", "one", *NAMES)
        assert listed.stdout == "one\n" and "names no user nothing is kept" in listed.stderr
    with pytest.raises(exceptions.CommandError, match=r"whose it is\. To ask .*, leave --cached out"):
        run(image.ListImage, "--cached")
    assert not cache_home.exists()


# Whose it is


def test_one_user_one_project_one_cloud(cache_home: pathlib.Path) -> None:
    login = {"auth_url": "http://k/v3", "username": "a", "password": "x", "project_name": "p"}
    mine = _kept.Store(_kept.identity({"auth": login, "region_name": "r"}))
    mine.write("images", [{"id": "1"}])
    same = {"auth": {**login, "password": "another", "auth_url": "http://k/v3/"}, "region_name": "r"}
    assert _kept.Store(_kept.identity(same)).read("images")
    for name in ("auth_url", "username", "project_name", "service_provider", "remote_project_id"):
        other = _kept.Store(_kept.identity({"auth": {**login, name: "other"}, "region_name": "r"}))
        assert other.read("images") is None
    assert _kept.Store(_kept.identity({"auth": login, "region_name": "s"})).read("images") is None
    beside = {"auth": login, "username": "b", "region_name": "r"}     # --os-username
    assert _kept.Store(_kept.identity(beside)).read("images") is None
    for unknown in ({"token": "t"}, {**login, "token": "t"}, {"auth_url": "x"}):
        with pytest.raises(sdk_exceptions.CacheError, match="names no user"):
            _kept.identity({"auth": unknown})
    assert "password" not in mine.path("images").read_text()


# From Python


def test_from_python(stub: _stub.Stub, three: object, cache_home: pathlib.Path) -> None:
    conn = openstack.connect(
        load_yaml_config=False, load_envvars=False, auth=conftest.credentials(stub), region_name="zone-a"
    )
    kept = cache.of(sdk.add_to(conn))
    with pytest.raises(sdk_exceptions.NothingKept):
        kept.images()
    assert (kept.age("images"), stub.calls) == (None, [])
    kept.refresh("images")
    asked = len(stub.calls)
    assert [each.name for each in kept.images(size="gte:1", sort="name:desc")] == ["three", "one"]
    found = kept.find_image("two")
    assert found is not None and found.links == []
    age = kept.age("images")
    assert age is not None and 0 <= age < 60
    assert len(list(cache.of(conn, max_age=60).images())) == 3
    assert len(stub.calls) == asked
    cache.of(conn, max_age=0).jobs()
    assert len(stub.calls) > asked


# Filters and orders; that they are the service's is seen where that is


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, "bac"),
        ({"name": "in:x,\"a,b\""}, "ab"),
        ({"name": 'in:"a,b","say \\"x\\""'}, "bc"),
        ({"name": "neq:x"}, "bc"),
        ({"name": "eq:in:x"}, ""),
        ({"size": ["gt:1", "lte:3"]}, "b"),
        ({"size": "neq:1"}, "bc"),
        ({"created_at": "lt:2026-01-03"}, "ac"),
        ({"cloud": "nin:z"}, "bc"),
        ({"sort": "size"}, "abc"),
        ({"sort": "size:desc,name"}, "cba"),
        ({"marker": "a"}, "c"),
    ],
    ids=str,
)
def test_queries(query: dict[str, Any], ids: str) -> None:
    items: list[dict[str, Any]] = [
        {"id": "a", "name": "x", "size": 1, "created_at": "2026-01-02T00:00:00Z", "links": [{"cloud": "z"}]},
        {"id": "b", "name": "a,b", "size": 3, "created_at": "2026-01-03T00:00:00.000Z", "links": []},
        {"id": "c", "name": 'say "x"', "size": None, "created_at": "2026-01-01T00:00:00Z", "links": []},
    ]
    found = _query.select(items, query, "" if "name" in query or "cloud" in query else "created_at:desc")
    order = sorted(ids) if "name" in query or "cloud" in query else list(ids)
    assert [each["id"] for each in found] == [*order] or not query


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"size": "x"}, "size: 'x' is not a number"),
        ({"created_at": "soon"}, "created_at: 'soon' is not a time"),
        ({"colour": "red"}, "no filter or order by colour"),
        ({"sort": "name:up"}, "'up' is neither asc nor desc"),
        ({"marker": "x"}, "marker x was not found"),
        ({"name": "gt:a"}, "name: gt: does not go with this. Operators: eq, neq, in, nin"),
        ({"id": "lte:a"}, "id: lte: does not go with this"),
        ({"tag": "lt:a"}, "tag: lt: does not go with this"),
        ({"cloud": "gte:a"}, "cloud: gte: does not go with this"),
        ({"digests": "x"}, "no filter or order by digests"),
        ({"sort": "digests"}, "no filter or order by digests"),
        ({"sort": "name,links:desc"}, "no filter or order by links"),
        ({"sort": "tags"}, "no filter or order by tags"),
        ({"sort": "tag"}, "no filter or order by tag"),
        ({"sort": "cloud"}, "no filter or order by cloud"),
    ],
    ids=str,
)
def test_queries_that_cannot_be_understood(query: dict[str, Any], told: str) -> None:
    item = {"id": "a", "name": "x", "size": 1, "created_at": "2026-01-02", "tags": ["t"]}
    items = [{**item, "id": key, "digests": {"sha256": key}, "links": [{"cloud": key}]} for key in "ab"]
    with pytest.raises(sdk_exceptions.QueryError, match=re.escape(told)):
        _query.select(items, query, "")
