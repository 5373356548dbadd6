# SPDX-License-Identifier: Apache-2.0
"""What the stage flow's tools note of a source. (The Clouds are mocked: only what they say matters here.)"""

import pathlib
import types
from typing import Any

import pytest

from ciming import exceptions, staging
from ciming.db import models, work
from ciming.engine import locating, stage_tools

PLACE = locating.Place("cloud-id", "other", "openstack", "RegionOne")


@pytest.mark.parametrize(
    ("place", "more", "noted"),
    [
        (PLACE, {}, {"whose": "project p"}),
        (PLACE, {"converted": True}, {}),
        (PLACE._replace(cloud_key="zone-a", region="zone-a"), {}, {}),
    ],
)
def test_whose_credential_has_found_it(
    monkeypatch: pytest.MonkeyPatch, place: locating.Place, more: dict[str, bool], noted: dict[str, str]
) -> None:
    """Of a zone there is nothing to note, as each caller has their own.

    Nor of what was converted: others were asked after it, and it is a Link already.
    """
    told: list[dict[str, Any]] = []
    kit: Any = stage_tools.StageTools.__new__(stage_tools.StageTools)
    kit.job, kit._claim, kit._room = None, None, None
    kit._provider = types.SimpleNamespace(whose=lambda: "project p")
    monkeypatch.setattr(locating, "find", lambda *_: {**place._asdict(), "image_ref": "ref", **more})
    monkeypatch.setattr(work, "found", lambda _claim, found, _room: told.append(found))
    monkeypatch.setattr(work, "load", lambda _claim: None)
    kit.locate()
    assert told == [{**place._asdict(), "image_ref": "ref", **more, **noted}]


@pytest.mark.parametrize(
    ("there", "fine"),
    [
        (b"a" * 512 + bytes(512), True),
        (b"a" * 512 + bytes(1024), True),
        (b"a" * 512, False),
        (b"b" * 512 + bytes(512), False),
    ],
)
def test_another_file_has_to_be_the_disk(tmp_path: pathlib.Path, there: bytes, fine: bool) -> None:
    """Which may have grown by zeros; what is another one goes nowhere, and is not kept."""

    def staged(name: str, data: bytes) -> staging.StagedFile:
        path = tmp_path / name
        path.write_bytes(data)
        return staging.StagedFile(str(path), "raw", len(data), len(data), {})

    ours = staged("ours", b"a" * 512 + bytes(512))
    image = models.Image(id="image", virtual_size=1024, digests={"guest": ours.guest_digest()})
    kit: Any = stage_tools.StageTools.__new__(stage_tools.StageTools)
    kit.alive = lambda: None
    for converted in (True, False):
        found = {"cloud": "amazon", "image_ref": "ami-1", "converted": converted}
        kit.job = models.Job(image=image, spec={"found": found})
        theirs = staged("theirs", there)
        if fine or not converted:
            kit.check_disk(theirs)
            assert pathlib.Path(theirs.path).exists()
            continue
        with pytest.raises(exceptions.ProviderError, match="ami-1 in amazon") as caught:
            kit.check_disk(theirs)
        assert caught.value.code == "source.changed" and not pathlib.Path(theirs.path).exists()


def test_what_was_said_of_an_upload_does_not_hold_for_another_file() -> None:
    """Neither its format nor its checksum."""
    kit: Any = stage_tools.StageTools.__new__(stage_tools.StageTools)
    said = {"disk_format": "qcow2", "checksum": "sha256:aa"}
    for converted, declared in ((True, "raw"), (False, "qcow2")):
        found = {"disk_format": "raw", "converted": converted}
        kit.job = models.Job(spec={**said, "found": found})
        assert kit.declared_format == declared
