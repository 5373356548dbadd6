# SPDX-License-Identifier: Apache-2.0
"""What of Google Cloud needs no Google: the archive, names of things, and what refusals mean."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import re
import subprocess
import tarfile
import textwrap
import time
import tracemalloc
import urllib.parse
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import google_crc32c
import hypothesis
import pytest
import requests
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from google.api_core import exceptions as google_exceptions
from google.auth import exceptions as auth_exceptions
from google.cloud import compute_v1
from google.protobuf import json_format
from hypothesis import strategies
from oslo_config import cfg

from ciming import disk_image, egress, exceptions, staging
from ciming.configs import gcp as config
from ciming.providers import base, pace
from ciming.providers.gcp import account, archive, images, metadata, objects
from ciming.providers.gcp import provider as door

BLOCK, GIB = disk_image.BLOCK, archive.GIB
MARKS = {"ciming-image": "i", "ciming-target": "t"}
DATA, ZEROS = random.Random(0).randbytes(BLOCK), bytes(archive.PIECE)


def spec(**said: Any) -> base.ImageSpec:
    return base.ImageSpec("some-id", **{"name": "image", "properties": {"architecture": "x86_64"}, **said})


# The archive


def make_disk(path: pathlib.Path, size: int, indices: Iterable[int]) -> pathlib.Path:
    """A sparse file with data in these blocks, all of them other ones."""
    with path.open("wb") as file:
        for index in indices:
            file.seek(index * BLOCK)
            file.write(b"%d " % index + DATA[: BLOCK - 32])
        file.truncate(size)
    return path


def packed(disk: pathlib.Path, numbers: Sequence[int] | None = None) -> list[bytes]:
    """All pieces of a disk's archive, made in this order, and the end."""
    size = disk.stat().st_size
    parts = archive.pieces(disk, size)
    made: dict[int, bytes] = {}
    plain: dict[int, bytes] = {}
    with disk.open("rb", buffering=0) as file:
        for number in numbers or range(len(parts)):
            plain[number] = bytes(archive.content(file.fileno(), parts[number])[0])
            made[number] = archive.pack(parts[number], plain[number])
    found = archive.Sum()
    for number in range(len(parts)):
        found.add_plain(archive.crc32(plain[number]), len(plain[number]))
        found.add_packed(google_crc32c.value(made[number]), len(made[number]))
    last = archive.end(found)
    found.add_packed(google_crc32c.value(last), len(last))
    whole = [*(made[number] for number in range(len(parts))), last]
    assert found.packed == google_crc32c.value(b"".join(whole))
    assert found.size == sum(map(len, whole))
    return whole


def write(path: pathlib.Path, blocks: Iterable[bytes]) -> pathlib.Path:
    """Blocks as a sparse file."""
    with path.open("wb") as file:
        for block in blocks:
            if block != ZEROS[: len(block)]:
                file.write(block)
            else:
                file.seek(len(block), os.SEEK_CUR)
        file.truncate()
    return path


