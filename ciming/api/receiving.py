# SPDX-License-Identifier: Apache-2.0
"""A request's body on its way to the staging area: streamed as it comes, in constant memory."""

import base64
import binascii
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

import flask
from oslo_config import cfg
from oslo_log import log

from ciming import exceptions, rpc, staging
from ciming.api import staging_area
from ciming.db import uploads

LOG = log.getLogger(__name__)

BLOCKS = (64 * 1024, 1024 * 1024)   # smallest and largest; a read waits until its block is full
COMMIT_BYTES = 32 * 1024 * 1024     # how often the row says how far we are,
COMMIT_SECONDS = 2.0                # and that the lease is still ours
AHEAD_BYTES = 32 * 1024 * 1024      # how much may have come that the disk does not have yet
DRAIN_SECONDS = 2.0                 # for what is still to come after a refusal,
DRAINS = threading.BoundedSemaphore(4)      # in so many threads at a time
QUICK_SECONDS = 0.2
CHECKSUMS = ("sha1", "md5", "sha256", "sha512")


class Incomplete(exceptions.InvalidRequest):
    """The body ended before all of it came: the client, or the line, is gone."""

    code = "upload.incomplete"


@dataclass(frozen=True)
class Checksum:
    """What a part must hash to, as tus' Upload-Checksum says it."""

    algorithm: str
    digest: bytes

    @classmethod
    def parse(cls, header: str) -> "Checksum":
        """:raises InvalidRequest: it is none, or of an algorithm that is not offered"""
        algorithm, _, encoded = header.partition(" ")
        digest = b""
        with contextlib.suppress(binascii.Error, ValueError):
            digest = base64.b64decode(encoded.strip(), validate=True)
        if algorithm not in CHECKSUMS or len(digest) != hashlib.new(algorithm).digest_size:
            raise exceptions.InvalidRequest(
                f"Write it as one of {', '.join(CHECKSUMS)}, a space, and the digest in base64.",
                code="upload.invalid_checksum",
                field="Upload-Checksum",
            )
        return cls(algorithm, digest)


