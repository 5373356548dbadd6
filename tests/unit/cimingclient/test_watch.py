# SPDX-License-Identifier: Apache-2.0
"""What the lines of `--wait` say of a Job that does not move."""

from typing import Any

import pytest

from cimingclient.osc import watch
from cimingclient.sdk import job as _job
from tests.unit.cimingclient import stub as _stub

BUSY = {"code": "cloud.unavailable", "message": "503"}


def note(status: str, target: dict[str, Any], **more: Any) -> str:
    [row] = watch._rows(_job.Job.existing(**_stub.job(status, target, **more)))
    return row.note


@pytest.mark.parametrize(
    ("status", "target", "more", "expected"),
    [
        ("uploading", _stub.target("a", "waiting"), {}, "waits for its data"),
        ("queued", _stub.target("a", "waiting"), {}, "waits for an engine"),
        ("running", _stub.target("a", "waiting"), {}, ""),
        ("running", _stub.target("a", "waiting"), {"error": BUSY}, "503"),
        ("running", _stub.target("a", "running"), {}, ""),
        ("running", _stub.target("a", "running", "withdraw", error=BUSY), {}, "503"),
        ("running", _stub.target("a", "retrying", attempts=3, error=BUSY), {}, "attempt 3: 503"),
        ("running", _stub.target("a", "running", attempts=3), {}, "attempt 3"),
        ("running", _stub.target("a", "running"), {"wanted": "cancel"}, "is being cancelled"),
        ("queued", _stub.target("a", "waiting"), {"wanted": "cancel"}, "is being cancelled"),
        ("running", _stub.target("a", "success", attempts=2), {"wanted": "cancel"}, "attempt 2"),
        ("cancelled", _stub.target("a", "cancelled"), {"wanted": "cancel"}, ""),
        ("error", _stub.target("a", "error", error=BUSY), {"error": BUSY}, ""),
    ],
)
def test_note(status: str, target: dict[str, Any], more: dict[str, Any], expected: str) -> None:
    assert note(status, target, **more) == expected


def test_how_far_a_sync_of_zones_is() -> None:
    amount = {"bytes_done": 1, "bytes_total": 2, "images_done": 120, "images_total": 300}
    amount |= {"bytes_per_second": 38 << 20, "seconds_left": 45}
    [row] = watch._rows(_job.Job.existing(**_stub.job("running", kind="zone-sync", progress=amount)))
    assert (row.note, row.pace) == ("", "120 of 300 images, 38.0 MiB/s, 45 s left")
    assert row.line(9).endswith("50 %  1 B of 2 B  120 of 300 images, 38.0 MiB/s, 45 s left")
    [row] = watch._rows(_job.Job.existing(**_stub.job("queued", kind="zone-sync", progress=amount)))
    assert row.line(9).endswith("waits for an engine")
