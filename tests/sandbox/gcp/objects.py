# SPDX-License-Identifier: Apache-2.0
"""Objects: get, list, delete, and what a new one is.

- The resource: https://cloud.google.com/storage/docs/json_api/v1/objects#resource; a composite one has no
  MD5, and a count of its components: https://cloud.google.com/storage/docs/composite-objects
- https://cloud.google.com/storage/docs/json_api/v1/objects/get, in ranges too (416 if there is nothing):
  https://cloud.google.com/storage/docs/xml-api/get-object-download; the checksums of all of it are said
- Who replaces an object has to be allowed to delete it:
  https://cloud.google.com/storage/docs/access-control/iam-json#object-methods
- Only the live generation is there: buckets have no versions here.
- Metadata are strings: https://cloud.google.com/storage/docs/metadata#custom-metadata
"""

import base64
import datetime
import pathlib
import re
import urllib.parse
from typing import Any, BinaryIO

from tests.sandbox.gcp import access, buckets, errors, names, pages, preconditions, wire
from tests.sandbox.gcp.state import Call, now, rfc3339
from tests.sandbox.gcp.store import Resource

TEXTS = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "storageClass",
)
OF_THE_SERVICE = frozenset(
    (
        "kind", "id", "selfLink", "mediaLink", "bucket", "generation", "metageneration", "timeCreated",
        "updated", "timeStorageClassUpdated", "size", "etag", "componentCount", "owner",
    )
)  # fmt: skip
"""What only the service sets: said by a client, it is ignored."""
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
METADATA_BYTES = 8 << 10


def find(call: Call, request: wire.Request, bucket: str, name: str, permission: str) -> Resource:
    """Return the object that who calls may do this with; Refused if there is none."""
    where = buckets.project(call, bucket)
    access.check_storage(call, permission, where, access.OBJECT)
    found = call.state.store.find(bucket, name)
    wanted = request.query.get("generation")
    if found is None or (
        wanted is not None and found["generation"] != str(preconditions.number("generation", wanted))
    ):
        if not access.may(call, "storage.objects.list", where):
            raise access.no_access(call.account, permission, access.OBJECT)
        raise errors.not_found(f"No such object: {bucket}/{name}")
    return found


def get(call: Call, request: wire.Request, bucket: str, name: str) -> Resource:
    found = find(call, request, bucket, name, "storage.objects.get")
    preconditions.check(request.query, found, reading=True)
    return found


def download(call: Call, request: wire.Request, bucket: str, name: str) -> wire.Response:
    """Answer the data, or a range of them."""
    found = get(call, request, bucket, name)
    size = int(found["size"])
    hashes = [
        f"{short}={found[key]}" for short, key in (("crc32c", "crc32c"), ("md5", "md5Hash")) if key in found
    ]
    headers = {
        "Content-Type": found["contentType"],
        "ETag": found["etag"],
        "Accept-Ranges": "bytes",
        "X-Goog-Hash": ",".join(hashes),
        "X-Goog-Generation": found["generation"],
        "X-Goog-Metageneration": found["metageneration"],
        "X-Goog-Stored-Content-Encoding": found.get("contentEncoding", "identity"),
        "X-Goog-Stored-Content-Length": str(size),
        "X-Goog-Storage-Class": found["storageClass"],
    }
    span = RANGE.fullmatch(request.headers.get("range", ""))
    if span is None or span[0] == "bytes=-":
        return wire.Response(200, headers, wire.Slice(_open(call, bucket, name), 0, size))
    first, end = _range(span, size)
    headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    return wire.Response(206, headers, wire.Slice(_open(call, bucket, name), first, end - first))


def _open(call: Call, bucket: str, name: str) -> BinaryIO:
    return call.state.store.file(bucket, name).open("rb")


def _range(span: re.Match[str], size: int) -> tuple[int, int]:
    if not span[1]:
        first, end = max(0, size - int(span[2])), size
    else:
        first, end = int(span[1]), min(size, int(span[2]) + 1 if span[2] else size)
    if first >= end:
        message = "The requested range cannot be satisfied."
        raise errors.Refused(416, "requestedRangeNotSatisfiable", message, location=("header", "Range"))
    return first, end