class _Writer:
    """Writes an upload's file, and says from time to time how much of it is on disk.

    :param visible: say so; else the lease is kept, but the offset stays where the part began
    """

    def __init__(self, lease: uploads.Lease, file: BinaryIO, *, visible: bool = True) -> None:
        self.received = self.committed = lease.start
        self._lease = lease
        self._file = file
        self._disk = staging.Syncer(file, lease.start)
        self._visible = visible
        self._knocks = lease.size is not None
        self._room = lease.room
        self._told = (lease.start, time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()

    def write(self, block: bytes) -> None:
        """:raises CimingError: more came than may"""
        received = self.received + len(block)
        if self._lease.size is not None and received > self._lease.size:
            raise _wrong_length(self._lease.size, "more came")
        staging_area.check_size(received)
        if received > self._room:
            raise staging.no_room(received, self._room)
        staging.write_all(self._file, block)
        self.received = received
        self._disk.follow(received)
        self.sync(0 if self._due else AHEAD_BYTES)
        if self._due or self._disk.synced - self._told[0] >= COMMIT_BYTES:
            self._commit()

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._told[1] >= COMMIT_SECONDS

    def sync(self, behind: int = 0) -> None:
        """Wait until the disk is at most so many bytes behind; the lease is kept meanwhile."""
        while self.received - self._disk.synced > behind:
            self._disk.wait(self.received, QUICK_SECONDS if self._due else COMMIT_SECONDS)
            if self._due and self.received - self._disk.synced > behind:    # it takes long
                self._commit()

    def keep(self) -> None:
        """All that came is to stay."""
        self.sync()
        self.committed = self.received

    def _commit(self) -> None:
        synced = self._disk.synced
        # That the last byte is here is for uploads.complete() to say.
        if self._visible and synced != self._lease.size:
            self.committed = synced
        self._room = uploads.commit(
            self._lease, self.committed, self.received, staging_area.expiry(), staging_area.room
        )
        if self._knocks and self.committed:     # an engine may follow
            rpc.knock(self._lease.job_id)
            self._knocks = False
        self._told = (synced, time.monotonic())


def whole(lease: uploads.Lease) -> None:
    """Write the body to the staging area, whole or not at all, and hand the Job to the engines.

    :raises InvalidRequest: it is not as long as was announced, empty, or larger than any may be
    :raises Gone: the upload was given up meanwhile
    :raises StagingFull: there is no room for it
    """
    area = staging_area.get()
    try:
        with area.incoming(lease.job_id, lease.generation) as file, _Writer(lease, file) as writer:
            for block in body(cfg.CONF.api.upload_timeout):
                writer.write(block)
            if lease.size is not None and writer.received < lease.size:
                raise _wrong_length(lease.size, f"only {writer.received} came")
            if writer.received == 0:
                raise exceptions.InvalidRequest("The body is empty.", code="image.empty", field="body")
            writer.sync()
    except BaseException:
        area.discard(lease.job_id, lease.generation)
        uploads.release(lease, 0)
        raise
    try:
        uploads.complete(lease, writer.received)
    except exceptions.CimingError:      # else it may be written, and only its answer be lost
        area.discard(lease.job_id, lease.generation)
        raise


def part(lease: uploads.Lease, checksum: Checksum | None) -> int:
    """Write the body behind what came before; the offset that is reached then.

    What came of a part that is cut short is kept. Of one with a checksum, all is kept or nothing.

    :raises TooLarge: it goes beyond the announced size
    :raises ChecksumMismatch: the part is not what its sender has
    :raises Incomplete: the line broke
    :raises Gone: the upload was given up meanwhile
    """
    try:
        return _part(lease, checksum)
    except exceptions.Gone:     # whoever cleaned up after it may have come before our file
        staging_area.get().discard(lease.job_id, lease.generation)
        raise


def _part(lease: uploads.Lease, checksum: Checksum | None) -> int:
    reached = lease.start
    try:
        _refuse_too_much(lease)
        with (
            staging_area.get().incoming(lease.job_id, lease.generation, lease.start) as file,
            _Writer(lease, file, visible=checksum is None) as writer,
        ):
            try:
                _write_part(writer, checksum)
                writer.keep()
            except Incomplete:
                if checksum is None:
                    writer.keep()
                raise
            finally:
                reached = writer.committed
                file.truncate(reached)
    finally:        # the file is closed: a successor need not ask whether somebody writes it
        if reached == lease.size:
            uploads.complete(lease, reached)
            held = True
        else:
            held = uploads.release(lease, reached)
    if not held:
        raise uploads.lost(lease)
    return reached


def _refuse_too_much(lease: uploads.Lease) -> None:
    coming = flask.request.content_length or 0
    if lease.size is not None and lease.start + coming > lease.size:
        raise exceptions.TooLarge(
            f"{lease.size} bytes were announced in all, and this part would go beyond them.",
            code="upload.size_mismatch",
            field="body",
        )


def _write_part(writer: _Writer, checksum: Checksum | None) -> None:
    hasher = hashlib.new(checksum.algorithm) if checksum else None
    began = writer.received
    for block in body(min(cfg.CONF.api.upload_timeout, uploads.LEASE_MS / 1000 - COMMIT_SECONDS)):
        if hasher:
            hasher.update(block)
        writer.write(block)
    announced = flask.request.content_length
    if announced is not None and writer.received - began < announced:
        raise _cut_short()
    if checksum and hasher and hasher.digest() != checksum.digest:
        raise exceptions.ChecksumMismatch(
            f"The part has another {checksum.algorithm} than Upload-Checksum says. It was not kept: send it "
            "again.",
            field="Upload-Checksum",
        )


def _wrong_length(announced: int, came: str) -> exceptions.InvalidRequest:
    return exceptions.InvalidRequest(
        f"{announced} bytes were announced, but {came}. Nothing was kept: send the data again.",
        code="upload.size_mismatch",
        field="body",
    )


def _cut_short() -> Incomplete:
    return Incomplete("The body was cut short. Ask how far the upload is, and send the rest.", field="body")


def body(timeout: float) -> Iterator[bytes]:
    """The body as it comes. That it ends early raises nothing where its length was announced.

    :param timeout: seconds without a byte after which the client counts as gone
    :raises Incomplete: it does not go on
    """
    environ = flask.request.environ
    if "gunicorn.socket" in environ:
        environ["gunicorn.socket"].settimeout(timeout)
    size, largest = BLOCKS
    while True:
        began = time.monotonic()
        try:
            block = environ["wsgi.input"].read(size)
        except Exception as error:      # a server has many of its own for chunks that are cut or are none
            LOG.info("The body does not go on: %s", error)
            _hang_up(environ)
            raise _cut_short() from None
        if not block:
            return
        # Large blocks are cheaper, but a slow client's lease must be renewed in time.
        quick = time.monotonic() - began < QUICK_SECONDS
        size = min(size * 2, largest) if quick else BLOCKS[0]
        yield block


def drain() -> None:
    """Read on for a moment: most clients look for an answer only when all is sent."""
    if not DRAINS.acquire(blocking=False):
        _hang_up(flask.request.environ)
        return
    try:
        until = time.monotonic() + DRAIN_SECONDS
        with contextlib.suppress(Incomplete):
            for _block in body(DRAIN_SECONDS):
                if time.monotonic() > until:
                    return
    finally:
        DRAINS.release()


def _hang_up(environ: dict[str, Any]) -> None:
    """Hear no more of this connection: the server would wait for the rest of the body otherwise."""
    if "gunicorn.socket" in environ:
        with contextlib.suppress(OSError):
            # Of a socket that speaks TLS, its own shutdown() would have the answer leave in plain text.
            socket.socket.shutdown(environ["gunicorn.socket"], socket.SHUT_RD)
