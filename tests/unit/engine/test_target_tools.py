# SPDX-License-Identifier: Apache-2.0
"""What the tools of a Target tell its provider."""

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from oslo_db import exception as db_exceptions

from ciming import exceptions, growing, staging
from ciming.db import api, models, session, work
from ciming.engine import slots, target_tools, watch
from ciming.providers import base
from tests.unit import rows
from tests.unit.db.test_zone_work import entry

TIB = 1 << 40


class Provider:
    """Takes some formats, and notes what it is asked of."""

    def __init__(self, formats: tuple[str, ...]) -> None:
        self.formats = formats
        self.asked: list[tuple[str, int, int]] = []

    def check(self, staged: staging.StagedFile) -> None:
        self.asked.append((staged.disk_format, staged.size, staged.virtual_size))


@pytest.mark.parametrize(
    ("formats", "asked"),
    [
        (("raw",), ("raw", 2 * TIB, 2 * TIB)),
        (("vmdk", "qcow2"), ("qcow2", 512, 2 * TIB)),
        (("qcow2", "raw"), ("qcow2", 512, 2 * TIB)),
    ],
)
def test_what_is_to_be_converted_is_checked_as_what_it_becomes(
    formats: tuple[str, ...], asked: tuple[str, int, int]
) -> None:
    """A small file may be a large disk; whether a cloud has room for that is known before it is converted."""
    kit: Any = target_tools.TargetTools.__new__(target_tools.TargetTools)
    kit._source = staging.StagedFile("", "qcow2", 512, 2 * TIB, {})
    kit.__dict__["provider"] = Provider(formats)
    kit._check_source()
    assert kit.provider.asked == [asked]


def test_a_database_that_is_away_in_the_midst_of_a_step_ends_no_target() -> None:
    """A registered Cloud is read from there."""
    kit: Any = target_tools.TargetTools.__new__(target_tools.TargetTools)
    told: list[exceptions.CimingError] = []

    def broken() -> None:
        raise db_exceptions.DBConnectionError

    with pytest.raises(exceptions.Interrupted, match="database"):
        kit._until_final("check", broken, lambda error, _final: told.append(error), lambda: None)
    assert not told


class Zone:
    """Has images by their ids, hidden or not; of the new one it says nothing."""

    def __init__(self, *, hidden: bool) -> None:
        self.hidden = {"former": hidden, "new": False}

    def show(self, image_ref: str) -> base.Metadata | None:
        if image_ref == "new":
            raise exceptions.ProviderError("zone-b said no.")
        hidden = self.hidden.get(image_ref)
        return hidden if hidden is None else base.Metadata(image_ref, "", "active", "ready", hidden=hidden)

    def settle(self, image_ref: str, carry: Mapping[str, Any], _alive: base.Alive) -> None:
        self.hidden[image_ref] = carry["hidden"]

    def discard(self, _key: str, _alive: base.Alive) -> None:
        self.hidden.pop("new", None)


def begun(claim: work.Claim, zone: Zone) -> target_tools.TargetTools:
    """Tools for the only Target of a Job, as after a restart."""
    job = api.get_job(claim.job_id, None)
    slot = slots.Slots(slots.Limits(1)).slot(cloud="zone-b", project="studio", large=False)
    watching = watch.Watch(claim, threading.Event())
    made = target_tools.TargetTools(job, watching, growing.GrowingFile(), claim, job.targets[0], slot)
    made.__dict__["provider"] = zone
    return made


def planned(symbol: str, **more: Any) -> work.Claim:
    """Of a Job with one Target, for which a plan has this."""
    claim = rows.take(rows.make_job(zones=["zone-b"]).id)
    with session.writer() as writing:
        spec = {"there": {"zone-b": entry(symbol, "1", **more)}}
        writing.get_one(models.Job, claim.job_id).spec = spec
    return claim


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_to_be_replaced_is_shown_again_when_that_is_undone(*, hidden: bool) -> None:
    """Also by an engine that knows of it by its rows only; it stays hidden if others had hidden it."""
    carry = {"owner": "studio", "visibility": "private", "protected": False, "hidden": False}
    claim, zone = planned("*", there="former", carry=carry), Zone(hidden=hidden)
    for _attempt in range(2):
        with pytest.raises(exceptions.ProviderError, match="said no"):
            begun(claim, zone).link("new", "bytes")
        assert zone.hidden == {"former": True, "new": False}
    begun(claim, zone).withdraw()
    assert zone.hidden == {"former": hidden}
    assert hidden or api.get_job(claim.job_id, None).targets[0].remarks is None