def ls(call: Call, request: wire.Request, bucket: str) -> Resource:
    access.check_storage(call, "storage.objects.list", buckets.project(call, bucket), access.BUCKET)
    query = request.query
    unknown = query.keys() - {
        "prefix", "delimiter", "pageToken", "maxResults", "fields", "projection", "alt", "prettyPrint",
        "startOffset", "endOffset",
    }  # fmt: skip
    if unknown:
        raise errors.not_done(f"A list by {', '.join(sorted(unknown))}")
    found, prefixes = call.state.store.get_file_list(
        bucket, query.get("prefix"), query.get("delimiter") or None
    )
    by_name = {one["name"]: one for one in found}
    keys = sorted(
        key
        for key in {*by_name, *prefixes}
        if key >= query.get("startOffset", "") and ("endOffset" not in query or key < query["endOffset"])
    )
    page, token = pages.cut(call.state, keys, query)
    answer: Resource = {"kind": "storage#objects"}
    if items := [by_name[key] for key in page if key in by_name]:
        answer["items"] = items
    if folders := [key for key in page if key not in by_name]:
        answer["prefixes"] = folders
    return answer | ({"nextPageToken": token} if token else {})


def delete(call: Call, request: wire.Request, bucket: str, name: str) -> None:
    found = find(call, request, bucket, name, "storage.objects.delete")
    preconditions.check(request.query, found)
    call.state.store._hard_delete_file(bucket, name)


# What becomes one


def check_new(call: Call, request: wire.Request, bucket: str, name: str) -> None:
    """Refused if who calls may not make, or replace, an object, or only under a condition that is not met."""
    where = buckets.project(call, bucket)
    access.check_storage(call, "storage.objects.create", where, access.OBJECT)
    names.check_object(name)
    found = call.state.store.find(bucket, name)
    preconditions.check(request.query, found)
    if found is not None:
        access.check_storage(call, "storage.objects.delete", where, access.OBJECT)


def described(said: Resource) -> Resource:
    """Return what a client says of a new object; Refused if it can not be said."""
    kept: Resource = {}
    for key, value in said.items():
        if key in TEXTS and isinstance(value, str):
            kept[key] = value
        elif key == "metadata":
            kept[key] = _metadata(value)
        elif key == "customTime":
            kept[key] = _time(value)
        elif key not in OF_THE_SERVICE and key not in ("name", "crc32c", "md5Hash"):
            raise errors.not_done(f"An object with {key}")
    if kept.get("storageClass", "STANDARD") not in buckets.CLASSES:
        raise errors.invalid(f"Invalid storage class: {kept['storageClass']}")
    return kept


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise errors.invalid("Invalid value for: Invalid format: metadata are strings by string")
    if sum(len(key.encode()) + len(one.encode()) for key, one in value.items()) > METADATA_BYTES:
        raise errors.invalid("The metadata of the object are larger than 8 KiB.")
    return value


def _time(value: Any) -> str:
    try:
        return rfc3339(datetime.datetime.fromisoformat(value))
    except (TypeError, ValueError):
        raise errors.invalid(f"Invalid value for customTime: {value}") from None


def keep(
    call: Call,
    bucket: str,
    name: str,
    data: pathlib.Path,
    described: Resource,
    *,
    crc32c: int,
    md5: bytes | None = None,
    components: int | None = None,
) -> Resource:
    """Make an object of a file that is complete; return its resource."""
    time, generation = rfc3339(now()), call.state.store.generation()
    path = f"/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
    media = f"{call.state.url}/download/storage/v1{path}?generation={generation}&alt=media"
    resource: Resource = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{generation}",
        "selfLink": f"{call.state.url}/storage/v1{path}",
        "mediaLink": media,
        "name": name,
        "bucket": bucket,
        "generation": generation,
        "metageneration": "1",
        "contentType": "application/octet-stream",
        "storageClass": call.state.store.get_bucket(bucket)["storageClass"],
        "size": str(data.stat().st_size),
        "crc32c": encoded(crc32c),
        "etag": base64.b64encode(generation.encode()).decode(),
        "timeCreated": time,
        "updated": time,
        "timeStorageClassUpdated": time,
    } | described
    if md5 is not None:
        resource["md5Hash"] = base64.b64encode(md5).decode()
    if components is not None:
        resource["componentCount"] = components
    call.state.count("bytes", data.stat().st_size)
    call.state.store.create_file(bucket, name, data, resource)
    return resource


def encoded(crc32c: int) -> str:
    """Return a CRC32C as Storage writes it."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()
