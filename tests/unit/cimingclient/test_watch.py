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
