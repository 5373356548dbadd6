# SPDX-License-Identifier: Apache-2.0
"""Image data: by PUT in one request, or resumable by tus 1.0.0 (https://tus.io/protocols/resumable-upload)."""

import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import flask
import flask_smorest
from flask.views import MethodView
from oslo_config import cfg
from werkzeug import exceptions as http
from werkzeug import http as werkzeug_http

from ciming import context, exceptions, rpc
from ciming.api import auth, document, limits, receiving, schemas, staging_area
from ciming.db import api as db
from ciming.db import jobs, models, uploads

blueprint = flask_smorest.Blueprint(
    "uploads", __name__, url_prefix="/v1/images", description="Image data"
)

OWNER = str(uuid.uuid4())           # this process
TUS = "1.0.0"
TUS_METHODS = ("HEAD", "PATCH", "DELETE")
TUS_EXTENSIONS = ("checksum", "expiration", "termination")
OCTETS = "application/octet-stream"
PART = "application/offset+octet-stream"
LARGEST = 2**63 - 1

_LOCK = threading.Lock()
_taken: Counter[str | None] = Counter()     # places for uploads in this process, by project


def _body(content_type: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {"required": True, "content": {content_type: {"schema": schema}}}


@blueprint.route("/<string:image>/file")
class File(MethodView):
    @auth.needs("image:upload")
    @blueprint.response(204)
    @blueprint.doc(operationId="upload_image", requestBody=_body(OCTETS))
    def put(self, image: str) -> None:
        """Send an Image's data in one request

        Whole or not at all. It starts from byte 0, whatever came before in parts.
        """
        with _one_of_few():
            row = _own(image)
            _require_type(OCTETS)
            if "Content-Range" in flask.request.headers:
                raise exceptions.InvalidRequest(
                    "PUT takes the whole data. Parts are sent by PATCH.",
                    code="upload.invalid_header",
                    field="Content-Range",
                )
            size = flask.request.content_length
            if size == 0:
                raise exceptions.InvalidRequest("The body is empty.", code="image.empty", field="body")
            staging_area.check_size(size or 0)
            limits.check(row.project_id, staged=size or row.size)
            lease = _begin(row.id, size)
            receiving.whole(lease)
        rpc.knock(lease.job_id)

    @auth.public
    @blueprint.response(204, headers=document.UPLOAD_OPTIONS)
    @blueprint.doc(operationId="show_upload_options", security=[])
    def options(self, image: str) -> flask.Response:
        """Tell what of tus is offered"""
        schemas.row_id("image", image)
        response = flask.current_app.make_default_options_response()
        response.status_code = 204
        response.headers.update(
            {
                "Tus-Version": TUS,
                "Tus-Extension": ",".join(TUS_EXTENSIONS),
                "Tus-Max-Size": str(cfg.CONF.staging.max_image_size),
                "Tus-Checksum-Algorithm": ",".join(receiving.CHECKSUMS),
            }
        )
        return response

    @auth.needs("image:upload")
    @blueprint.response(200, headers=document.UPLOAD_STATE)
    @blueprint.doc(operationId="show_upload", parameters=[document.ASKED_TUS])
    def head(self, image: str) -> flask.Response:
        """Tell how far an upload is

        `Upload-Offset` bytes of `Upload-Length` are here: go on from there.
        """
        _require_tus()
        return _answer(200, uploads.state(_own(image)))

    @auth.needs("image:upload")
    @blueprint.response(204, headers=document.UPLOAD_STATE)
    @blueprint.doc(
        operationId="continue_upload", requestBody=_body(PART), parameters=document.ASKED_PART
    )
    def patch(self, image: str) -> flask.Response:
        """Send the next part of an Image's data

        With the last byte the Job goes on. A part that is cut short is kept as far as it came; one with
        an `Upload-Checksum` only if all of it came and is right.
        """
        with _one_of_few():
            _require_tus()
            row = _own(image)
            _require_type(PART)
            offset, length = _number("Upload-Offset"), _number("Upload-Length", optional=True)
            if offset is None:
                raise _not_a_number("Upload-Offset")
            header = flask.request.headers.get("Upload-Checksum")
            checksum = receiving.Checksum.parse(header) if header is not None else None
            if length == 0:
                raise exceptions.InvalidRequest(
                    "An image has at least one byte.", code="image.empty", field="Upload-Length"
                )
            if length is not None and length > cfg.CONF.staging.max_image_size:
                raise _too_large("Upload-Length")
            if offset == 0:     # room is reserved with the first byte
                limits.check(row.project_id, staged=length or row.size)
            lease = _begin(row.id, length, offset)
            reached = receiving.part(lease, checksum)
        if reached == lease.size:
            rpc.knock(lease.job_id)
        return _answer(204, uploads.State(reached, lease.size, staging_area.expiry()))

    @auth.needs("image:upload")
    @blueprint.response(204)
    @blueprint.doc(operationId="terminate_upload", parameters=[document.ASKED_TUS])
    def delete(self, image: str) -> None:
        """Give an unfinished upload up

        Its Job ends as `cancelled`, and what came is removed.
        """
        _require_tus()
        row = _own(image)
        if flask.request.content_length or flask.request.headers.get("Transfer-Encoding"):
            raise exceptions.InvalidRequest("A DELETE has no body.", field="body")
        job_id = jobs.terminate(row.id)
        context.about(job_id)
        rpc.knock(job_id)


@blueprint.after_request
def _speak_tus(response: flask.Response) -> flask.Response:
    """Every answer to a tus client names the protocol; a refused version, those there are."""
    if flask.request.method in (*TUS_METHODS, "OPTIONS"):
        response.headers["Tus-Resumable"] = TUS
        response.headers["Cache-Control"] = "no-store"
    if response.status_code == 412:
        response.headers["Tus-Version"] = TUS
    return response


def _answer(status: int, state: uploads.State) -> flask.Response:
    response = flask.Response(status=status)
    response.headers["Upload-Offset"] = str(state.offset)
    if state.size is None:
        response.headers["Upload-Defer-Length"] = "1"
    else:
        response.headers["Upload-Length"] = str(state.size)
    if state.expires_at and state.offset != state.size:
        expires = datetime.fromtimestamp(state.expires_at / 1000, UTC)
        response.headers["Upload-Expires"] = werkzeug_http.http_date(expires)
    return response


def _begin(image_id: str, size: int | None, offset: int | None = None) -> uploads.Lease:
    until, area = staging_area.expiry(), staging_area.get()
    lease = uploads.begin(
        image_id, OWNER, size, until, staging_area.room, marker=area.marker, offset=offset
    )
    context.about(lease.job_id)
    return lease


def _own(image: str) -> models.Image:
    """Of one's own project only: an administrator, too, sees more than they may write."""
    return db.get_image(schemas.row_id("image", image), auth.caller().project_id)


def _require_tus() -> None:
    said = flask.request.headers.get("Tus-Resumable")
    if said != TUS:
        raise exceptions.PreconditionFailed(f"Tus-Resumable must be {TUS}.", field="Tus-Resumable")


def _require_type(wanted: str) -> None:
    if flask.request.mimetype != wanted:
        raise http.UnsupportedMediaType(f"Image data comes here as {wanted}.")
    if flask.request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise http.UnsupportedMediaType("Image data is taken as it comes: leave Content-Encoding out.")


def _number(header: str, *, optional: bool = False) -> int | None:
    said = flask.request.headers.get(header)
    if said is None and optional:
        return None
    if said is None or not (said.isascii() and said.isdigit()) or len(said) > 19 or int(said) > LARGEST:
        raise _not_a_number(header)
    return int(said)


def _not_a_number(header: str) -> exceptions.InvalidRequest:
    return exceptions.InvalidRequest(
        f"{header} must be a number of bytes.", code="upload.invalid_header", field=header
    )


def _too_large(field: str) -> exceptions.TooLarge:
    return exceptions.TooLarge(
        f"An image may have at most {cfg.CONF.staging.max_image_size} bytes.", field=field
    )


@contextlib.contextmanager
def _one_of_few() -> Iterator[None]:
    """Uploads take long: some threads are always left for other calls, and some places for other projects."""
    project_id, most = auth.caller().project_id, cfg.CONF.api.max_uploads
    with _LOCK:
        if _taken.total() >= most:
            raise _too_many("Too many uploads are under way here.")
        if _taken[project_id] >= min(cfg.CONF.api.max_project_uploads, max(1, most - 1)):
            raise _too_many("Too many uploads of your project are under way here.")
        _taken[project_id] += 1
    try:
        yield
    finally:
        with _LOCK:
            _taken[project_id] -= 1
            if not _taken[project_id]:
                del _taken[project_id]


def _too_many(what: str) -> exceptions.Unavailable:
    return exceptions.Unavailable(f"{what} Try again later.", code="upload.too_many")