def same(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Do they have the same data?"""
    return list(disk_image.blocks(one)) == list(disk_image.blocks(other))


DISKS = {
    "empty": (GIB, []),
    "first": (GIB, [0]),
    "last": (GIB, [GIB // BLOCK - 1]),
    "in a row": (GIB, range(40)),
    "4 runs": (GIB, range(0, 6, 2)),
    "5 runs": (GIB, range(0, 8, 2)),
    "25 runs": (GIB, range(0, 48, 2)),
    "26 runs": (GIB, range(0, 50, 2)),
    "46 runs": (GIB, range(0, 90, 2)),
    "47 runs": (GIB, range(0, 92, 2)),
    "9 GiB": (9 * GIB, [0, 9 * GIB // BLOCK - 1]),
}


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    return make_disk(tmp_path / "disk", *DISKS[request.param])


def test_tar_unpacks_it(disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.tar.gz").write_bytes(b"".join(packed(disk)))
    told = subprocess.run(
        ["tar", "-xvSzf", "disk.tar.gz"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (told.stdout, told.stderr) == ("disk.raw\n", "")
    assert (tmp_path / "disk.raw").stat().st_size == disk.stat().st_size
    assert same(tmp_path / "disk.raw", disk)


@pytest.mark.parametrize("size", [8 * GIB - BLOCK, 8 * GIB, 64 << 40])
def test_numbers_that_octal_digits_are_too_short_for(size: int) -> None:
    """Python's own reader sees the same."""
    runs = [(BLOCK, BLOCK), (3 * BLOCK, size - 3 * BLOCK)]
    header = archive._header([*runs, (size, 0)], size)
    with tarfile.open(fileobj=io.BytesIO(header)) as tar:
        found = tar.next()
    assert found is not None
    assert (found.name, found.type, found.size) == ("disk.raw", tarfile.GNUTYPE_SPARSE, size)
    seen: Any = found.sparse
    assert seen[:2] == runs
    assert archive._value(header[124:136]) == size - 2 * BLOCK


def test_so_do_we(disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """However it is cut."""
    data = b"".join(packed(disk))
    assert unpacked([data], disk.stat().st_size, disk)
    if disk.stat().st_size == GIB:
        cuts = sorted(random.Random(1).sample(range(len(data)), 20))
        parts = [data[at:to] for at, to in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert unpacked(parts, GIB, disk)


def unpacked(parts: Iterable[bytes], size: int, disk: pathlib.Path) -> bool:
    """Whether it is this disk."""
    unpacker = archive.Unpacker("the archive")
    found = write(disk.with_name("unpacked"), feed(unpacker, parts))
    assert unpacker.size == found.stat().st_size == size
    return same(found, disk)


def feed(unpacker: archive.Unpacker, parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield from unpacker.feed(part)
    yield from unpacker.end()


def test_byte_by_byte(tmp_path: pathlib.Path) -> None:
    """Of a small disk, the map in several blocks."""
    size = 48 << 10
    runs = [*((at * 1024, 512) for at in range(40)), (size, 0)]
    plain = archive._header(runs, size) + DATA[: 40 * 512]
    tar = gzip.compress(plain + bytes(1024 + -len(plain) % 10240))
    unpacker = archive.Unpacker("the archive")
    found = b"".join(feed(unpacker, cut(tar, 1)))
    expected = bytearray(size)
    for number, (offset, count) in enumerate(runs):
        expected[offset : offset + count] = DATA[number * 512 :][:count]
    assert found == expected


def test_it_is_one_gzip_stream(disk: pathlib.Path) -> None:
    """That each piece ends in bytes does not make it several."""
    data = b"".join(packed(disk))
    stream = zlib.decompressobj(31)
    for at in range(0, len(data), 1 << 20):
        stream.decompress(data[at : at + (1 << 20)])
    assert stream.eof and not stream.unused_data
    assert data[:4] == b"\x1f\x8b\x08\0" and data[4:8] == bytes(4)


def test_it_is_always_the_same(tmp_path: pathlib.Path) -> None:
    """Whichever piece is made first, and whatever the file's own time."""
    indices = range(0, 100, 2)
    one = make_disk(tmp_path / "one", GIB, indices)
    count = len(archive.pieces(one, GIB))
    assert count > 3
    other = make_disk(tmp_path / "other", GIB, indices)
    os.utime(other, (0, 0))
    assert packed(one) == packed(other, list(reversed(range(count))))


def test_pieces(tmp_path: pathlib.Path) -> None:
    """Each fits into one request, is known by what is in it, and has each block once."""
    disk = make_disk(tmp_path / "disk", GIB, range(0, 100, 2))
    parts = archive.pieces(disk, GIB)
    assert [index for part in parts for index in part.blocks] == list(range(0, 100, 2))
    with disk.open("rb", buffering=0) as file:
        contents = [archive.content(file.fileno(), part) for part in parts]
    noise = random.Random(2).randbytes(archive.PIECE)
    assert len(archive.pack(parts[1], noise)) < 8 << 20     # what Google's client sends in one
    names = [archive.name(part, records) for part, (_, records) in zip(parts, contents, strict=True)]
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"\d{8}-[0-9a-f]{32}", name) for name in names)
    records = [record for _, found in contents for record in found]
    assert disk_image.digest_of(records) == disk_image.digest_of(
        (index, hashlib.sha256(data).digest()) for index, data in disk_image.blocks(disk)
    )
    changed = parts[1]._replace(blocks=[each + 1 for each in parts[1].blocks])
    moved = [(index + 1, digest) for index, digest in contents[1][1]]
    assert archive.name(changed, moved) != names[1]


def test_pieces_of_a_large_disk_take_little_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """It has 2 million blocks to the TiB: what is kept of each until the end counts."""
    count = 40_000
    monkeypatch.setattr(disk_image, "blocks", lambda _path: ((index, b"") for index in range(count)))
    monkeypatch.setattr(objects, "_listed", lambda *_: [])
    monkeypatch.setattr(objects, "_put", lambda *_: None)
    monkeypatch.setattr(archive, "content", lambda _file, piece: (piece.head, some_records(piece)))
    peaks: list[int] = []

    def together(*_: Any) -> None:
        peaks.append(tracemalloc.get_traced_memory()[1])
        raise exceptions.Interrupted("that will do")

    monkeypatch.setattr(objects, "_put_together", together)
    file = tmp_path / "disk"
    file.touch()
    size = count * BLOCK
    staged = staging.StagedFile(str(file), "raw", size, size, {})
    tracemalloc.start()
    try:
        with pytest.raises(exceptions.Interrupted):
            objects.put(None, "key", staged, {}, Nobody())      # type: ignore[arg-type]
    finally:
        tracemalloc.stop()
    assert peaks[0] < 120 * count


def some_records(piece: archive.Piece) -> list[tuple[int, bytes]]:
    return [(index, index.to_bytes(32)) for index in piece.blocks]


class Nobody:
    """Asks for nothing, and is told nothing."""

    def alive(self) -> None:
        """Goes on."""

    def progress(self, count: int) -> None:
        """Has come so far."""


def test_end_of_a_disk_that_is_not_whole(tmp_path: pathlib.Path) -> None:
    """It is grown by zeros to whole GiB."""
    disk = tmp_path / "disk"
    disk.write_bytes(DATA[:1000])
    assert unpacked([b"".join(packed(disk))], GIB, disk)


@pytest.mark.parametrize(
    ("size", "there"), [(0, GIB), (1, GIB), (GIB, GIB), (GIB + 1, 2 * GIB), (64 << 40, 64 << 40)]
)
def test_disk_size(size: int, there: int) -> None:
    assert archive.disk_size(size) == there


@hypothesis.given(strategies.binary(max_size=300), strategies.binary(max_size=5000))
def test_crc32c_of_both(one: bytes, other: bytes) -> None:
    both = archive.crc32c_of_both(google_crc32c.value(one), google_crc32c.value(other), len(other))
    assert both == google_crc32c.value(one + other)


@hypothesis.given(strategies.integers(0, 2**32 - 1), strategies.integers(0, 1 << 62))
def test_crc32c_of_what_is_too_large_to_have(one: int, size: int) -> None:
    """Zeros in two steps are as in one."""
    half, rest = divmod(size, 2)
    in_one = archive.crc32c_of_both(one, 0, size)
    assert archive.crc32c_of_both(archive.crc32c_of_both(one, 0, half), 0, half + rest) == in_one


# Archives of others


def tar_of(path: pathlib.Path, *flags: str, members: Sequence[str] = ("disk.raw",)) -> bytes:
    command = ["tar", "-cf", "-", *flags, *members]
    return subprocess.run(command, cwd=path, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "flags",
    [
        ("--format=oldgnu",),
        ("--format=oldgnu", "-S"),
        ("--format=gnu", "-S"),
        ("--format=gnu", "-b1"),
        ("--format=gnu", "-b2000"),
        ("--format=ustar",),
        ("--format=v7",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("member", ["disk.raw", "./disk.raw"])
def test_of_tar(tmp_path: pathlib.Path, flags: tuple[str, ...], member: str) -> None:
    make_disk(tmp_path / "disk.raw", 64 << 20, [0, 9, *range(20, 90, 2)])
    data = gzip.compress(tar_of(tmp_path, *flags, members=[member]), 1)
    assert unpacked([data], 64 << 20, tmp_path / "disk.raw")
    assert unpacked([data, bytes(500)], 64 << 20, tmp_path / "disk.raw")


def plain(size: int = 8 * 512, *, name: bytes = b"disk.raw", **more: Any) -> bytes:
    """A tar of one member, or its beginning."""
    info = tarfile.TarInfo(name.decode())
    info.size = size
    for each, value in more.items():
        setattr(info, each, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse(runs: Sequence[tuple[int, int]], size: int) -> bytes:
    return archive._header(runs, size)


def changed(header: bytes, at: int, text: bytes) -> bytes:
    """With another field, and the sum of that."""
    made = bytearray(header)
    made[at : at + len(text)] = text
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    return bytes(made)


def two_members() -> bytes:
    return plain() + DATA[: 8 * 512] + plain(name=b"other") + DATA[: 8 * 512] + bytes(1024)


WHOLE = plain() + DATA[: 8 * 512] + bytes(10240 - 9 * 512)
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "ends early"),
    "not gzip": (WHOLE, "not gzipped"),
    "zip": (b"PK\3\4" + bytes(100), "not gzipped"),
    "nothing in gzip": (gzip.compress(b""), "ends early"),
    "noise in gzip": (gzip.compress(DATA), "first member"),
    "other name": (gzip.compress(plain(name=b"disk.img") + bytes(8192)), "first member"),
    "a path": (gzip.compress(plain(name=b"../disk.raw") + bytes(8192)), "first member"),
    "a link": (gzip.compress(plain(0, type=b"2", linkname="/etc/passwd") + bytes(8192)), "first member"),
    "wrong sum": (gzip.compress(WHOLE.replace(b"disk.raw", b"disk.rax", 1)), "first member"),
    "pax": (gzip.compress(plain(0, type=b"x") + bytes(8192)), "first member"),
    "two members": (gzip.compress(two_members()), "more in it than disk.raw"),
    "empty": (gzip.compress(plain(0) + bytes(1024)), "a disk of 0 bytes"),
    "no number": (gzip.compress(changed(plain(), 124, b"99999999999\0") + bytes(8192)), "a disk of 0 bytes"),
    "too large": (gzip.compress(plain(archive.LARGEST + 1) + bytes(8192)), "a disk of"),
    "truncated": (gzip.compress(WHOLE)[:-300], "ends early"),
    "without its sum": (gzip.compress(WHOLE)[:-8], "ends early"),
    "wrong sum of gzip": (gzip.compress(WHOLE)[:-8] + bytes(8), "damaged"),
    "short": (gzip.compress(plain() + bytes(512)), "ends early"),
    "two streams": (gzip.compress(WHOLE[:5000]) + gzip.compress(WHOLE[5000:]), "follows its gzip stream"),
    "backwards": (
        gzip.compress(sparse([(4096, 512), (0, 512), (8192, 0)], 8192) + bytes(10240)),
        "contradicts itself",
    ),
    "overlapping": (
        gzip.compress(sparse([(0, 1024), (512, 512), (8192, 0)], 8192) + bytes(10240)),
        "contradicts itself",
    ),
    "behind the end": (gzip.compress(sparse([(0, 512), (8192, 512)], 8192) + bytes(10240)), "contradicts"),
    "other length": (
        gzip.compress(changed(sparse([(0, 512), (8192, 0)], 8192), 124, b"00000002000\0") + bytes(10240)),
        "contradicts itself",
    ),
    "of 2^90 bytes": (
        gzip.compress(changed(sparse([(0, 512)], 512), 483, b"\x80" + b"\xff" * 11) + bytes(10240)),
        "a disk of",
    ),
    "unending map": (
        gzip.compress(
            sparse([(at, 0) for at in range(5)], 512)[:512] + (bytes(504) + b"\1" + bytes(7)) * (1 << 16), 1
        ),
        "map is too large",
    ),
    "bomb behind the disk": (gzip.compress(WHOLE + bytes(1 << 26), 1), "end is too long"),
}


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("parts", [1, 100])
def test_broken(kind: str, parts: int) -> None:
    data, why = BROKEN[kind]
    step = len(data) // parts + 1
    with pytest.raises(exceptions.ProviderError, match=why) as refused:
        for _ in feed(archive.Unpacker("gs://bucket/its.tar.gz"), cut(data, step)):
            pass
    assert refused.value.code == "image.broken"
    assert "gs://bucket/its.tar.gz" in refused.value.detail


def members(count: int) -> bytes:
    """As many streams as there is room for, of one byte each."""
    return gzip.compress(b"d") * count


def entries(count: int) -> bytes:
    """A map with as many runs as there is room for."""
    return gzip.compress(sparse([(0, 0)] * (count - 1) + [(512, 0)], 512) + bytes(10240), 1)


@pytest.mark.parametrize(
    "data",
    [gzip.compress(bytes(1 << 28), 1), members(1 << 17), entries(200_000)],
    ids=["bomb", "members", "map"],
)
def test_little_memory_and_time(data: bytes) -> None:
    """Whatever it is."""
    unpacker = archive.Unpacker("the archive")
    tracemalloc.start()
    since = time.monotonic()
    with contextlib.suppress(exceptions.ProviderError):
        sum(map(len, feed(unpacker, [data])))
    spent, (_, most) = time.monotonic() - since, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 128 << 20 and spent < 30


def test_bomb_in_the_disk_comes_in_small_blocks() -> None:
    size = 1 << 28
    data = gzip.compress(plain(size) + bytes(size + 1024), 1)
    blocks = feed(archive.Unpacker("the archive"), [data])
    assert max(map(len, blocks)) <= archive.PIECE


# Names of things

IDS = strategies.uuids().map(str)
KEYS = strategies.uuids().map(lambda key: f"-{str(key)[:8]}")


@hypothesis.given(strategies.text(max_size=300), IDS, strategies.just("") | KEYS)
def test_names_are_legal_and_say_whose_they_are(wanted: str, image_id: str, suffix: str) -> None:
    made = images.name(wanted, image_id, suffix)
    assert re.fullmatch(images.NAME, made) and len(made) <= images.LONGEST_NAME
    assert images.identity(made) == image_id


def test_names_show_what_was_wanted() -> None:
    made = str(uuid.UUID(int=1))
    assert images.name("Debian 12 (cloud)", made) == f"debian-12-cloud-{'0' * 31}1"
    assert images.name("12", made) == f"image-12-{'0' * 31}1"
    assert images.name("ü", made).startswith("image-")
    assert images.name("a", made, "-12345678") != images.name("a", made)


@pytest.mark.parametrize("name", ["debian-12", "a" * 63, "x-" + "0" * 31, f"1-{'0' * 32}", f"a-{'0' * 32}-1"])
def test_names_of_others(name: str) -> None:
    assert images.identity(name) is None


@pytest.mark.parametrize(
    ("ref", "named"),
    [
        ("projects/project-1/global/images/an-image", ("project-1", "an-image")),
        ("projects/example.com:project-1/global/images/a", ("example.com:project-1", "a")),
        ("https://www.googleapis.com/compute/v1/projects/project-1/global/images/a", ("project-1", "a")),
        ("https://compute.googleapis.com/compute/v1/projects/project-1/global/images/a", ("project-1", "a")),
        ("projects/project-1/global/images/a/b", None),
        ("projects/project-1/global/images/a\n", None),
        ("projects/project-1/global/images/../a", None),
        ("projects/a/b/global/images/a", None),
        ("an-image", None),
    ],
)
def test_refs(ref: str, named: tuple[str, str] | None) -> None:
    assert images.parse(ref) == named


# What is said of it


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"architecture": "x86_64"}, {"architecture": "X86_64"}),
        ({"architecture": "AMD64"}, {"architecture": "X86_64"}),
        ({}, {}),
        (
            {"architecture": "aarch64"},
            {
                "architecture": "ARM64",
                "guest_os_features": [{"type_": "GVNIC"}, {"type_": "UEFI_COMPATIBLE"}],
            },
        ),
        (
            {"hw_firmware_type": "uefi", "hw_scsi_model": "virtio-scsi", "hw_mem_encryption": "True"},
            {
                "guest_os_features": [
                    {"type_": "UEFI_COMPATIBLE"},
                    {"type_": "VIRTIO_SCSI_MULTIQUEUE"},
                    {"type_": "SEV_CAPABLE"},
                ]
            },
        ),
        ({"hw_firmware_type": "bios", "hw_scsi_model": "lsilogic", "hw_mem_encryption": "false"}, {}),
    ],
)
def test_fields(said: dict[str, str], told: dict[str, Any]) -> None:
    assert metadata.fields(spec(properties=said), (), "google") == {"description": "image", **told}


