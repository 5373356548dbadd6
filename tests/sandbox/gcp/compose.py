# SPDX-License-Identifier: Apache-2.0
"""Objects of objects: https://cloud.google.com/storage/docs/json_api/v1/objects/compose.

- One to 32 of the same bucket and class, and each is there, in the generation that is asked for:
  https://cloud.google.com/storage/docs/composite-objects
- The new one may take the place of one of them. Its type is what is said, or that of the first.
"""

import os
import pathlib

import google_crc32c

from tests.sandbox.gcp import access, buckets, errors, objects, preconditions, wire
from tests.sandbox.gcp.state import Call
from tests.sandbox.gcp.store import Resource

MOST = 32
STEP = 4 << 20


def compose(call: Call, request: wire.Request, bucket: str, name: str) -> Resource:
    """Make an object of others, one after the other."""
    body = buckets.document(request)
    if unknown := body.keys() - {"kind", "destination", "sourceObjects"}:
        raise errors.not_done(f"To compose with {', '.join(sorted(unknown))}")
    kept = objects.described(body.get("destination") or {})
    with call.state.lock:
        objects.check_new(call, request, bucket, name)
        sources = _sources(call, bucket, body.get("sourceObjects"))
        opened = [call.state.store.file(bucket, one["name"]).open("rb", buffering=0) for one in sources]
    file = call.state.store.incoming()
    try:
        crc32c = 0
        with file.open("wb", buffering=0) as target:
            for source in opened:
                while count := os.copy_file_range(source.fileno(), target.fileno(), STEP, source.tell()):
                    crc32c = google_crc32c.extend(crc32c, source.read(count))
        if call.has("corrupt"):
            _flip(file)
            crc32c = google_crc32c.value(file.read_bytes())
        kept.setdefault("contentType", sources[0]["contentType"])
        components = sum(one.get("componentCount", 1) for one in sources)
        with call.state.lock:
            objects.check_new(call, request, bucket, name)
            return objects.keep(call, bucket, name, file, kept, crc32c=crc32c, components=components)
    finally:
        for source in opened:
            source.close()
        file.unlink(missing_ok=True)


def _sources(call: Call, bucket: str, said: object) -> list[Resource]:
    if not isinstance(said, list) or not said:
        raise errors.invalid("You must provide at least one source component.")
    if len(said) > MOST:
        raise errors.invalid(
            f"The number of source components provided ({len(said)}) exceeds the maximum ({MOST})."
        )
    access.check_storage(call, "storage.objects.get", buckets.project(call, bucket), access.OBJECT)
    found = [_source(call, bucket, one) for one in said]
    if len({one["storageClass"] for one in found}) > 1:
        raise errors.invalid("The source objects must have the same storage class.")
    return found


def _source(call: Call, bucket: str, said: Resource) -> Resource:
    name = said.get("name")
    if not name:
        raise errors.invalid("Required", "required")
    found = call.state.store.find(bucket, name)
    if found is None or str(said.get("generation", found["generation"])) != found["generation"]:
        raise errors.not_found(f"Object {name} (generation: {said.get('generation', 0)}) not found.")
    preconditions.check(said.get("objectPreconditions", {}), found)
    return found


def _flip(file: pathlib.Path) -> None:
    with file.open("r+b") as opened:
        first = opened.read(1)
        opened.seek(0)
        opened.write(bytes([first[0] ^ 1]) if first else b"")
