# SPDX-License-Identifier: Apache-2.0
"""S3: moto's, in this process, behind the checks that it does not make.

- Checksums are verified, those of aws-chunked trailers too (BadDigest):
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
- A bucket is its owner's alone, and is spoken to in its own region (AuthorizationHeaderMalformed):
  https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
- An upload that was completed or aborted is there no more (NoSuchUpload):
  https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html
- Checksums of parts are listed, and wanted again at the end, if the upload was begun with them (InvalidPart,
  InvalidRequest): https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompletedPart.html
- To delete what is not there leaves a marker in a bucket with versions:
  https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html

Signatures of single chunks are not done here, nor checksums that Python has no code for.
"""

import base64
import functools
import hashlib
import pathlib
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from tests.sandbox.aws import access, errors, signing, wire
from tests.sandbox.aws.state import State

LOCK = threading.RLock()
CHUNKED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "content-md5": lambda data: hashlib.md5(data).digest(),
    "x-amz-checksum-crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "x-amz-checksum-sha1": lambda data: hashlib.sha1(data).digest(),
    "x-amz-checksum-sha256": lambda data: hashlib.sha256(data).digest(),
}
NO_CHECKSUMS = {"x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"}
OF_WHOLE_OBJECTS = {"CompleteMultipartUpload", "CopyObject"}
"""Operations whose checksums are not of the request's body."""
PERMISSIONS = {
    "HeadObject": "GetObject", "HeadBucket": "ListBucket", "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket", "ListBuckets": "ListAllMyBuckets", "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject", "UploadPartCopy": "PutObject", "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject", "DeleteObjects": "DeleteObject", "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
}  # fmt: skip
"""Permissions that are not called like their operation:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html"""


def answer(state: State, request: wire.Request, signed: signing.Signed, request_id: str) -> wire.Response:
    """Do what is asked; Refused or Dropped like for any other service."""
    action, places = wire.route("s3", request)
    state.count(f"s3:{action}")
    fault = state.faults.take("s3", action, signed.region)
    if fault is not None:
        if fault.kind == "reset":
            raise errors.Dropped
        time.sleep(fault.seconds)
        if refused := fault.refusal("s3", action):
            raise refused
    access.check(state, signed.caller, "s3", _permission(action, request), signed.region)
    body = _verified(request, action)
    with LOCK:
        _check_bucket(signed, places.get("Bucket"), action)
        upload = dict(request.arguments).get("uploadId")
        if upload is not None:
            _check_upload(places["Bucket"], places["Key"], upload)
        if action == "CompleteMultipartUpload":
            _check_parts(_parts(places["Bucket"], upload), body)
        if fault is not None and fault.kind == "corrupt" and request.method == "PUT":
            body = bytes([body[0] ^ 1]) + body[1:]
        if action == "DeleteObject" and _leaves_marker(request, places):
            response = _marked(request, body, signed.caller.account, places)
        else:
            response = _moto(request, body, signed.caller.account)
        if action == "ListParts":
            response = _with_checksums(response, _parts(places["Bucket"], upload))
        if action == "HeadObject" and "x-amz-checksum-sha256" in response.headers:
            response = _with_count(response, _bucket(places["Bucket"]).keys[places["Key"]])
    if fault is not None and fault.kind == "lost":
        raise errors.Dropped
    if fault is not None and fault.kind == "corrupt" and request.method == "GET":
        response = response._replace(body=bytes([response.body[0] ^ 1]) + response.body[1:])
    return response._replace(headers=response.headers | {"x-amz-request-id": request_id})


def _permission(action: str, request: wire.Request) -> str:
    """Of a version it is another one: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html"""
    if action == "DeleteObject" and "versionId" in dict(request.arguments):
        return "DeleteObjectVersion"
    return PERMISSIONS.get(action, action)