def test_features_are_said_once() -> None:
    said = {"hw_firmware_type": "uefi", "architecture": "arm64"}
    found = metadata.fields(spec(properties=said), ("GVNIC", "WINDOWS"), "google")["guest_os_features"]
    assert [each["type_"] for each in found] == ["GVNIC", "WINDOWS", "UEFI_COMPATIBLE"]


def test_architecture_that_is_unknown() -> None:
    with pytest.raises(exceptions.ProviderError, match="--property architecture=VALUE") as refused:
        metadata.fields(spec(properties={"architecture": "s390x"}), (), "google")
    assert refused.value.code == "image.architecture_unknown"


def test_every_row_goes_there_and_back() -> None:
    """What it becomes there comes back as what was said first of those that become it."""
    for row in metadata.PROPERTIES:
        for theirs, ours in row.values.items():
            first = next(each for each, value in row.values.items() if value == ours)
            image = metadata.fields(spec(properties={row.glance: theirs}), (), "google")
            assert metadata.properties(image | {"labels": {"ciming-image": "i"}})[row.glance] == first


def test_description() -> None:
    """The name, on a line of its own, and what was said."""
    image = spec(name="größe\n1", properties={"description": "a\ndisk"})
    told = {**metadata.fields(image, (), "google"), "name": "its-name"}
    assert told["description"] == "größe1\na\ndisk"
    ours = {**told, "labels": {"ciming-image": "i"}}
    assert (metadata.name(ours), metadata.properties(ours)) == ("größe1", {"description": "a\ndisk"})
    assert metadata.name(told) == "its-name"
    assert metadata.properties(told) == {"description": "größe1\na\ndisk"}
    long = metadata.fields(spec(properties={"description": "d" * 5000}), (), "google")
    assert len(long["description"]) == metadata.LONGEST_TEXT


