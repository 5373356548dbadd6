# SPDX-License-Identifier: Apache-2.0
"""Following a Job to its end."""

from typing import Any

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from cimingclient.osc import columns, common, progress, text
from cimingclient.sdk import job as _job

EXIT_STATUS = {
    "success": 0,
    "error": 1,
    "partial": 3,
    "cancelled": 4,
    "waiting-credentials": 5,
}


class _Watching(common.Base):
    """What became of the Jobs it watched is its exit status: of several, the first that went wrong."""

    def watch(self, job: _job.Job, timeout: float | None = None) -> _job.Job:
        """Show progress until the Job stops, then say what went wrong.

        :raises: `CommandError` when it cannot be watched any more; the Job goes on.
        """
        board = progress.board(self.app.stderr)
        how = f"openstack multicloud job wait {job.id}"
        try:
            job = self.client.wait_for_job(
                job.id, progress=lambda now: board.show(_rows(now)), timeout=timeout
            )
        except KeyboardInterrupt:
            self.say(f"Job {job.id} goes on. To watch it again: {how}")
            self.say(f"To stop it: openstack multicloud job cancel {job.id}")
            raise
        except sdk_exceptions.NotFoundException:
            raise
        except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
            raise exceptions.CommandError(
                f"{text.explain(exc)}\nJob {job.id} goes on. To watch it again: {how}"
            ) from exc
        for line in (*remarks(job), *failures(job)):
            self.say(line)
        self._exit_status = self._exit_status or EXIT_STATUS.get(job.status, 1)
        return job


class WatchingShowOne(_Watching, common.ShowOne):
    """Shows one thing."""


class WatchingLister(_Watching, common.Lister):
    """Lists things."""


class WatchingCommand(_Watching, common.Command):
    """Does something, and shows nothing but how it goes."""


def remarks(job: _job.Job) -> list[str]:
    """In what the image is another in some cloud."""
    return [
        f"{text.plain(target['cloud'])}: {text.plain(remark)}"
        for target in job.targets or []
        for remark in target.get("remarks") or ()
    ]


def failures(job: _job.Job) -> list[str]:
    """What went wrong: one line per error, with the clouds that met it."""
    met: dict[str, list[str]] = {}
    for target in job.targets or []:
        if target.get("status") == "error" and target.get("error"):
            met.setdefault(columns.error(target["error"]), []).append(text.plain(target["cloud"]))
    lines = [f"{', '.join(clouds)} failed: {error}" for error, clouds in met.items()]
    if job.error and job.status != "cancelled" and columns.error(job.error) not in met:
        lines.insert(0, f"Job {job.id} failed: {columns.error(job.error)}")
    report = job.report or {}
    for failure in report.get("failures") or ():
        lines.append(f"{columns.failed(failure)} failed: {columns.error(failure)}")
    if report.get("not_pruned"):
        lines.append(text.plain(report["not_pruned"]))
    if job.status == "waiting-credentials":
        lines += [
            f"{text.plain(target['cloud'])} waits: {columns.error(target['error'])}"
            for target in job.targets or []
            if target.get("status") == "waiting" and target.get("error")
        ]
        lines.append(f"Job {job.id} waits for credentials: openstack multicloud job resume {job.id}")
    if job.status == "cancelled":
        lines.append(f"Job {job.id} was cancelled.")
    return lines


def waits_for(job: _job.Job) -> str:
    """What a Job waits for whose Targets do not run; nothing where it has ended."""
    if job.status in _job.ENDS:
        return ""
    if job.wanted == "cancel":
        return "is being cancelled"
    error = str((job.error or {}).get("message", ""))
    return {"uploading": "waits for its data", "queued": "waits for an engine"}.get(job.status, error)


def _rows(job: _job.Job) -> list[progress.Row]:
    if job.targets:
        return [_row(target, _note(job, target)) for target in job.targets]
    amount = job.progress or {}
    done, total = amount.get("bytes_done") or 0, amount.get("bytes_total")
    said = {"note": waits_for(job), "pace": _pace(amount)}
    return [progress.Row(job.kind or "job", job.status, done=done, total=total, **said)]


def _pace(amount: dict[str, Any]) -> str:
    """How far a sync of zones is."""
    if amount.get("images_total") is None:
        return ""
    parts = [f"{amount['images_done']} of {amount['images_total']} images"]
    if amount.get("bytes_per_second"):
        parts.append(f"{text.size(amount['bytes_per_second'])}/s")
    if amount.get("seconds_left"):
        parts.append(f"{amount['seconds_left']} s left")
    return ", ".join(parts)


def _note(job: _job.Job, target: dict[str, Any]) -> str:
    """What a Target waits for, or what went wrong there and how often it was tried."""
    ended = target["status"] in _job.ENDS
    if not ended and (target["status"] == "waiting" or job.wanted == "cancel"):
        return waits_for(job)
    tried = target.get("attempts") or 0
    error = "" if ended else (target.get("error") or {}).get("message")
    return ": ".join(filter(None, (f"attempt {tried}" if tried > 1 else "", error)))


def _row(target: dict[str, Any], note: str) -> progress.Row:
    ended = target["status"] in _job.ENDS
    return progress.Row(
        str(target["cloud"]),
        target["status"],
        step="" if ended else target.get("step") or "",
        done=target.get("bytes_done") or 0,
        total=target.get("bytes_total"),
        note=note,
    )
