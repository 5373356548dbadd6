# SPDX-License-Identifier: Apache-2.0
"""`image create` and `job wait`: the bytes, the lines meanwhile, the exit status."""

import hashlib
import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from osc_lib import exceptions

from cimingclient.osc import image, job, lifecycle, upload
from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub

DATA = os.urandom(3 << 20)
FORBIDDEN = {
    "code": "cloud.forbidden",
    "message": "Policy says \x1b[31mno",
    "cloud_request_id": "req-9",
}


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(DATA)
    return str(path)


def test_create_prints_the_image_and_its_job(stub: _stub.Stub, run: conftest.Runner, disk: str) -> None:
    shown = run(image.CreateImage, "demo", "--file", disk, "--cloud", "zone-a", "-f", "json")
    assert shown.status == 0 and shown.stderr == ""
    assert shown.json["id"] == stub.images[0]["id"]
    assert [shown.json["job_id"]] == list(stub.jobs)
    assert stub.received[0].sha256 == hashlib.sha256(DATA).hexdigest()
    assert stub.created == [{"name": "demo", "clouds": ["zone-a"], "size": len(DATA)}]


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_nothing_stands_between_create_and_the_bytes(
    stub: _stub.Stub, run: conftest.Runner, disk: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with subprocess.Popen(["cat", disk], stdout=subprocess.PIPE, text=True) as pipe:
        monkeypatch.setattr("sys.stdin", pipe.stdout)
        run(image.CreateImage, "demo", "--file", disk if kind == "file" else "-", "--all-clouds")
    image_id = stub.images[0]["id"]
    verb = "PATCH" if kind == "file" else "PUT"
    assert stub.calls == [
        "GET /",
        "POST /v1/images",
        f"{verb} /v1/images/{image_id}/file",
        f"GET /v1/images/{image_id}",
    ]
    assert [got.size for got in stub.received] == [len(DATA)]


def test_create_says_all_that_was_said_to_it(stub: _stub.Stub, run: conftest.Runner, disk: str) -> None:
    told = "--all-clouds --disk-format raw --container-format bare --checksum sha256:00"
    told += " --property a=b --property c=d=e --min-disk 1 --min-ram 0 --shared --tag x --tag y"
    run(image.CreateImage, "demo", "--file", disk, *told.split())
    assert stub.created == [
        {
            "name": "demo",
            "clouds": "all",
            "disk_format": "raw",
            "container_format": "bare",
            "checksum": "sha256:00",
            "properties": {"a": "b", "c": "d=e"},
            "min_disk": 1,
            "min_ram": 0,
            "visibility": "shared",
            "tags": ["x", "y"],
            "size": len(DATA),
        }
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [("success", 0), ("error", 1), ("partial", 3), ("cancelled", 4), ("waiting-credentials", 5)],
)
def test_the_exit_status_tells_how_the_job_ended(
    stub: _stub.Stub, run: conftest.Runner, disk: str, status: str, expected: int
) -> None:
    stub.outcome = [_stub.job(state, identity="j") for state in ("running", status)]
    argv = ("demo", "--file", disk, "--all-clouds", "--wait", "-f", "value", "-c", "job_id")
    created = run(image.CreateImage, *argv)
    assert (created.status, created.stdout) == (expected, "j\n")
    waited = run(job.WaitJob, "j", "-f", "value", "-c", "status")
    assert (waited.status, waited.stdout) == (expected, f"{status}\n")


@pytest.mark.parametrize("refusal", [_stub.Refusal(503, "Back in a moment"), _stub.HANG_UP])
@pytest.mark.parametrize(("wait", "expected"), [((), 0), (("--wait",), 3)], ids=["not", "wait"])
def test_what_was_done_is_shown_though_the_last_look_fails(
    stub: _stub.Stub,
    run: conftest.Runner,
    disk: str,
    refusal: _stub.Refusal,
    wait: tuple[str, ...],
    expected: int,
) -> None:
    """Who saw neither the image nor its Job would make another one."""
    stub.outcome = [_stub.job("partial", identity="j")]
    stub.refuse_images.append(refusal)
    argv = ("demo", "--file", disk, "--all-clouds", *wait, "-f", "json")
    created = run(image.CreateImage, *argv)
    image_id = stub.images[0]["id"]
    assert (created.status, created.json["id"], created.json["job_id"]) == (expected, image_id, "j")
    assert f"Image {image_id} is shown as it was before: " in created.stderr


def test_a_change_is_shown_though_the_last_look_fails(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images.append(_stub.image("demo"))
    stub.outcome = [_stub.job("success", identity="j")]
    stub.refuse_images.append(_stub.Refusal(503, "Back in a moment"))
    changed = run(lifecycle.SetImage, "demo", "--name", "renamed", "-f", "json")
    assert (changed.status, changed.json["name"], changed.json["job_id"]) == (0, "renamed", "j")
    assert "is shown as it was before: Back in a moment (HTTP 503)" in changed.stderr


def test_every_failed_target_is_told(stub: _stub.Stub, run: conftest.Runner, disk: str) -> None:
    stub.outcome = [
        _stub.job(
            "partial",
            _stub.target("zone-a", "success", done=100),
            _stub.target("zone-b", "error", error=FORBIDDEN),
            identity="j",
        )
    ]
    shown = run(image.CreateImage, "demo", "--file", disk, "--all-clouds", "--wait", "-f", "json")
    told = "zone-b failed: Policy says ?[31mno [cloud.forbidden] (cloud request id: req-9)"
    assert shown.stderr.splitlines()[-1] == told
    assert shown.json["name"] == "demo"


def test_an_error_that_all_targets_share_is_told_once(stub: _stub.Stub, run: conftest.Runner) -> None:
    error = {"code": "image.rejected", "message": "It has a backing file"}
    targets = [_stub.target(zone, "error", error=error) for zone in ("zone-a", "zone-b")]
    stub.jobs["j"] = [_stub.job("error", *targets, identity="j", error=error)]
    told = run(job.WaitJob, "j").stderr.splitlines()[2:]
    assert told == ["zone-a, zone-b failed: It has a backing file [image.rejected]"]


def test_a_failed_job_is_told(stub: _stub.Stub, run: conftest.Runner) -> None:
    error = {"code": "image.rejected", "message": "It has a backing file"}
    stub.jobs["j"] = [_stub.job("error", identity="j", error=error)]
    waited = run(job.WaitJob, "j")
    assert waited.status == 1
    assert "Job j failed: It has a backing file [image.rejected]" in waited.stderr


def test_lines_come_when_something_changes(stub: _stub.Stub, run: conftest.Runner) -> None:
    busy = {"code": "cloud.unavailable", "message": "503"}
    steps = [
        ("queued", _stub.target("zone-a", "waiting", "receive")),
        ("running", _stub.target("zone-a", "waiting", "inspect")),
        ("running", _stub.target("zone-a", "running", done=1)),
        ("running", _stub.target("zone-a", "running", done=9)),
        ("running", _stub.target("zone-a", "running", done=10)),
        ("running", _stub.target("zone-a", "retrying", done=10, attempts=2, error=busy)),
        ("running", _stub.target("zone-a", "running", "verify", done=100, attempts=2)),
        ("success", _stub.target("zone-a", "success", "link", done=100, attempts=2)),
    ]
    stub.jobs["j"] = [_stub.job(steps[0][0], steps[0][1], identity="j")]  # for the first look
    stub.jobs["j"] += [_stub.job(status, target, identity="j") for status, target in steps]
    waited = run(job.WaitJob, "j")
    assert [" ".join(line.split()) for line in waited.stderr.splitlines()] == [
        "zone-a waiting receive 0 % 0 B of 100 B waits for an engine",
        "zone-a waiting inspect 0 % 0 B of 100 B",
        "zone-a running upload 1 % 1 B of 100 B",
        "zone-a running upload 10 % 10 B of 100 B",
        "zone-a retrying upload 10 % 10 B of 100 B attempt 2: 503",
        "zone-a running verify 100 % 100 B of 100 B attempt 2",
        "zone-a success 100 % 100 B of 100 B attempt 2",
    ]


@pytest.mark.parametrize(("more", "told"), [((), True), (("--wait",), False)], ids=["not", "wait"])
def test_where_nothing_is_uploaded_progress_tells_how_to_watch(
    stub: _stub.Stub, run: conftest.Runner, more: tuple[str, ...], told: bool
) -> None:
    stub.outcome = [_stub.job("success", identity="j")]
    shown = run(image.CreateImage, "demo", "--from", "zone-a:x", "--all-clouds", "--progress", *more)
    assert ("To watch Job j: openstack multicloud job wait j" in shown.stderr) is told


def test_sync_has_no_upload_to_show(run: conftest.Runner) -> None:
    with pytest.raises(SystemExit):
        run(image.SyncImage, "demo", "--all-clouds", "--progress")


def test_progress_follows_the_upload(stub: _stub.Stub, run: conftest.Runner, disk: str) -> None:
    shown = run(image.CreateImage, "demo", "--file", disk, "--all-clouds", "--progress")
    last = " ".join(shown.stderr.splitlines()[-1].split())
    assert last == "upload sent 100 % 3.0 MiB of 3.0 MiB"


def test_standard_input_may_be_a_file_or_a_pipe(
    stub: _stub.Stub, run: conftest.Runner, disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        stream.write(b"from a pipe")
    with pathlib.Path(disk).open() as file, os.fdopen(reading) as pipe:
        for opened in (file, pipe):
            monkeypatch.setattr("sys.stdin", opened)
            run(image.CreateImage, "demo", "--file", "-", "--all-clouds")
    assert [got.size for got in stub.received] == [len(DATA), len("from a pipe")]
    assert [attributes.get("size") for attributes in stub.created] == [len(DATA), None]


def test_a_pipe_that_does_not_wait_is_read_to_its_end(
    stub: _stub.Stub, run: conftest.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as stream:
            for part in (b"late ", b"and ", b"slow"):
                time.sleep(0.2)
                stream.write(part)

    with os.fdopen(reading) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        feeding = threading.Thread(target=feed)
        feeding.start()
        run(image.CreateImage, "demo", "--file", "-", "--all-clouds")
        feeding.join()
    assert [got.sha256 for got in stub.received] == [hashlib.sha256(b"late and slow").hexdigest()]


def test_a_file_that_cannot_be_sent_is_told_before_any_call(
    stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    with pathlib.Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        _refused(stub, run, tmp_path)


def _refused(stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path) -> None:
    for name, told in {
        str(tmp_path / "absent"): "No such file or directory",
        str(tmp_path): "Is a directory",
        str(tmp_path / "empty"): "is empty",
        "-": "Standard input is empty",
    }.items():
        with pytest.raises(exceptions.CommandError, match=told):
            run(image.CreateImage, "demo", "--file", name, "--all-clouds")
    assert stub.calls == ["GET /"]  # the discovery


@pytest.mark.parametrize("read", [True, False], ids=["after the body", "at once"])
def test_a_refused_upload_tells_what_there_is(
    stub: _stub.Stub, run: conftest.Runner, tmp_path: pathlib.Path, read: bool
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    stub.outcome = [_stub.job("uploading", identity="j")]
    full = _stub.Refusal(507, "No room in the staging area", "staging.full", read=read)
    stub.refuse_files.append(full)
    with pytest.raises(exceptions.CommandError) as caught:
        run(image.CreateImage, "demo", "--file", str(path), "--all-clouds", "--wait")
    image_id = stub.images[0]["id"]
    made = f"Image {image_id} (Job j) is there, but did not get all its bytes"
    told = "No room in the staging area (HTTP 507) (Request-ID: req-stub)"
    go_on = f"To go on: openstack multicloud image upload {image_id} --file {path}"
    assert str(caught.value) == f"{made}: {told}\n{go_on}"


def test_where_the_upload_has_ended_the_job_tells_why(
    stub: _stub.Stub, run: conftest.Runner, disk: str
) -> None:
    error = {"code": "staging.full", "message": "No room in the staging area"}
    stub.outcome = [_stub.job("error", identity="j", error=error)]
    stub.refuse_files.append(_stub.Refusal(410, "It has ended", read=False))
    with pytest.raises(exceptions.CommandError, match=r"No room .* \[staging.full\]"):
        run(image.CreateImage, "demo", "--file", disk, "--all-clouds")


UNSAFE = {"code": "image.unsafe", "message": "It has a backing file."}
HAS_ENDED = _stub.Refusal(409, "Job j has ended: It has a backing file.", "image.has_data", read=False)


@pytest.mark.parametrize("broken", [False, True], ids=["told", "line broke"])
def test_an_image_that_is_refused_while_it_comes_is_told_and_no_way_on(
    stub: _stub.Stub, run: conftest.Runner, disk: str, broken: bool
) -> None:
    stub.outcome = [_stub.job("error", identity="j", error=UNSAFE)]
    stub.refuse_files.append(_stub.HANG_UP if broken else HAS_ENDED)
    stub.refuse_heads += [HAS_ENDED] if broken else []
    with pytest.raises(exceptions.CommandError) as caught:
        run(image.CreateImage, "demo", "--file", disk, "--all-clouds")
    made = f"Image {stub.images[0]['id']} (Job j) is there, but did not get all its bytes"
    assert str(caught.value) == f"{made}: It has a backing file. [image.unsafe]"


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [("error", UNSAFE, "It has a backing file"), ("cancelled", None, "its Job has ended: cancelled")],
)
def test_who_sends_to_an_image_whose_job_has_ended_is_told_how(
    stub: _stub.Stub,
    run: conftest.Runner,
    disk: str,
    status: str,
    error: dict[str, str] | None,
    told: str,
) -> None:
    """The answer to HEAD has no body that would say so."""
    stub.images.append(_stub.image("demo", size=None))
    stub.jobs["j"] = [_stub.job(status, identity="j", image_id=stub.images[0]["id"], error=error)]
    stub.refuse_heads.append(HAS_ENDED)
    with pytest.raises(exceptions.CommandError, match=told) as caught:
        run(image.UploadImage, "demo", "--file", disk)
    assert "To go on" not in str(caught.value)


@pytest.mark.parametrize("status", [409, 410])
def test_a_refusal_is_no_lost_answer(
    stub: _stub.Stub, run: conftest.Runner, disk: str, status: int
) -> None:
    """Whatever the Job does: of one that is being cancelled an engine cleans up first."""
    stub.outcome = [_stub.job("queued", identity="j", wanted="cancel")]
    stub.refuse_files.append(_stub.Refusal(status, "Not any more", "image.has_data"))
    with pytest.raises(exceptions.CommandError, match="Not any more"):
        run(image.CreateImage, "demo", "--file", disk, "--all-clouds")


def test_where_only_the_answer_is_lost_the_work_goes_on(
    stub: _stub.Stub, run: conftest.Runner, disk: str
) -> None:
    stub.outcome = [_stub.job(status, identity="j") for status in ("queued", "running", "success")]
    stub.refuse_files.append(_stub.LOSE_ANSWER)
    assert run(image.CreateImage, "demo", "--file", disk, "--all-clouds", "--wait").status == 0
    assert [got.size for got in stub.received] == [len(DATA)]


def test_what_was_never_to_be_uploaded_takes_no_upload(
    stub: _stub.Stub, run: conftest.Runner, disk: str
) -> None:
    """It was adopted, say, or its Job was purged, or an engine brings it from a Cloud."""
    stub.images.append(_stub.image("adopted"))
    with pytest.raises(exceptions.CommandError, match="takes no data"):
        run(image.UploadImage, "adopted", "--file", disk)
    stub.images.append(_stub.image("coming", size=None))
    stub.jobs["j"] = [_stub.job("running", identity="j", image_id=stub.images[-1]["id"])]
    with pytest.raises(exceptions.CommandError, match="takes no data: it has its data already"):
        run(image.UploadImage, "coming", "--file", disk)
    assert not stub.received


def test_only_the_own_project_sends_data(stub: _stub.Stub, run: conftest.Runner, disk: str) -> None:
    stub.images.append(_stub.image("theirs", status="uploading", project_id="q"))
    with pytest.raises(exceptions.CommandError, match="is of project q: only a login there"):
        run(image.UploadImage, "theirs", "--file", disk)


def test_an_upload_goes_on(stub: _stub.Stub, run: conftest.Runner, disk: str) -> None:
    stub.outcome = [_stub.job("uploading", identity="j")]
    stub.refuse_files.append(_stub.Refusal(507, "No room", keep=True, part=1 << 20))
    with pytest.raises(exceptions.CommandError, match="No room"):
        run(image.CreateImage, "demo", "--file", disk, "--all-clouds")
    stub.jobs["j"] = [{**stub.jobs["j"][0], "status": "success"}]
    shown = run(image.UploadImage, "demo", "--file", disk, "--progress", "--wait", "-f", "json")
    assert shown.json["job_id"] == "j"
    assert "2.0 MiB of 3.0 MiB" in shown.stderr or "3.0 MiB of 3.0 MiB" in shown.stderr
    assert [got.size for got in stub.received] == [1 << 20, len(DATA) - (1 << 20)]


@pytest.mark.parametrize(
    ("status", "expected", "told"),
    [
        ("running", 0, "was there already: nothing was sent."),
        ("success", 0, "was there already: nothing was sent."),
        ("partial", 3, "was there already: nothing was sent."),
        ("error", 1, "takes no data any more: nothing was sent."),
        ("cancelled", 4, "takes no data any more: nothing was sent."),
    ],
)
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_where_all_is_there_nothing_is_sent_and_that_is_told(
    stub: _stub.Stub,
    run: conftest.Runner,
    disk: str,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    expected: int,
    told: str,
    kind: str,
) -> None:
    _all_there(stub, status)
    with subprocess.Popen(["cat", disk], stdout=subprocess.PIPE, text=True) as pipe:
        monkeypatch.setattr("sys.stdin", pipe.stdout)
        shown = run(image.UploadImage, "demo", "--file", disk if kind == "file" else "-", "--progress")
    assert (shown.status, stub.received) == (expected, [])
    assert told in shown.stderr.splitlines()[0]


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_what_has_another_size_than_what_is_there_is_refused(
    stub: _stub.Stub,
    run: conftest.Runner,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    kind: str,
) -> None:
    _all_there(stub, "success")
    path = tmp_path / "another"
    path.write_bytes(bytes(size))
    with (
        subprocess.Popen(["cat", path], stdout=subprocess.PIPE, text=True) as pipe,
        pytest.raises(exceptions.CommandError, match=r"nothing was sent\. Data is never replaced"),
    ):
        monkeypatch.setattr("sys.stdin", pipe.stdout)
        run(image.UploadImage, "demo", "--file", str(path) if kind == "file" else "-", "--wait")
    assert not stub.received


def _all_there(stub: _stub.Stub, status: str) -> None:
    stub.images.append(_stub.image("demo"))
    stub.created.append({"size": len(DATA)})
    stub.offset = len(DATA)
    stub.jobs["j"] = [_stub.job(status, identity="j", image_id=stub.images[0]["id"])]


def _appended(disk: str) -> None:
    with pathlib.Path(disk).open("ab") as file:
        file.write(b"more")


def _rewritten(disk: str) -> None:
    os.utime(disk, ns=(0, 0))


@pytest.mark.parametrize("change", [_appended, _rewritten])
@pytest.mark.parametrize("command", ["create", "upload"])
def test_a_file_that_changes_while_it_is_sent_is_an_error(
    stub: _stub.Stub,
    run: conftest.Runner,
    disk: str,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], None],
    command: str,
) -> None:
    stub.outcome = [_stub.job("uploading", identity="j")]
    argv: tuple[str, ...] = ("demo", "--file", disk)
    if command == "upload":
        stub.images.append(_stub.image("demo"))
        stub.created.append({"size": len(DATA)})
        stub.jobs["j"] = [_stub.job("uploading", identity="j", image_id=stub.images[0]["id"])]
    else:
        argv += ("--all-clouds",)
    monkeypatch.setattr(upload.Line, "sent", lambda _line: change(disk))
    with pytest.raises(exceptions.CommandError, match="changed while it was sent") as caught:
        run(image.CreateImage if command == "create" else image.UploadImage, *argv)
    [made] = stub.images
    assert f"job cancel j, then openstack multicloud image delete {made['id']}" in str(caught.value)


@pytest.mark.parametrize(
    ("size", "told", "sent"),
    [
        (len(DATA) + 4, "changed while it was sent", [len(DATA)]),
        (100, "ended after 100 of 3145728 bytes: it became shorter meanwhile", []),
    ],
    ids=["longer", "shorter"],
)
def test_a_file_that_changes_before_its_first_byte_is_sent_is_an_error(
    stub: _stub.Stub,
    run: conftest.Runner,
    disk: str,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    told: str,
    sent: list[int],
) -> None:
    """When it was announced already; to go on would be of no use."""
    create = _stub.Stub._create

    def change(self: _stub.Stub, attributes: _stub.Json) -> Any:
        os.truncate(disk, size)
        return create(self, attributes)

    monkeypatch.setattr(_stub.Stub, "_create", change)
    stub.outcome = [_stub.job("uploading", identity="j")]
    with pytest.raises(exceptions.CommandError, match=told) as caught:
        run(image.CreateImage, "demo", "--file", disk, "--all-clouds")
    assert "To begin anew: openstack multicloud job cancel j" in str(caught.value)
    assert "To go on" not in str(caught.value)
    assert [got.size for got in stub.received][: len(sent)] == sent


@pytest.mark.parametrize(
    ("done", "at", "warned"), [(1000, 1, True), (1000, -1, False), (0, 1, False)], ids=["new", "old", "none"]
)
def test_a_file_that_is_newer_than_what_is_there_is_warned_of(
    stub: _stub.Stub, run: conftest.Runner, disk: str, done: int, at: int, warned: bool
) -> None:
    created = datetime.fromisoformat("2026-01-01T00:00:00Z").timestamp()
    os.utime(disk, (created + at, created + at))
    stub.images.append(_stub.image("demo"))
    stub.created.append({"size": len(DATA)})
    stub.offset = done
    amount = {"bytes_done": done, "bytes_total": len(DATA)}
    stub.jobs["j"] = [
        _stub.job("uploading", identity="j", image_id=stub.images[0]["id"], progress=amount)
    ]
    shown = run(image.UploadImage, "demo", "--file", disk)
    assert shown.status == 0 and stub.offset == len(DATA)
    assert ("was written to after image" in shown.stderr) is warned


def test_a_job_that_cannot_be_watched_any_more_goes_on(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.jobs["j"] = [_stub.job("running", identity="j")]
    with pytest.raises(exceptions.CommandError) as caught:
        run(job.WaitJob, "j", "--timeout", "1")
    assert str(caught.value).splitlines()[1] == (
        "Job j goes on. To watch it again: openstack multicloud job wait j"
    )