@pytest.mark.usefixtures("database")
def test_what_a_delete_had_to_leave_is_deleted_when_it_is_tried_again() -> None:
    """The image itself is gone by then."""
    job = rows.make_job(zones=["zone-b"])
    with session.writer() as writing:
        writing.get_one(models.Job, job.id).spec = {"refs": {"zone-b": "ami-1"}}
    kit: Any = begun(rows.take(job.id), Zone(hidden=False))
    cleared: list[str] = []
    kit.provider.describe = lambda _ref: None
    kit.provider.clear_left = lambda ref, _alive: cleared.append(ref)
    kit.delete()
    assert cleared == ["ami-1"]


@pytest.mark.usefixtures("database")
def test_a_late_retry_tells_nothing_old() -> None:
    """What an Image is called may have changed since the Job was asked for."""
    job = rows.make_job(zones=["zone-b"])
    with session.writer() as writing:
        image = writing.get_one(models.Image, job.image_id)
        image.name, image.tags = "new", ["t-new"]
        writing.get_one(models.Job, job.id).spec = {"name": "old", "tags": ["t-old"], "min_disk": 3}
    spec = begun(rows.take(job.id), Zone(hidden=False)).spec
    assert (spec.name, spec.tags, spec.min_disk) == ("new", ("t-new",), 3)
    with session.writer() as writing:       # what it is synced from may have more tags
        again = writing.get_one(models.Job, job.id)
        again.kind, again.spec = "sync", {"name": "old", "found": {"tags": ["there", "t-new"]}}
    assert begun(rows.take(job.id), Zone(hidden=False)).spec.tags == ("t-new", "there")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("keeps", [False, True])
def test_what_a_cloud_is_not_told_is_not_expected_there(*, keeps: bool) -> None:
    """Who sees it is in AWS and Google Cloud not for an image to say."""
    job = rows.make_job(zones=["zone-b"])
    with session.writer() as writing:
        writing.get_one(models.Job, job.id).spec = {"name": "demo", "visibility": "shared"}
    kit: Any = begun(rows.take(job.id), Zone(hidden=False))
    kit.provider.keeps_properties = keeps
    assert ("visibility" in kit._as_linked("new")) == keeps


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(("symbol", "needed"), [("+", True), ("*", True), ("~", False)])
def test_bytes_that_can_not_be_had_hold_up_who_needs_them(symbol: str, *, needed: bool) -> None:
    kit: Any = begun(planned(symbol), Zone(hidden=False))
    kit.staged.fail(exceptions.ProviderError("They are gone.", code="source.not_readable"))
    with pytest.raises(exceptions.ProviderError, match="gone") if needed else contextlib.nullcontext():
        kit.alive()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("step", ["upload", "await_whole"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_why_there_are_no_bytes_takes_the_place_of_what_passed(
    step: str, monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    """The cloud stumbled once; then the image was refused, or is not wanted any more."""
    claim = rows.take(rows.make_job(zones=["zone-b"]).id)
    kit: Any = begun(claim, Zone(hidden=False))
    monkeypatch.setattr(kit, "_pause", lambda *_: None)
    refused = exceptions.ImageRejected("It has a backing file.", code="image.unsafe")
    attempts = iter([exceptions.TransientProviderError("zone-b: 503"), None])

    def upload() -> None:
        if error := next(attempts):
            raise error
        if step == "upload":
            kit.staged.fail(exceptions.Cancelled("The Job was cancelled.") if cancelled else refused)
            kit.alive()

    def go_on() -> None:
        kit.attempt("upload", upload)
        kit._tell(exceptions.TransientProviderError("zone-b: 503"), final=False)    # in the next step
        kit.staged.fail(exceptions.Cancelled("The Job was cancelled.") if cancelled else refused)
        kit.await_whole()

    with pytest.raises(exceptions.Cancelled if cancelled else exceptions.ImageRejected):
        go_on()
    error = api.get_job(claim.job_id, None).targets[0].error
    assert (error or {}).get("code") == (None if cancelled else "image.unsafe")
