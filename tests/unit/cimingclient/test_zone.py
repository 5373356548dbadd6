# SPDX-License-Identifier: Apache-2.0
"""`zone sync`: what its options say to the service, what is refused before it is asked, what is shown."""

import csv
import io
import json
import pathlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from osc_lib import exceptions

from cimingclient.osc import zone
from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub

FROM_TO = ("--from", "zone-a", "--to", "zone-b")
COUNTS = dict.fromkeys(
    ("created", "updated", "replaced", "pruned", "failed", "cannot", "cancelled", "same"), 0
)


def entry(symbol: str, **more: Any) -> dict[str, Any]:
    known = {"symbol": symbol, "name": "one", "size": 5 << 20, "zone": "zone-b", "image": "i", "there": None}
    return {**known, "owner": "p", "differs": [], "why": None, **more}


def plan(*entries: dict[str, Any]) -> dict[str, Any]:
    summary = {symbol: sum(each["symbol"] == symbol for each in entries) for symbol in "+=~*-!"}
    return {"request": {}, "entries": list(entries), "summary": summary, "digest": "d"}


def ended(status: str, **report: Any) -> dict[str, Any]:
    times = {"started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:02.5Z"}
    return _stub.job(status, **times, report={**COUNTS, "failures": [], **report})


def test_what_is_wanted(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.outcome = [ended("queued")]
    run(zone.SyncZone, *FROM_TO)
    least = {"from": "zone-a", "to": ["zone-b"], "filters": {}, "when_busy": "refuse"}
    assert stub.said == [least]
    run(
        zone.SyncZone,
        *(*FROM_TO, "--to", "zone-c", "--owner", "p", "--visibility", "public"),
        *("--name", "a*", "--name", "b", "--tag", "x", "--status", "active"),
        *("--property", "os=a=b", "--property", "hw="),
        *("--newer-than", "2026-03-01T12:00:00", "--size-below", "2G", "--replace", "--prune", "--members"),
        *("--max-delete", "0", "--map-project", "p=q", "--map-project", "r=s", "--when-busy", "wait"),
    )
    assert stub.said[1] == {
        "from": "zone-a", "to": ["zone-b", "zone-c"], "when_busy": "wait",
        "replace": True, "prune": True, "members": True, "max_delete": 0,
        "map_project": {"p": "q", "r": "s"},
        "filters": {
            "owner": ["p"], "visibility": ["public"], "name": ["a*", "b"], "tag": ["x"],
            "property": {"os": "a=b", "hw": ""}, "status": ["active"],
            "newer_than": "2026-03-01T12:00:00+00:00", "size_below": 2 << 30,
        },
    }


@pytest.mark.parametrize(
    ("age", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 7 * 86400), ("1w", 7 * 86400)]
)
def test_an_age_is_a_time(stub: _stub.Stub, run: conftest.Runner, age: str, seconds: int) -> None:
    stub.outcome = [ended("queued")]
    run(zone.SyncZone, *FROM_TO, "--newer-than", age)
    since = datetime.now(UTC) - datetime.fromisoformat(stub.said[0]["filters"]["newer_than"])
    assert abs(since - timedelta(seconds=seconds)) < timedelta(seconds=60)


@pytest.mark.parametrize(
    ("size", "count"), [("1048576", 1 << 20), ("1K", 1 << 10), ("3M", 3 << 20), ("1T", 1 << 40)]
)
def test_a_size_is_a_count_of_bytes(stub: _stub.Stub, run: conftest.Runner, size: str, count: int) -> None:
    stub.outcome = [ended("queued")]
    run(zone.SyncZone, *FROM_TO, "--size-below", size)
    assert stub.said[0]["filters"] == {"size_below": count}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--newer-than", "yesterday"), "neither a time nor an age"),
        (("--newer-than", f"{10**12}w"), "too long ago"),
        (("--size-below", "0"), "no size like"),
        (("--size-below", "1.5G"), "no size like"),
        (("--size-below", "G"), "no size like"),
        (("--max-delete", "-1"), "is negative"),
        (("--max-delete", "many"), "invalid"),
        (("--status", "gone"), "invalid choice"),
        (("--map-project", "p"), "Expected 'key=value'"),
    ],
)
def test_options_that_are_wrong(
    stub: _stub.Stub,
    run: conftest.Runner,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    why: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(zone.SyncZone, *FROM_TO, *options)
    assert caught.value.code == 2 and why in capsys.readouterr().err
    assert stub.said == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "Say --from and --to, or --plan"),
        (("--from", "zone-a"), "Say --from and --to, or --plan"),
        (("--to", "zone-b"), "Say --from and --to, or --plan"),
        ((*FROM_TO, "--save-plan", "x"), "--save-plan goes with --dry-run"),
        ((*FROM_TO, "--dry-run", "--wait"), "nothing to --wait for"),
        ((*FROM_TO, "--property", "os"), "KEY=VALUE"),
        ((*FROM_TO, "--property", "=x"), "KEY=VALUE"),
        ((*FROM_TO, "--property", "a=1", "--property", "a=2"), "two values at once"),
        (("--plan", "x", *FROM_TO, "--prune"), "leave --from, --to, --prune out"),
        (("--plan", "x", "--size-below", "1M"), "leave --size-below out"),
        (("--plan", "x", "--max-delete", "0"), "leave --max-delete out"),
    ],
)
def test_options_that_do_not_go_together(
    stub: _stub.Stub, run: conftest.Runner, options: tuple[str, ...], why: str
) -> None:
    with pytest.raises(exceptions.CommandError, match=why):
        run(zone.SyncZone, *options)
    assert stub.said == []