def test_labels() -> None:
    said = {
        "os_distro": "debian", "os_hash_algo": "x", "os_hidden": "true", "hw_disk_bus": "scsi",
        "architecture": "x86_64", "os_version": "12.1", "os_type": "v" * 64,
    }  # fmt: skip
    image = spec(properties=said, tags=("blue", "Blue", "ciming-image", "two words"))
    found = metadata.labels(image, MARKS)
    assert found == {**MARKS, "os_distro": "debian", "blue": ""}
    lost = " ".join(metadata.lost(image, MARKS))
    for each in ("hw_disk_bus", "os_hidden", "os_hash_algo", "os_version", "os_type", "Blue", "two words"):
        assert each in lost
    for each in ("os_distro", "architecture"):
        assert each not in lost
    back = {"labels": found, "architecture": "X86_64"}
    assert metadata.properties(back) == {"os_distro": "debian", "architecture": "x86_64"}
    assert metadata.glance_tags(back) == ("blue",)


def test_most_labels() -> None:
    image = spec(tags=tuple(f"tag-{number}" for number in range(100)))
    assert len(metadata.labels(image, MARKS)) == metadata.MOST_LABELS
    assert len(list(metadata.lost(image, MARKS))) == 100 - metadata.MOST_LABELS + len(MARKS)


