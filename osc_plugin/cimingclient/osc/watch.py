# SPDX-License-Identifier: Apache-2.0
"""Following a Job to its end."""

import argparse
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


class WatchingShowOne(common.ShowOne):
    """Shows one thing; what became of the Job it watched is its exit status."""

    _exit_status = 0

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or self._exit_status

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
            raise
        except sdk_exceptions.NotFoundException:
            raise
        except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
            raise exceptions.CommandError(
                f"{text.explain(exc)}\nJob {job.id} goes on. To watch it again: {how}"
            ) from exc
        for line in failures(job):
            self.say(line)
        self._exit_status = EXIT_STATUS.get(job.status, 1)
        return job


def failures(job: _job.Job) -> list[str]:
    """What went wrong: one line per error, with the clouds that met it."""
    met: dict[str, list[str]] = {}
    for target in job.targets or []:
        if target.get("status") == "error" and target.get("error"):
            met.setdefault(columns.error(target["error"]), []).append(text.plain(target["cloud"]))
    lines = [f"{', '.join(clouds)} failed: {error}" for error, clouds in met.items()]
    if job.error and columns.error(job.error) not in met:
        lines.insert(0, f"Job {job.id} failed: {columns.error(job.error)}")
    if job.status == "waiting-credentials":
        lines.append(f"Job {job.id} waits for credentials, and goes on once it has them.")
    return lines


def _rows(job: _job.Job) -> list[progress.Row]:
    if job.targets:
        return [_row(target) for target in job.targets]
    amount = job.progress or {}
    done, total = amount.get("bytes_done") or 0, amount.get("bytes_total")
    return [progress.Row(job.kind or "job", job.status, done=done, total=total)]


def _row(target: dict[str, Any]) -> progress.Row:
    ended = target["status"] in _job.ENDS
    note = f"attempt {target['attempts']}" if (target.get("attempts") or 0) > 1 else ""
    if target.get("error") and not ended:
        note = f"{note}: {target['error'].get('message')}" if note else ""
    return progress.Row(
        str(target["cloud"]),
        target["status"],
        step="" if ended else target.get("step") or "",
        done=target.get("bytes_done") or 0,
        total=target.get("bytes_total"),
        note=note,
    )