def _leaves_marker(request: wire.Request, places: dict[str, str]) -> bool:
    """Tell whether it deletes what is not there, in a bucket with versions."""
    if "versionId" in dict(request.arguments) or places["Bucket"] not in _backends().bucket_accounts:
        return False
    bucket = _bucket(places["Bucket"])
    return bool(bucket.is_versioned and places["Key"] not in bucket.keys)


def _marked(
    request: wire.Request, body: bytes, account: str, places: dict[str, str]
) -> wire.Response:
    """Make the marker that moto makes only of what is there.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
    """
    keys, key = _bucket(places["Bucket"]).keys, places["Key"]
    partition, owner = _backends().bucket_accounts[places["Bucket"]]
    made = _backends()[owner][partition].put_object(places["Bucket"], key, b"")
    response = _moto(request, body, account)
    keys.setlist(key, [one for one in keys.getlist(key) if one is not made])
    return response


# What moto does not check


def _verified(request: wire.Request, action: str) -> bytes:
    """Return the body, its checksums verified."""
    body, claims = request.body, dict(request.headers)
    payload = request.headers.get("x-amz-content-sha256", signing.UNSIGNED)
    if payload == CHUNKED:
        body, trailers = _unchunked(body)
        claims |= trailers
        if request.headers.get("x-amz-decoded-content-length") != str(len(body)):
            raise errors.Refused("IncompleteBody", "The body is not as long as was said.")
    elif payload.startswith("STREAMING-"):
        raise errors.Refused("NotImplemented", "Signatures of single chunks are not done here.", 501)
    if action in OF_WHOLE_OBJECTS:
        return body
    for name, value in claims.items():
        if name in CHECKSUMS:
            if base64.b64encode(CHECKSUMS[name](body)).decode() != value:
                raise errors.Refused("BadDigest", f"The {name} you specified did not match what we received.")
        elif name.startswith("x-amz-checksum-") and name not in NO_CHECKSUMS:
            raise errors.Refused("NotImplemented", f"{name} is not done here.", 501)
    return body