def test_lost() -> None:
    said = {"architecture": "x86_64", "hw_firmware_type": "coreboot", "hw_scsi_model": "virtio-scsi"}
    lost = list(metadata.lost(spec(properties=said, min_ram=512, visibility="public"), MARKS))
    for part in ("hw_firmware_type=coreboot", "min_ram", "share_with"):
        assert sum(part in each for each in lost) == 1
    assert len(lost) == 3
    fine = spec(properties={"hw_firmware_type": "bios"}, visibility="private")
    assert not list(metadata.lost(fine, MARKS))


def test_features_are_googles() -> None:
    known = set(compute_v1.GuestOsFeature.Type.__members__)
    assert set(config.FEATURES) <= known | {"SUSPEND_RESUME_COMPATIBLE"}
    assert set(metadata.ARM64_FEATURES) <= known


@hypothesis.given(strategies.binary(min_size=32, max_size=32))
def test_a_guest_digest_as_a_label(digest: bytes) -> None:
    assert metadata.LABEL_VALUE.fullmatch(door._label_of(digest.hex()))
    assert door._label_of(digest.hex()) != door._label_of(bytes(31).hex() + "99")


# What refusals mean


@pytest.fixture(scope="module")
def pem() -> str:
    return as_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def as_pem(key: Any, password: bytes | None = None) -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    made: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    return made.decode()


def credential(pem: str, **more: str) -> dict[str, Any]:
    known = {
        "type": "service_account", "project_id": "project-1", "private_key_id": "0123456789abcdef",
        "private_key": pem, "client_email": "images@project-1.iam.gserviceaccount.com",
        "token_uri": account.TOKEN_URLS[0],
    }  # fmt: skip
    return {**known, **more}


