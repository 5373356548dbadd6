# SPDX-License-Identifier: Apache-2.0
import itertools
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciming.api import queries
from ciming.db import status

JOB = ("uploading", "queued", "running", "waiting-credentials", *status.JOB_ENDS)
IMAGE = ("uploading", "pending", "active", "partial", "error")
TARGET = ("waiting", "running", "retrying", *status.TARGET_ENDS)
STAGES = ("uploading", "staging", "staged", "failed")
ZONES = ("zone-a", "zone-b", "zone-c")


@pytest.mark.parametrize(
    ("wanted", "stage", "started", "finished", "targets", "expected"),
    [
        ("run", "uploading", False, False, ["waiting"], "uploading"),
        ("run", "uploading", True, False, ["running"], "uploading"),    # a Target that follows the bytes
        ("run", "staging", False, False, ["waiting"], "queued"),
        ("run", "staging", True, False, ["waiting"], "running"),
        ("run", "staged", True, False, ["success", "running"], "running"),
        ("run", "staged", True, False, ["success", "success"], "running"),   # until it was cleaned up
        ("run", "failed", False, False, ["error"], "queued"),           # its upload expired
        ("cancel", "staged", True, False, ["running"], "running"),
        ("run", "staged", True, True, ["success", "success"], "success"),
        ("cancel", "staged", True, True, ["success"], "success"),       # it came too late
        ("run", "staged", True, True, ["success", "error"], "partial"),
        ("cancel", "staged", True, True, ["success", "cancelled"], "cancelled"),
        ("cancel", "staged", True, True, ["success", "error"], "partial"),      # it came too late
        ("run", "staged", True, True, ["error", "error"], "error"),
        ("run", "failed", True, True, ["error"], "error"),
        ("cancel", "staged", True, True, ["cancelled", "cancelled"], "cancelled"),
        ("cancel", "staged", True, True, ["error", "cancelled"], "cancelled"),
    ],
)
def test_job(
    wanted: str, stage: str, started: bool, finished: bool, targets: list[str], expected: str
) -> None:
    found = status.job_status(
        wanted=wanted, stage=stage, started=started, waits=False, finished=finished, targets=targets
    )
    assert found == expected


ERROR = {"code": "x", "message": "X."}
NOTHING = dict.fromkeys(("created", "same", "failed", "cancelled"), 0)


@pytest.mark.parametrize(
    ("report", "error", "wanted", "expected"),
    [
        (NOTHING, None, "run", "success"),      # a glob that matches nothing
        (NOTHING, ERROR, "run", "error"),       # the source could not be read
        (None, ERROR, "run", "error"),
        (NOTHING, None, "cancel", "cancelled"),
        (NOTHING | {"same": 3}, None, "run", "success"),
        (NOTHING | {"same": 3}, ERROR, "run", "partial"),
        (NOTHING | {"created": 3, "failed": 1}, None, "run", "partial"),
        (NOTHING | {"failed": 1}, None, "run", "error"),
        (NOTHING | {"created": 3, "cancelled": 1}, None, "cancel", "cancelled"),
    ],
)
def test_a_sync_of_zones(
    report: dict[str, int] | None, error: dict[str, str] | None, wanted: str, expected: str
) -> None:
    found = status.job_status(
        wanted=wanted,
        stage="staged",
        started=True,
        waits=False,
        finished=True,
        targets=status.sync_outcomes(report, error, wanted),
    )
    assert found == expected


@pytest.mark.parametrize(
    ("wanted", "stage", "finished", "expected"),
    [
        ("run", "staging", False, "waiting-credentials"),
        ("run", "staged", False, "waiting-credentials"),
        ("run", "uploading", False, "uploading"),       # it has to be, before anything can go on
        ("cancel", "staged", False, "running"),
        ("run", "staged", True, "error"),       # it has waited for too long
    ],
)
def test_a_job_that_waits(wanted: str, stage: str, finished: bool, expected: str) -> None:
    found = status.job_status(
        wanted=wanted, stage=stage, started=True, waits=True, finished=finished, targets=["error"]
    )
    assert found == expected


@pytest.mark.parametrize(
    ("jobs", "missing", "linked", "expected"),
    [
        (["uploading"], ["zone-a"], [], "uploading"),
        (["queued"], ["zone-a"], [], "pending"),
        (["running"], ["zone-a", "zone-b"], ["zone-a"], "pending"),
        (["success"], ["zone-a", "zone-b"], ["zone-a", "zone-b"], "active"),
        (["partial"], ["zone-a", "zone-b"], ["zone-a"], "partial"),
        (["error"], ["zone-a"], [], "error"),
        (["cancelled"], ["zone-a"], [], "error"),
        (["success", "running"], ["zone-a", "zone-b"], ["zone-a"], "pending"),     # a sync
        (["success", "error"], ["zone-a", "zone-b"], ["zone-a"], "partial"),
        (["error", "success"], ["zone-a"], ["zone-a"], "active"),
        (["success"], [], ["zone-a"], "active"),        # one that was unlinked elsewhere
        (["success"], [], [], "error"),                 # and one that is nowhere any more
    ],
)
def test_image(jobs: list[str], missing: list[str], linked: list[str], expected: str) -> None:
    assert status.image_status(jobs=jobs, missing=missing, linked=linked) == expected


@given(
    wanted=st.sampled_from(["run", "cancel"]),
    stage=st.sampled_from(STAGES),
    started=st.booleans(),
    waits=st.booleans(),
    finished=st.booleans(),
    targets=st.lists(st.sampled_from(TARGET), max_size=4),
)
def test_a_job_has_a_documented_status(
    wanted: str, stage: str, started: bool, waits: bool, finished: bool, targets: list[str]
) -> None:
    found = status.job_status(
        wanted=wanted, stage=stage, started=started, waits=waits, finished=finished, targets=targets
    )
    assert found in JOB
    assert (found in status.JOB_ENDS) == finished
    assert (found == "success") == (finished and set(targets) == {"success"})
    cancelled = wanted == "cancel" and "cancelled" in targets
    assert (found == "partial") == (finished and {"success"} < set(targets) and not cancelled)


@given(
    jobs=st.lists(st.sampled_from(JOB), min_size=1, max_size=3),
    missing=st.lists(st.sampled_from(ZONES)),
    linked=st.sets(st.sampled_from(ZONES)),
)
def test_an_image_has_a_documented_status(
    jobs: list[str], missing: list[str], linked: Collection[str]
) -> None:
    found = status.image_status(jobs=jobs, missing=missing, linked=linked)
    assert found in IMAGE
    if found in ("active", "partial", "error"):
        assert set(jobs) <= set(status.JOB_ENDS)
        assert (found == "active") == (bool(linked) and set(missing) <= set(linked))


def test_order_of_targets_says_nothing() -> None:
    for targets in itertools.product(status.TARGET_ENDS, repeat=3):
        found = {
            status.job_status(
                wanted="run", stage="staged", started=True, waits=False, finished=True, targets=order
            )
            for order in itertools.permutations(targets)
        }
        assert len(found) == 1


def test_one_can_ask_for_every_status() -> None:
    for query, words in ((queries.JobQuery, JOB), (queries.ImageQuery, IMAGE)):
        for word in words:
            assert query().load({"status": [word]}) == {"status": [("in", [word])]}
