# SPDX-License-Identifier: Apache-2.0
"""A disk's archive in a bucket: sent in pieces side by side, put together there, and read again.

No piece needs a session of Google's, whose URI would be a right to write that has to be kept somewhere. A
piece is an object of its own, whose name says what is in it, so after a crash those that are there are known
by that, and by the CRC-32C and size that they must have. What is put together has to have the sum that all
pieces have together.

https://cloud.google.com/storage/docs/composite-objects, https://cloud.google.com/storage/docs/composing-objects
"""

import base64
import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c

from ciming import disk_image, exceptions, points, staging
from ciming.providers import base, pace
from ciming.providers.gcp import archive
from ciming.providers.gcp.account import Account, Refusal

AT_ONCE = 8             # pieces on their way
MOST_SOURCES = 32       # of one object that is put together
PIECE_SECONDS = 300     # in which a piece has to be there
MOST_PAGES = 10_000     # of a list: the largest disk has 9 million pieces
RANGE = 2 << 20         # bytes that are read at a time; some tens of them are in memory
GUEST = "ciming-guest"  # the digest of the disk in an archive; beside it, its CRC-32C as it has to be
SUM = "ciming-crc32c"
SIZE = "ciming-size"    # bytes of the disk
URL = re.compile(r"gs://([^/]+)/(.+)", re.DOTALL)
TYPE = "application/gzip"

Alive = Callable[[], None]


class Bucket(NamedTuple):
    account: Account
    name: str

    def blob(self, name: str) -> Any:
        return self.account.storage.bucket(self.name).blob(name)

    @property
    def asked(self) -> dict[str, Any]:
        """What goes with each call: the Target's attempts are the only retries."""
        return {"retry": None, "timeout": self.account.timeout}


def object_name(key: str) -> str:
    return f"ciming/{key}.tar.gz"


def _folder(key: str) -> str:
    return f"ciming/{key}/"


def _text(crc: int) -> str:
    """As Google writes it."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _number(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "big")


# May it be used?


NEEDED = ("storage.objects.create", "storage.objects.get", "storage.objects.list", "storage.objects.delete")


def check(place: Bucket) -> tuple[str, int]:
    """Where the bucket is, and for how many seconds there is still to be paid for what was removed from it.

    https://cloud.google.com/storage/docs/object-versioning, https://cloud.google.com/storage/docs/soft-delete

    :raises ProviderError: it is not there, may not be used, or keeps what is in it
    """
    bucket = place.account.storage.bucket(place.name)
    found = place.account.call(
        "storage.buckets.get",
        lambda: place.account.storage.get_bucket(bucket, **place.asked),
        missing=404,
    )
    if found is None:
        raise exceptions.ProviderError(
            f"{place.account.name}: the bucket {place.name} is not there. Make it, or name another one.",
            code="cloud.not_found",
        )
    allowed = place.account.call(
        "storage.buckets.testIamPermissions",
        lambda: bucket.test_iam_permissions(list(NEEDED), **place.asked),
    )
    lacking = [each for each in NEEDED if each not in allowed]
    if lacking:
        raise exceptions.ProviderError(
            f"{place.account.name}: in the bucket {place.name} there is no right to {', '.join(lacking)}.",
            code="cloud.forbidden",
        )
    keeps, seconds = place.account.call("storage.buckets.get", lambda: _kept_by(found))
    if keeps:
        raise exceptions.ProviderError(
            f"{place.account.name}: the bucket {place.name} {keeps}, so the pieces of an archive would stay "
            "in it. Name one without.",
            code="cloud.refused",
        )
    return place.account.words(found.location), seconds


def _kept_by(found: Any) -> tuple[str, int]:
    """Why a bucket lets go of nothing, or ''; and for how many seconds it can be brought back."""
    seconds = int(found.soft_delete_policy.retention_duration_seconds or 0)
    if found.retention_period or found.default_event_based_hold:
        return "has a retention policy, or holds all objects", seconds
    return "keeps versions of its objects (Object Versioning)" if found.versioning_enabled else "", seconds


# Into the bucket


def show(place: Bucket, name: str) -> Any | None:
    """What the bucket has of this name, with its metadata; None: nothing."""
    bucket = place.account.storage.bucket(place.name)
    return place.account.call(
        "storage.objects.get", lambda: _read_through(bucket.get_blob(name, **place.asked))
    )


def _read_through(found: Any | None) -> Any | None:
    """:raises ValueError: what it says of itself is none of Google's; the client looks at it late"""
    if found is not None and None in (found.size, found.generation, found.crc32c):
        raise ValueError("an object without size, generation or crc32c")
    return found


def size_of(found: Any) -> int | None:
    """Bytes of the disk in an archive of ours; None: it does not say."""
    said = str((found.metadata or {}).get(SIZE, ""))
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else None


def is_whole(found: Any, guest: str) -> bool:
    """Is it the archive of this disk, put together rightly?"""
    said = found.metadata or {}
    return bool(said.get(GUEST) == guest and said.get(SUM) == found.crc32c)


class _Sent(NamedTuple):
    name: str
    crc32: int
    length: int
    crc32c: int
    size: int
    records: list[tuple[int, bytes]]


