# SPDX-License-Identifier: Apache-2.0
"""Image data on its way in: streamed to the staging area as it comes, in constant memory."""

import contextlib
import functools
import os
import threading
import time
import uuid
from collections.abc import Iterator

import flask
import flask_smorest
from flask.views import MethodView
from oslo_config import cfg
from oslo_log import log
from werkzeug import exceptions as http

from ciming import exceptions, rpc, staging
from ciming.api import auth, schemas, staging_area
from ciming.db import api as db
from ciming.db import uploads

LOG = log.getLogger(__name__)

blueprint = flask_smorest.Blueprint(
    "uploads", __name__, url_prefix="/v1/images", description="Image data"
)

BLOCKS = (64 * 1024, 1024 * 1024)   # smallest and largest; a read waits until its block is full
COMMIT_BYTES = 64 * 1024 * 1024     # how often the row says how far we are,
COMMIT_SECONDS = 2.0                # and that the lease is still ours
DRAIN_SECONDS = 2.0                 # for what is still to come after a refusal
QUICK_SECONDS = 0.2
OWNER = str(uuid.uuid4())           # this process

DATA = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@blueprint.route("/<string:image>/file")
class File(MethodView):
    @auth.needs("image:upload")
    @blueprint.response(204)
    @blueprint.doc(operationId="upload_image", requestBody=DATA)
    def put(self, image: str) -> None:
        """Send an Image's data in one request"""
        try:
            with _one_of_few():
                lease = _begin(image)
                with _abandoned_on_error(lease):
                    _receive(lease)
        except Exception:
            _drain()
            raise
        rpc.knock(lease.job_id)


@functools.cache
def _slots() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(cfg.CONF.api.max_uploads)


@contextlib.contextmanager
def _one_of_few() -> Iterator[None]:
    """Uploads take long: some threads are always left for everybody else."""
    if not _slots().acquire(blocking=False):
        raise exceptions.Unavailable(
            "Too many uploads are under way here. Try again later.", code="upload.too_many"
        )
    try:
        yield
    finally:
        _slots().release()


def _begin(image: str) -> uploads.Lease:
    if flask.request.mimetype != "application/octet-stream":
        raise http.UnsupportedMediaType("Image data comes as application/octet-stream.")
    # Of one's own project only: an administrator, too, sees more than they may write.
    row = db.get_image(schemas.row_id("image", image), auth.caller().project_id)
    size = flask.request.content_length
    if size == 0:
        raise exceptions.InvalidRequest("The body is empty.", code="image.empty", field="body")
    staging_area.check_size(size or 0)
    return uploads.begin(row.id, OWNER, size, staging_area.expiry(), staging_area.room)


def _receive(lease: uploads.Lease) -> None:
    """Write the body to the staging area, whole or not at all.

    :raises InvalidRequest: it is not as long as was announced, empty, or larger than any may be
    :raises StagingFull: there is no room for it
    """
    received, committed, since, room = 0, 0, time.monotonic(), lease.room
    with staging_area.get().incoming(lease.job_id, lease.generation) as file:
        for block in _body(cfg.CONF.api.upload_timeout):
            received += len(block)
            if lease.size is not None and received > lease.size:
                raise _wrong_length(lease.size, "more came")
            staging_area.check_size(received)
            if received > room:
                raise staging.no_room(received, room)
            staging.write_all(file, block)
            if received - committed >= COMMIT_BYTES or time.monotonic() - since >= COMMIT_SECONDS:
                os.fdatasync(file.fileno())
                room = uploads.commit(lease, received, staging_area.expiry(), staging_area.room)
                committed, since = received, time.monotonic()
        if lease.size is not None and received < lease.size:
            raise _wrong_length(lease.size, f"only {received} came")
        if received == 0:
            raise exceptions.InvalidRequest("The body is empty.", code="image.empty", field="body")
        os.fdatasync(file.fileno())
        uploads.complete(lease, received)


def _wrong_length(announced: int, came: str) -> exceptions.InvalidRequest:
    return exceptions.InvalidRequest(
        f"{announced} bytes were announced, but {came}. Nothing was kept: send the data again.",
        code="upload.size_mismatch",
        field="body",
    )


def _body(timeout: float) -> Iterator[bytes]:
    """The body as it comes. That it ends early raises nothing where its length was announced.

    :param timeout: seconds without a byte after which the client counts as gone
    """
    environ = flask.request.environ
    if "gunicorn.socket" in environ:
        environ["gunicorn.socket"].settimeout(timeout)
    size, largest = BLOCKS
    while True:
        began = time.monotonic()
        try:
            block = environ["wsgi.input"].read(size)
        except OSError as error:        # a chunked body that is cut ends so too
            LOG.info("The client went away: %s", error)
            raise exceptions.InvalidRequest(
                "The body was cut short. Nothing was kept: send the data again.",
                code="upload.incomplete",
                field="body",
            ) from None
        if not block:
            return
        # Large blocks are cheaper, but a slow client's lease must be renewed in time.
        quick = time.monotonic() - began < QUICK_SECONDS
        size = min(size * 2, largest) if quick else BLOCKS[0]
        yield block


@contextlib.contextmanager
def _abandoned_on_error(lease: uploads.Lease) -> Iterator[None]:
    try:
        yield
    except BaseException:
        uploads.abandon(lease)
        raise


def _drain() -> None:
    """Read on for a moment: most clients look for an answer only when all is sent."""
    until = time.monotonic() + DRAIN_SECONDS
    with contextlib.suppress(exceptions.InvalidRequest):
        for _block in _body(DRAIN_SECONDS):
            if time.monotonic() > until:
                return