def _unchunked(body: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the data and the trailers of an aws-chunked body."""
    parts, place = [], 0
    try:
        while True:
            end = body.index(b"\r\n", place)
            size = int(body[place:end].partition(b";")[0], 16)
            place = end + 2
            if not size:
                break
            parts.append(body[place : place + size])
            if body[place + size : place + size + 2] != b"\r\n":
                raise ValueError
            place += size + 2
        lines = body[place:].decode().splitlines()
        trailers = dict(line.split(":", 1) for line in lines if line)
    except ValueError:
        raise errors.Refused("IncompleteBody", "The body is not aws-chunked.") from None
    return b"".join(parts), {name.lower(): value.strip() for name, value in trailers.items()}


def _check_bucket(signed: signing.Signed, name: str | None, action: str) -> None:
    owner = _backends().bucket_accounts.get(name)
    if name is None or owner is None or action == "CreateBucket":
        return
    if owner[1] != signed.caller.account:
        raise errors.Refused("AccessDenied", "Access Denied", 403)
    region = _bucket(name).region_name
    if region != signed.region and action != "GetBucketLocation":
        message = f"The authorization header is malformed; the region '{signed.region}' is wrong"
        raise errors.Refused("AuthorizationHeaderMalformed", message, Region=region)


def _check_upload(bucket: str, key: str, upload: str) -> None:
    if bucket not in _backends().bucket_accounts:
        return  # moto says so
    found = _bucket(bucket).multiparts.get(upload)
    if found is None or found.key_name != key:
        raise errors.Refused("NoSuchUpload", "The specified multipart upload does not exist.", 404)


def _parts(bucket: str, upload: str | None) -> dict[int, str]:
    """Return the checksums of an upload's parts by their numbers; none if it was begun without."""
    found = _bucket(bucket).multiparts[upload] if bucket in _backends().bucket_accounts else None
    if found is None or found.metadata.get("x-amz-checksum-algorithm") != "SHA256":
        return {}
    return {
        number: base64.b64encode(hashlib.sha256(part.value).digest()).decode()
        for number, part in found.parts.items()
    }


def _check_parts(parts: dict[int, str], body: bytes) -> None:
    listed = re.findall(rb"<Part>.*?</Part>", body, re.DOTALL) if parts else []
    for one in listed:
        number = int(re.search(rb"<PartNumber>(\d+)<", one)[1])  # type: ignore[index]
        said = re.search(rb"<ChecksumSHA256>([^<]+)<", one)
        if said is None:
            message = f"The complete request must include the checksum for each part. Part {number} has none."
            raise errors.Refused("InvalidRequest", message)
        if said[1].decode() != parts.get(number):
            raise errors.Refused("InvalidPart", "One or more of the specified parts could not be found.")


def _with_checksums(response: wire.Response, parts: dict[int, str]) -> wire.Response:
    def listed(found: re.Match[bytes]) -> bytes:
        checksum = parts.get(int(found[1]))
        return found[0] + (f"<ChecksumSHA256>{checksum}</ChecksumSHA256>".encode() if checksum else b"")

    body = re.sub(rb"<PartNumber>(\d+)</PartNumber>", listed, response.body)
    return response._replace(body=body)


def _with_count(response: wire.Response, found: Any) -> wire.Response:
    """The checksum of an object that came in parts tells how many: moto says so to GET only."""
    if found.checksum_type != "COMPOSITE":
        return response
    checksum = f"{found.checksum_value}-{found.checksum_parts}"
    return response._replace(headers=response.headers | {"x-amz-checksum-sha256": checksum})


# Moto


@functools.cache
def _app() -> Any:
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.test import Client

    return Client(create_backend_app("s3"))


def _backends() -> Any:
    from moto.s3.models import s3_backends

    return s3_backends


def _bucket(name: str) -> Any:
    partition, account = _backends().bucket_accounts[name]
    return _backends()[account][partition].buckets[name]


def _moto(request: wire.Request, body: bytes, account: str) -> wire.Response:
    headers = {name: value for name, value in request.headers.items() if name != "transfer-encoding"}
    if headers.get("x-amz-content-sha256") == CHUNKED:
        headers["x-amz-content-sha256"] = signing.UNSIGNED
        headers.pop("content-encoding", None)
    headers |= {"x-moto-account-id": account, "content-length": str(len(body))}
    target = f"{request.path}?{request.query}" if request.query else request.path
    response = _app().open(
        request.path,
        method=request.method,
        query_string=request.query,
        headers=headers,
        data=body,
        base_url=f"http://{request.headers['host']}",
        environ_overrides={"RAW_URI": target, "REQUEST_URI": target},
    )
    kept = {name: value for name, value in response.headers.items() if name.lower() != "connection"}
    kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
    if request.method == "HEAD" and "Content-Length" in response.headers:
        kept["Content-Length"] = response.headers["Content-Length"]
    return wire.Response(response.status_code, kept, response.data)


def clear() -> None:
    """Forget all buckets."""
    with LOCK:
        if _app.cache_info().currsize:
            _backends().reset()


def check_object(account: str, region: str, bucket: str, key: str) -> None:
    """Refused if there is no such object of the account, or in another region."""
    with LOCK:
        owner = _backends().bucket_accounts.get(bucket)
        if owner is None or owner[1] != account or key not in _bucket(bucket).keys:
            raise errors.Refused("InvalidParameter", "Invalid S3 source location")
        if _bucket(bucket).region_name != region:
            raise errors.Refused("InvalidParameter", "The given S3 object is not local to the region")


def copy_object(account: str, region: str, bucket: str, key: str, to: pathlib.Path) -> None:
    """Write an object of the account to a file; Refused if there is none, or in another region."""
    with LOCK:
        check_object(account, region, bucket, key)
        found = _bucket(bucket).keys[key]
        with found.lock, to.open("wb") as file:
            found._value_buffer.seek(0)
            shutil.copyfileobj(found._value_buffer, file, 4 << 20)