def test_a_plan_is_shown_kept_and_applied(
    stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path
) -> None:
    differs = entry("~", differs=["tags", "name"], there="t")
    stub.plan = plan(entry("+"), differs, entry("!", why="It is queued.", size=None))
    file = tmp_path / "plan.json"
    shown = run(zone.SyncZone, *FROM_TO, "--dry-run", "--save-plan", str(file), "-f", "json")
    assert [(each["Symbol"], each["Why"]) for each in shown.json] == [
        ("+", None),
        ("~", "tags, name"),
        ("!", "It is queued."),
    ]
    assert [each["Size"] for each in shown.json] == [5 << 20, 5 << 20, None]
    assert "In all: 1 +, 1 ~, 1 !" in shown.stderr and f"--plan {file}" in shown.stderr
    assert json.loads(file.read_text()) == stub.plan
    stub.outcome = [ended("queued")]
    run(zone.SyncZone, "--plan", str(file), "--when-busy", "wait")
    assert stub.said[-1] == {"plan": stub.plan, "when_busy": "wait"}


def test_words_of_others_move_no_cursor(stub: _stub.Stub, run: conftest.Runner) -> None:
    """Names are those of all projects; who parses them gets them as they are."""
    bad = "\x1b[2Jone\nand \x9bmore"
    stub.plan = plan(entry("+", name=bad, owner=bad), entry("~", differs=[bad]), entry("!", why=bad))
    shown = run(zone.SyncZone, *FROM_TO, "--dry-run").stdout
    assert shown.count("?[2Jone and ?more") == 4 and not {"\x1b", "\x9b"} & {*shown}
    listed = run(zone.SyncZone, *FROM_TO, "--dry-run", "-f", "json").json
    assert (listed[0]["Name"], listed[1]["Why"], listed[2]["Why"]) == (bad, bad, bad)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", "[" * 100_000, "\x00"])
def test_a_file_without_a_plan(
    stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path, text: str
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(exceptions.CommandError, match="There is no plan in"):
        run(zone.SyncZone, "--plan", str(file))
    assert stub.said == []


def test_files_that_can_not_be_used(stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    with pytest.raises(exceptions.CommandError, match=r"Cannot read .*: No such file"):
        run(zone.SyncZone, "--plan", str(tmp_path / "absent"))
    file = tmp_path / "plan.json"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(exceptions.CommandError, match="There is no plan in"):
        run(zone.SyncZone, "--plan", str(file))
    stub.plan = plan()
    with pytest.raises(exceptions.CommandError, match=r"Cannot write .*: Is a directory"):
        run(zone.SyncZone, *FROM_TO, "--dry-run", "--save-plan", str(tmp_path))


def test_nothing_matches(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.plan = plan()
    shown = run(zone.SyncZone, *FROM_TO, "--dry-run", "-f", "json")
    assert (shown.status, shown.json) == (0, []) and "No image matches." in shown.stderr
    stub.outcome = [ended("success")]
    done = run(zone.SyncZone, *FROM_TO, "--wait")
    assert done.status == 0 and "No image matches." in done.stderr


@pytest.mark.parametrize(
    ("status", "code"), [("success", 0), ("error", 1), ("partial", 3), ("cancelled", 4)]
)
def test_it_waits_and_its_status_tells_the_end(
    stub: _stub.Stub, run: conftest.Runner, status: str, code: int
) -> None:
    last = ended(status, created=7, failed=1)
    stub.outcome = [last | {"status": "queued"}, last | {"status": "running"}, last]
    done = run(zone.SyncZone, *FROM_TO, "--wait", "-f", "json")
    [row] = done.json
    assert done.status == code
    assert (row["Status"], row["Created"], row["Failed"], row["Seconds"]) == (status, 7, 1, 2.5)
    assert "No image matches." not in done.stderr


def test_its_report_for_other_programs(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.outcome = [ended("partial", created=7, failed=1)]
    told = run(zone.SyncZone, *FROM_TO, "--wait", "-f", "json").json
    [row] = csv.DictReader(io.StringIO(run(zone.SyncZone, *FROM_TO, "--wait", "-f", "csv").stdout))
    assert (row["Status"], row["Created"], row["Failed"], row["Seconds"]) == ("partial", "7", "1", "2.5")
    assert yaml.safe_load(run(zone.SyncZone, *FROM_TO, "--wait", "-f", "yaml").stdout) == told


def test_a_zone_that_can_not_be_read(stub: _stub.Stub, run: conftest.Runner) -> None:
    """It is of no image."""
    failure = {"zone": "zone-c", "image": None, "name": "", "job": None, "code": "zone_sync.cannot"}
    stub.outcome = [ended("partial", cannot=1, failures=[{**failure, "message": "zone-c can not be read."}])]
    shown = run(zone.SyncZone, *FROM_TO, "--wait")
    assert "zone-c failed: zone-c can not be read." in shown.stderr and "None" not in shown.stderr
