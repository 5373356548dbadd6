# SPDX-License-Identifier: Apache-2.0
"""Where every status comes from: nothing else in CIMinG sets one by hand."""

from collections.abc import Collection, Mapping
from typing import Any

JOB_ENDS = ("success", "partial", "error", "cancelled")
JOB_STATUSES = ("uploading", "queued", "running", "waiting-credentials", *JOB_ENDS)
TARGET_ENDS = ("success", "error", "cancelled")
MOVING = ("create", "sync")
"""Kinds of Jobs that bring an image's bytes somewhere."""
BRINGING = (*MOVING, "link")
"""Kinds of Jobs after which an Image has another Link."""
LINKED = ("update", "delete")
"""Kinds of Jobs whose Targets are where an Image is already."""


def job_status(
    *, wanted: str, stage: str, started: bool, waits: bool, finished: bool, targets: Collection[str]
) -> str:
    """The status of a Job, from what is wanted, its stage and its Targets' statuses.

    :param waits: for a credential of the user's
    """
    if not finished:
        if stage == "uploading":
            return "uploading"
        if waits and wanted == "run":
            return "waiting-credentials"
        return "running" if started else "queued"
    if targets and all(status == "success" for status in targets):
        return "success"
    if wanted == "cancel" and "cancelled" in targets:
        return "cancelled"
    return "partial" if "success" in targets else "error"


def sync_outcomes(report: Mapping[str, Any] | None, error: object, wanted: str) -> list[str]:
    """How the parts of a sync of zones ended, in the words of Targets' statuses.

    :param report: see engine.zone_sync; None: it has not come so far
    :param error: of the whole
    """
    counts = report or {}
    done = sum(counts.get(name, 0) for name in ("created", "updated", "replaced", "pruned", "same", "left"))
    failed = sum(counts.get(name, 0) for name in ("failed", "cannot"))
    stopped = counts.get("cancelled", 0) or (wanted == "cancel" and not error)
    nothing = report is not None and not (done or failed or stopped or error)       # was to be done
    found = {"success": done or nothing, "error": failed or error, "cancelled": stopped}
    return [name for name, is_so in found.items() if is_so]


def image_status(*, jobs: Collection[str], missing: Collection[str], linked: Collection[str]) -> str:
    """The status of an Image.

    :param jobs: statuses of its Jobs
    :param missing: Clouds in which it was wanted, and has not come to be
    :param linked: Clouds in which it is
    """
    if "uploading" in jobs:
        return "uploading"
    if not set(jobs) <= set(JOB_ENDS):
        return "pending"
    if not linked:
        return "error"
    return "active" if set(missing) <= set(linked) else "partial"