@pytest.fixture
def google(conf: cfg.ConfigOpts, pem: str) -> account.Account:
    return account.Account({"project_id": "project-1", "cloud": "google"}, credential(pem))


def raised(google: account.Account, error: Exception) -> exceptions.ProviderError:
    def call() -> None:
        raise error

    with pytest.raises(exceptions.ProviderError) as caught:
        google.call("compute.images.get", call)
    assert caught.value.__suppress_context__
    return caught.value


def refusal(status: int, reason: str, message: str = "It was not to be.") -> Exception:
    said = [{"reason": reason, "message": message, "domain": "global"}]
    made: Exception = google_exceptions.from_http_status(status, message, errors=said)
    return made


@pytest.mark.parametrize(
    ("status", "reason", "kind", "code"),
    [
        (401, "authError", exceptions.CredentialRefused, "cloud.auth_failed"),
        (403, "forbidden", account.Refusal, "cloud.forbidden"),
        (403, "insufficientPermissions", account.Refusal, "cloud.forbidden"),
        (403, "accessNotConfigured", account.Refusal, "cloud.forbidden"),
        (403, "quotaExceeded", account.Refusal, "cloud.quota_exceeded"),
        (403, "rateLimitExceeded", pace.Throttled, None),
        (403, "userRateLimitExceeded", pace.Throttled, None),
        (429, "rateLimitExceeded", pace.Throttled, None),
        (400, "invalid", account.Refusal, "cloud.refused"),
        (400, "resourceNotReady", exceptions.TransientProviderError, None),
        (404, "notFound", account.Refusal, "cloud.refused"),
        (409, "alreadyExists", account.Refusal, "cloud.refused"),
        (408, "timeout", exceptions.TransientProviderError, None),
        (500, "backendError", exceptions.TransientProviderError, None),
        (503, "backendError", exceptions.TransientProviderError, None),
        (599, "other", exceptions.TransientProviderError, None),
    ],
)
def test_refusals(
    google: account.Account, status: int, reason: str, kind: type[Exception], code: str | None
) -> None:
    error = raised(google, refusal(status, reason))
    assert type(error) is kind
    assert code is None or error.code == code
    assert str(status) in error.detail and "It was not to be." in error.detail
    assert isinstance(error, exceptions.TransientProviderError) == (code is None)


def test_what_is_missing_may_be_an_answer(google: account.Account) -> None:
    def call() -> None:
        raise refusal(404, "notFound")

    assert google.call("compute.images.get", call, missing=404) is None
    with pytest.raises(account.Refusal):
        google.call("compute.images.get", call, missing=410)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth_exceptions.RefreshError("invalid_grant: Invalid JWT Signature."), exceptions.CredentialRefused),
        (auth_exceptions.RefreshError("later", retryable=True), exceptions.TransientProviderError),
        (auth_exceptions.TransportError("no route"), exceptions.TransientProviderError),
        (google_exceptions.RetryError("late", cause=OSError()), exceptions.TransientProviderError),
        (requests.ConnectionError("reset"), exceptions.TransientProviderError),
        (requests.ReadTimeout("late"), exceptions.TransientProviderError),
        (urllib3.exceptions.ProtocolError("cut"), exceptions.TransientProviderError),
        (urllib3.exceptions.ReadTimeoutError(None, "", "late"), exceptions.TransientProviderError),  # type: ignore[arg-type]
        (ValueError("no JSON"), exceptions.TransientProviderError),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
def test_no_answer(google: account.Account, error: Exception, kind: type[Exception]) -> None:
    assert type(raised(google, error)) is kind


@pytest.mark.parametrize(
    "error", [json_format.ParseError("<html>"), AttributeError("get"), KeyError("name"), TypeError("None")]
)
def test_an_answer_that_is_none(google: account.Account, error: Exception) -> None:
    found = raised(google, error)
    assert isinstance(found, exceptions.TransientProviderError) and found.code == "cloud.bad_answer"


class Endless(io.RawIOBase):
    """Zeros, as many as are asked for, but not for ever."""

    given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.given += len(buffer)
        return len(buffer) if self.given < 64 << 20 else 0


