# SPDX-License-Identifier: Apache-2.0
"""What the stage flow's tools note of a source. (The Clouds are mocked: only what they say matters here.)"""

import types
from typing import Any

import pytest

from ciming.db import work
from ciming.engine import locating, stage_tools

PLACE = locating.Place("cloud-id", "other", "openstack", "RegionOne")


@pytest.mark.parametrize(
    ("place", "noted"),
    [(PLACE, {"whose": "project p"}), (PLACE._replace(cloud_key="zone-a", region="zone-a"), {})],
)
def test_whose_credential_has_found_it(
    monkeypatch: pytest.MonkeyPatch, place: locating.Place, noted: dict[str, str]
) -> None:
    """Of a zone there is nothing to note: each caller has their own."""
    told: list[dict[str, Any]] = []
    kit: Any = stage_tools.StageTools.__new__(stage_tools.StageTools)
    kit.job, kit._claim, kit._room = None, None, None
    kit._provider = types.SimpleNamespace(whose=lambda: "project p")
    monkeypatch.setattr(locating, "find", lambda *_: {**place._asdict(), "image_ref": "ref"})
    monkeypatch.setattr(work, "found", lambda _claim, found, _room: told.append(found))
    monkeypatch.setattr(work, "load", lambda _claim: None)
    kit.locate()
    assert told == [{**place._asdict(), "image_ref": "ref", **noted}]
