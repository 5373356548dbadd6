# SPDX-License-Identifier: Apache-2.0
"""Sending the bytes: what is shown meanwhile, and what is said when it fails."""

import argparse
import contextlib
import dataclasses
import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, TextIO

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from cimingclient.osc import columns, common, progress, source, text
from cimingclient.sdk import _proxy, body
from cimingclient.sdk import image as _image
from cimingclient.sdk import job as _job

#: Seconds between two pictures on a terminal.
_REFRESH = 0.1


class Line:
    """A line that follows the upload, where somebody asked for one."""

    def __init__(self, stream: TextIO, parsed_args: argparse.Namespace) -> None:
        wanted = parsed_args.progress or (parsed_args.wait and progress.is_terminal(stream))
        self._board = progress.board(stream) if wanted else None
        self._row = progress.Row("upload", "sending")
        self._shown = 0.0
        self.begun = False  # whether anything was sent

    def sending(self, sent: int, total: int | None) -> None:
        """So much is on its way."""
        self.begun = True
        self._row = dataclasses.replace(self._row, done=sent, total=total)
        if time.monotonic() - self._shown >= _REFRESH:
            self._show()

    def sent(self) -> None:
        """The service has it all."""
        self._row = dataclasses.replace(self._row, status="sent")
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self._board:
            self._board.show([self._row])


def send(
    client: _proxy.Proxy, image: _image.Image, file: source.Source, line: Line, *, fresh: bool
) -> None:
    """Send the file's bytes: what is missing of them, where their number is known.

    :param fresh: the image was created for this file, and has nothing of it yet.
    """
    if file.size is None and (fresh or client.upload_offset(image.id).size is None):
        client.upload_image(image.id, file.stream, progress=line.sending)
    else:
        # As long as it was announced: it may have grown since.
        client.resume_upload(image.id, file.stream, progress=line.sending, fresh=fresh, size=file.size)
    if line.begun:
        line.sent()


def check_size(client: _proxy.Proxy, image: _image.Image, file: source.Source, name: str) -> None:
    """Of a file of which nothing was sent, as the service has all.

    :raises: `CommandError` when it cannot be what the service has.
    """
    there = client.upload_offset(image.id).done
    size = _counted(file.stream, there) if file.size is None else file.size
    if size != there:
        many = "more" if size > there else str(size)
        raise exceptions.CommandError(
            f"Image {image.id} has its data already, {there} bytes, and {name} has {many}: nothing was sent. "
            "Data is never replaced: create another image."
        )


def check_unchanged(image: _image.Image, job: _job.Job, file: source.Source, name: str) -> None:
    """:raises: `CommandError` when the file changed while it was sent."""
    if file.changed:
        raise exceptions.CommandError(
            f"{name} changed while it was sent: what the service has is a mixture.\n{_anew(image, job)}"
        )


def warn_of_change(
    command: common.ShowOne, image: _image.Image, job: _job.Job, file: source.Source, name: str
) -> None:
    """Say so where some of the bytes may have been sent before the file got others."""
    some = (job.progress or {}).get("bytes_done")
    if file.found and some and file.found.st_mtime > _moment(image.created_at):
        command.say(
            f"{name} was written to after image {image.id} was created. If it is not the same any more, what "
            f"the service gets is a mixture. {_anew(image, job)}"
        )


def _moment(said: str) -> float:
    at = datetime.fromisoformat(said)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _anew(image: _image.Image, job: _job.Job) -> str:
    return (
        f"To begin anew: openstack multicloud job cancel {job.id}, then openstack multicloud image delete "
        f"{image.id}, and create it again."
    )


def _counted(stream: BinaryIO, most: int) -> int:
    """How many bytes a pipe gives; it is not read on where they are more."""
    count = 0
    while count <= most and (block := stream.read(body.BLOCK)):
        count += len(block)
    return count


@contextlib.contextmanager
def reported(
    command: common.ShowOne, image: _image.Image, job: _job.Job, file: source.Source, name: str
) -> Iterator[None]:
    """Say what there is already, and how to go on, when the bytes do not get there."""
    created = f"Image {image.id} (Job {job.id}) is there, but did not get all its bytes"
    go_on = f"To go on: openstack multicloud image upload {image.id} --file {shlex.quote(name)}"
    try:
        yield
    except KeyboardInterrupt:
        command.say(f"Interrupted. {created}. {go_on}")
        command.say(f"To give it up: openstack multicloud job cancel {job.id}")
        raise
    except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
        lost, refused = _is_lost(exc), getattr(exc, "status_code", None) in (409, 410)
        now = _asked(command, job) if lost or refused else None
        if now and lost and now.status not in ("uploading", "error", "cancelled"):
            return  # all bytes are there, only the answer got lost
        if now and (now.error or now.status in ("error", "cancelled")):
            told = columns.error(now.error) if now.error else f"its Job has ended: {now.status}"
            raise exceptions.CommandError(f"{created}: {told}") from exc
        advice = _anew(image, job) if file.changed else go_on
        raise exceptions.CommandError(f"{created}: {_reason(exc)}\n{advice}") from exc


def _is_lost(exc: Exception) -> bool:
    """Whether only the answer may be missing: the connection broke, or a proxy gave up."""
    status = getattr(exc, "status_code", None)
    return isinstance(exc, ksa_exceptions.ClientException) or status in (502, 504)


def _asked(command: common.ShowOne, job: _job.Job) -> _job.Job | None:
    with contextlib.suppress(sdk_exceptions.SDKException, ksa_exceptions.ClientException):
        return command.client.get_job(job.id)
    return None


def _reason(exc: Exception) -> str:
    if isinstance(exc, ksa_exceptions.ConnectionError):
        # It says that it could not connect, whatever went wrong; what it caught tells more.
        return f"the connection broke off: {text.plain(exc.__context__ or exc)}"
    return text.explain(exc)