def put(
    place: Bucket, key: str, staged: staging.Staged, marks: Mapping[str, str], transfer: base.Transfer
) -> None:
    """An archive of a staged file, whole and proven. What is there of it is not sent again.

    :param marks: metadata of the object
    """
    parts = archive.pieces(Path(staged.path), staged.virtual_size, transfer.alive)
    there = {each.name: each for each in _listed(place, _folder(key))}
    found, names = archive.Sum(), []

    def records(results: Iterable[_Sent]) -> Iterator[tuple[int, bytes]]:
        """Of all pieces, one after the other: none is kept."""
        count = 0
        for sent in results:
            found.add_plain(sent.crc32, sent.length)
            found.add_packed(sent.crc32c, sent.size)
            names.append(sent.name)
            yield from sent.records
            count += len(sent.records)
            transfer.progress(staged.size * count // (len(parts.blocks) + 1))

    with Path(staged.path).open("rb", buffering=0) as file:
        send = functools.partial(_send, place, _folder(key), there, file.fileno(), transfer.alive)
        running = pace.in_order(send, parts, transfer.alive, pace.Pace(AT_ONCE))
        with contextlib.closing(running) as results:
            guest = disk_image.digest_of(records(results))
    last = archive.end(found)
    name = f"{_folder(key)}end-{_text(google_crc32c.value(last)).translate(_IN_NAMES)}"
    found.add_packed(*_bring(place, there, name, last, transfer.alive))
    size = archive.disk_size(staged.virtual_size)
    said = {**marks, GUEST: guest, SUM: _text(found.packed), SIZE: str(size)}
    _put_together(place, key, [*names, name], said, transfer.alive)
    made = show(place, object_name(key))
    if made is None or not is_whole(made, guest):
        sum_there = place.account.words(made.crc32c) if made else ""
        what = f"{made.size} bytes, CRC-32C {sum_there}" if made else "nothing"
        clear(place, key, transfer.alive)
        raise exceptions.TransientProviderError(
            f"{place.account.name}: the archive in the bucket is {what}, but {found.size} bytes with the "
            f"CRC-32C {_text(found.packed)} were sent."
        )


_IN_NAMES = str.maketrans("+/=", "-_.")


class _There(NamedTuple):
    name: str
    crc32c: int
    size: int
    generation: int


def _listed(place: Bucket, prefix: str) -> list[_There]:
    """Objects; none in a bucket that is gone."""
    found = place.account.call(
        "storage.objects.list",
        lambda: [
            _There(each.name, _number(each.crc32c), int(each.size), int(each.generation))
            for each in _pages(place, prefix)
        ],
        missing=404,
    )
    return found or []


def _pages(place: Bucket, prefix: str) -> Iterator[Any]:
    """:raises TransientProviderError: the list does not end"""
    fields = "items(name,crc32c,size,generation),nextPageToken"
    found = place.account.storage.list_blobs(place.name, prefix=prefix, fields=fields, **place.asked)
    yield from itertools.chain.from_iterable(itertools.islice(found.pages, MOST_PAGES))
    if found.next_page_token:
        raise place.account.bad_answer("storage.objects.list")


def _send(
    place: Bucket,
    folder: str,
    there: Mapping[str, _There],
    file: int,
    alive: Alive,
    piece: archive.Piece,
) -> _Sent:
    data, records = archive.content(file, piece)
    name = folder + archive.name(piece, records)
    plain, length = archive.crc32(data), len(data)
    packed = archive.pack(piece, data)
    del data        # it need not be in memory while the other is sent
    crc, size = _bring(place, there, name, packed, alive)
    return _Sent(name, plain, length, crc, size, records)


def _bring(
    place: Bucket, there: Mapping[str, _There], name: str, data: bytes, alive: Alive
) -> tuple[int, int]:
    """Have an object with these bytes there; their CRC-32C and size."""
    crc, size, found = google_crc32c.value(data), len(data), there.get(name)
    if found is None or (found.crc32c, found.size) != (crc, size):
        alive()     # we may have slept
        _put(place, name, data, found.generation if found else 0)
    return crc, size


@points.mutation
def _put(place: Bucket, name: str, data: bytes, over: int) -> None:
    """An object over this generation, or none; with its CRC-32C, without which Google does not take it."""
    blob = place.blob(name)
    how = {"content_type": TYPE, "checksum": "crc32c", "if_generation_match": over, "retry": None}
    try:
        place.account.call(
            "storage.objects.create",
            lambda: blob.upload_from_string(data, timeout=max(PIECE_SECONDS, place.account.timeout), **how),
        )
    except Refusal as error:
        if error.http_status == 400 and "crc32c" in error.detail.lower():       # it was damaged on the way
            raise exceptions.TransientProviderError(
                error.detail, cloud_request_id=error.cloud_request_id
            ) from None
        if error.http_status != 412:        # what has this name by now is this, or the sum will tell
            raise


def _put_together(
    place: Bucket, key: str, names: Sequence[str], said: Mapping[str, str], alive: Alive
) -> None:
    """One object of all, over objects of some of them where there are too many for one step."""
    level = 0
    while len(names) > MOST_SOURCES:
        level += 1
        groups = [names[at : at + MOST_SOURCES] for at in range(0, len(names), MOST_SOURCES)]
        steps = [(f"{_folder(key)}{level}-{number:08d}", group) for number, group in enumerate(groups)]
        compose = functools.partial(_compose_step, place, alive)
        with contextlib.closing(pace.in_order(compose, steps, alive, pace.Pace(AT_ONCE))) as made:
            names = list(made)
    alive()
    _compose(place, object_name(key), names, said)


def _compose_step(place: Bucket, alive: Alive, step: tuple[str, Sequence[str]]) -> str:
    name, sources = step
    alive()
    _compose(place, name, sources, {})
    return name


@points.mutation
def _compose(place: Bucket, name: str, sources: Sequence[str], said: Mapping[str, str]) -> None:
    """Over what is there by this name: an earlier run of ours may have left it."""
    blob = place.blob(name)
    blob.content_type = TYPE
    if said:
        blob.metadata = dict(said)
    parts = [place.blob(each) for each in sources]
    try:
        place.account.call("storage.objects.compose", lambda: blob.compose(parts, **place.asked))
    except Refusal as error:
        if error.http_status != 404:
            raise
        raise exceptions.TransientProviderError(    # another of us, or who clears away: look anew
            error.detail, cloud_request_id=error.cloud_request_id
        ) from None


def renew(place: Bucket, name: str) -> None:
    """Have an object be another generation of itself; absent is fine."""
    found = show(place, name)
    if found is not None:
        _compose(place, name, [name], found.metadata or {})


# Undone


def tidy(place: Bucket, key: str, alive: Alive) -> None:
    """Remove the pieces of an archive."""
    _remove(place, [each.name for each in _listed(place, _folder(key))], alive)


def clear(place: Bucket, key: str, alive: Alive) -> None:
    """Remove an archive and its pieces; absent is fine."""
    names = [each.name for each in _listed(place, _folder(key))]
    _remove(place, [*names, object_name(key)], alive)


def _remove(place: Bucket, names: Sequence[str], alive: Alive) -> None:
    remove = functools.partial(_delete, place)
    with contextlib.closing(pace.in_order(remove, names, alive, pace.Pace(AT_ONCE))) as removed:
        for _ in removed:
            pass


@points.mutation
def _delete(place: Bucket, name: str) -> None:
    """Absent is fine."""
    blob = place.blob(name)
    place.account.call("storage.objects.delete", lambda: blob.delete(**place.asked), missing=404)


# The way back


def read(place: Bucket, name: str, offset: int) -> Iterator[bytes]:
    """The disk in an archive, from an offset on; the archive itself is read from its beginning."""
    found = show(place, name)
    if found is None:
        raise exceptions.ProviderError(
            f"{place.account.name}: gs://{place.name}/{name} is not there.", code="cloud.not_found"
        )
    unpacker = archive.Unpacker(f"gs://{place.name}/{name}")
    fetch = functools.partial(_range, place, name, int(found.generation), int(found.size))
    starts = range(0, int(found.size), RANGE)
    with contextlib.closing(pace.in_order(fetch, starts, lambda: None, pace.Pace(AT_ONCE))) as ranges:
        for block in _all(unpacker, ranges):
            if offset >= len(block):
                offset -= len(block)
            else:
                yield block[offset:]
                offset = 0


def _all(unpacker: archive.Unpacker, ranges: Iterator[bytes]) -> Iterator[bytes]:
    for data in ranges:
        yield from unpacker.feed(data)
    yield from unpacker.end()


def size_of_disk(place: Bucket, found: Any) -> int:
    """Bytes of the disk in an archive, of which no more is read than is needed.

    :raises ProviderError: it is none
    """
    unpacker = archive.Unpacker(f"gs://{place.name}/{found.name}")
    for start in range(0, int(found.size), RANGE):
        data = _range(place, found.name, int(found.generation), int(found.size), start)
        for _ in unpacker.feed(data):
            break
        if unpacker.size is not None:
            return unpacker.size
    list(unpacker.end())
    raise AssertionError


def _range(place: Bucket, name: str, generation: int, size: int, start: int) -> bytes:
    blob = place.account.storage.bucket(place.name).blob(name, generation=generation)
    end = min(start + RANGE, size)
    data = _Room(place.account, end - start)
    place.account.call(
        "storage.objects.get",
        lambda: blob.download_to_file(
            data, start=start, end=end - 1, raw_download=True, checksum=None, **place.asked
        ),
    )
    if data.tell() != end - start:
        raise exceptions.TransientProviderError(
            f"{place.account.name}: of gs://{place.name}/{name} came {data.tell()} bytes, not {end - start}."
        )
    return data.getvalue()


class _Room(io.BytesIO):
    """For so many bytes: who is asked for a range may answer without end."""

    def __init__(self, account: Account, size: int) -> None:
        super().__init__()
        self._account, self._size = account, size

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._size:
            raise self._account.bad_answer("storage.objects.get")
        return super().write(data)