def test_range_that_does_not_end(google: account.Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more of it is taken than was asked for."""
    body = Endless()

    def send(_session: requests.Session, request: requests.PreparedRequest, **_how: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code = 200 if "alt=media" in str(request.url) else 404   # Google's client asks more
        answer.raw = urllib3.HTTPResponse(body if answer.ok else io.BytesIO(), preload_content=False)
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    google._credentials.token = "ya29.c.a-token-of-ours"
    with pytest.raises(exceptions.TransientProviderError, match=r"storage\.objects\.get") as refused:
        objects._range(objects.Bucket(google, "bucket"), "its.tar.gz", 1, 1 << 30, 0)
    assert refused.value.code == "cloud.bad_answer"
    assert body.given < objects.RANGE + (1 << 20)


@pytest.mark.parametrize(
    ("said", "keeps"),
    [
        ({}, ""),
        ({"retentionPolicy": {"retentionPeriod": "86400"}}, "retention"),
        ({"defaultEventBasedHold": True}, "holds all"),
        ({"versioning": {"enabled": True}}, "Object Versioning"),
        ({"versioning": {"enabled": False}}, ""),
        ({"softDeletePolicy": {"retentionDurationSeconds": "604800"}}, ""),
        ({"softDeletePolicy": {"retentionDurationSeconds": "a week"}}, "buckets.get had no"),
        ({"versioning": "on"}, "not Google's"),
    ],
)
def test_bucket_that_keeps_all(
    google: account.Account, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], keeps: str
) -> None:
    """Pieces could not be removed from it."""
    found = {"name": "bucket", "location": "EU", **said}
    answers = (json.dumps(each).encode() for each in (found, {"permissions": list(objects.NEEDED)}))

    def send(_session: requests.Session, request: requests.PreparedRequest, **_how: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer.request = 200, request
        answer.headers["Content-Type"] = "application/json"
        answer.raw = urllib3.HTTPResponse(io.BytesIO(next(answers)), preload_content=False)
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    google._credentials.token = "ya29.c.a-token-of-ours"
    with pytest.raises(exceptions.ProviderError, match=keeps) if keeps else contextlib.nullcontext():
        seconds = 604800 if "softDeletePolicy" in said else 0
        assert objects.check(objects.Bucket(google, "bucket")) == ("EU", seconds)


@pytest.mark.parametrize(
    ("message", "passes"),
    [('Provided CRC32C "AAAAAA==" doesn\'t match calculated CRC32C "f/yqxQ==".', True), ("Invalid.", False)],
)
def test_piece_that_is_damaged_on_its_way(
    google: account.Account, monkeypatch: pytest.MonkeyPatch, message: str, *, passes: bool
) -> None:
    """Google compares its sum, and does not take it: it is to be sent again."""
    error = {"code": 400, "message": message, "errors": [{"reason": "invalid", "message": message}]}
    said = json.dumps({"error": error}).encode()

    def send(_session: requests.Session, request: requests.PreparedRequest, **_how: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer.request = 400, request
        answer.raw = urllib3.HTTPResponse(io.BytesIO(said), preload_content=False)
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    google._credentials.token = "ya29.c.a-token-of-ours"
    with pytest.raises(exceptions.ProviderError, match=re.escape(message)) as refused:
        objects._put(objects.Bucket(google, "bucket"), "ciming/key/piece", b"bytes", 0)
    assert isinstance(refused.value, exceptions.TransientProviderError) == passes


def test_where_nothing_may_go(google: account.Account) -> None:
    inner = egress.Refused("The address 10.0.0.1 is in a private network.")
    error = raised(google, requests.ConnectionError(inner))
    assert error.code == "egress.refused" and "10.0.0.1" in error.detail
    assert not isinstance(error, exceptions.TransientProviderError)


def test_secrets_are_not_repeated(google: account.Account, pem: str) -> None:
    line = pem.splitlines()[3]
    google._credentials.token = "ya29.c.a-token-of-ours"
    for text in (pem, line, google._credentials.token, "0123456789abcdef"):
        shown = raised(google, refusal(403, "forbidden", f"You said: {text}.")).detail
        assert "You said" in shown and text not in shown
        assert line not in raised(google, ValueError(text)).detail


SUBJECT = "a subject+token/that=nobody sees"


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], tuple[int, str] | None]) -> None:
    """Whoever is asked says this; nothing: it refuses the connection."""

    def send(_session: requests.Session, request: Any, **_how: Any) -> requests.Response:
        said = answer(request)
        if said is None:
            raise requests.ConnectionError(f"Max retries exceeded with url: {request.path_url} (refused)")
        made = requests.Response()
        made.status_code, made._content = said[0], said[1].encode()
        return made

    monkeypatch.setattr(requests.Session, "send", send)


@pytest.mark.parametrize(
    "url",
    ["https://source.example/t?code=A-CANARY-123", "https://source.example/A-CANARY-123?v=1",
     "https://source.example?code=A-CANARY-123"],
)  # fmt: skip
def test_where_a_subject_token_is_may_be_secret(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    made = account.Account({"project_id": "project-1"}, outside(credential_source={"url": url}))
    answering(monkeypatch, lambda _request: None)
    with pytest.raises(exceptions.TransientProviderError, match=r"had no answer.*refused") as refused:
        made.log_in()
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("kind", ["service account", "pool", "pool of an account"])
def test_what_is_confided_to_who_gives_tokens(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch, pem: str, kind: str
) -> None:
    """Though it repeats all that it was told."""
    url = f"{account.IMPERSONATION}v1/projects/-/serviceAccounts/a@b.example:generateAccessToken"
    impersonated = {"service_account_impersonation_url": url} if kind == "pool of an account" else {}
    said = credential(pem) if kind == "service account" else outside(**impersonated)
    made, told = account.Account({"project_id": "project-1"}, said), []

    def answer(request: Any) -> tuple[int, str]:
        if request.method == "GET":
            return 200, SUBJECT
        if impersonated and request.url in account.EXCHANGE_URLS:
            return 200, json.dumps({"access_token": "a-token-of-the-pool", "expires_in": 3600,
                                    "issued_token_type": "t", "token_type": "Bearer"})  # fmt: skip
        form = dict(urllib.parse.parse_qsl((request.body or b"").decode()))
        told.extend([form.get("assertion"), form.get("subject_token"), request.headers.get("authorization")])
        description = f"You sent {request.body!r} {form} {request.headers}."
        return 400, json.dumps({"error": "invalid_grant", "error_description": description})

    answering(monkeypatch, answer)
    with pytest.raises(exceptions.CredentialRefused, match="gave no token") as refused:
        made.log_in()
    secrets = [text.removeprefix("Bearer ") for text in told if text]
    assert secrets
    shown = [str(refused.value), raised(made, refusal(403, "forbidden", f"{told}")).detail]
    for secret in secrets:
        assert not any(each in text for each in (secret, urllib.parse.quote_plus(secret)) for text in shown)


# Credentials


@pytest.mark.parametrize(
    "url",
    [
        "https://oauth2.googleapis.com.evil.example/token",
        "https://oauth2.googleapis.com/token/../other",
        "http://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com/token?x",
        "http://169.254.169.254/token",
        "",
    ],
)
def test_tokens_are_asked_for_nowhere_else(conf: cfg.ConfigOpts, pem: str, url: str) -> None:
    with pytest.raises(exceptions.ProviderError, match="token_uri") as refused:
        account.Account({"project_id": "project-1"}, credential(pem, token_uri=url))
    assert refused.value.code == "credential.invalid"


def test_where_the_operator_lets_it(conf: cfg.ConfigOpts, pem: str) -> None:
    url = "https://tokens.example/token"
    conf.set_override("token_urls", [url], group="egress")
    assert account.Account({"project_id": "project-1"}, credential(pem, token_uri=url)).email
    conf.clear_override("token_urls", group="egress")


def outside(**more: Any) -> dict[str, Any]:
    """A workload identity pool."""
    known = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": account.EXCHANGE_URLS[0],
        "credential_source": {"url": "https://keystone.example/token", "headers": {"X-Key": "a-secret-text"}},
    }
    return {**known, **more}


def test_a_workload_identity_pool(conf: cfg.ConfigOpts) -> None:
    impersonated = f"{account.IMPERSONATION}v1/projects/-/serviceAccounts/a@b.example:generateAccessToken"
    for more in ({}, {"service_account_impersonation_url": impersonated}):
        made = account.Account({"project_id": "project-1"}, outside(**more))
        assert "a-secret-text" in made._secrets


@pytest.mark.parametrize(
    "more",
    [
        {"token_url": "https://sts.googleapis.com.evil.example/v1/token"},
        {"service_account_impersonation_url": "https://iamcredentials.googleapis.com.evil.example/"},
        {"credential_source": {"url": "http://169.254.169.254/token"}},
        {"credential_source": {"file": "/etc/passwd"}},
        {"credential_source": {"executable": {"command": "/bin/sh"}}},
        {"credential_source": {"url": "https://keystone.example/", "file": "/etc/passwd"}},
        {"credential_source": {"environment_id": "aws1", "region_url": "http://169.254.169.254"}},
        {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"},
        {"type": "impersonated_service_account"},
        {"type": "gdch_service_account"},
    ],
    ids=str,
)
def test_a_workload_identity_pool_that_is_not(conf: cfg.ConfigOpts, more: dict[str, Any]) -> None:
    """Though the schema would let none of them in."""
    with pytest.raises(exceptions.ProviderError) as refused:
        account.Account({"project_id": "project-1"}, outside(**more))
    assert refused.value.code in ("credential.invalid", "egress.refused")


def on_unknown_curve(key: Any) -> str:
    """As if it were on another one, that cryptography does not know."""
    known, unknown = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030102")
    lines = as_pem(key).splitlines()
    made = base64.b64encode(base64.b64decode("".join(lines[1:-1])).replace(known, unknown)).decode()
    return "\n".join([lines[0], *textwrap.wrap(made, 64), lines[-1]])


def test_keys_that_are_none(conf: cfg.ConfigOpts, pem: str) -> None:
    lines = pem.splitlines()
    curve = ec.generate_private_key(ec.SECP256R1())
    wrong = {
        "nothing": "", "noise": "key", "cut": "\n".join(lines[:3]), "elliptic": as_pem(curve),
        "public": curve.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
        "encrypted": as_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048), b"password"),
        "no signer": as_pem(x25519.X25519PrivateKey.generate()), "unknown curve": on_unknown_curve(curve),
    }  # fmt: skip
    for name, text in wrong.items():
        with pytest.raises(exceptions.ProviderError) as refused:
            account.Account({"project_id": "project-1"}, credential(text))
        assert refused.value.code == "credential.invalid", name
        assert len(text) < 10 or text not in str(refused.value)


def test_what_else_is_there_is_not_used(
    conf: cfg.ConfigOpts, pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the environment."""
    for name in ("STORAGE_EMULATOR_HOST", "GCE_METADATA_HOST", "GCE_METADATA_ROOT", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "another-project")
    monkeypatch.setenv("GOOGLE_API_USE_MTLS_ENDPOINT", "always")
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "evil.example")
    made = account.Account({"project_id": "project-1"}, credential(pem))
    assert (made.storage.project, made.storage._connection.API_BASE_URL) == ("project-1", account.STORAGE)
    for client in (made.images, made.operations):
        assert client.transport._host == account.COMPUTE
    assert not any(session.trust_env for session in made._sessions)
