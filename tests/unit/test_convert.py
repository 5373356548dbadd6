# SPDX-License-Identifier: Apache-2.0
"""The same disk in another format, proven by its guest digest; both for every format that is taken."""

import fcntl
import hashlib
import os
import resource
import shutil
import socket
import struct
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ciming import disk_image, exceptions
from ciming.disk_image import guest, nbd, qemu_img
from ciming.disk_image.inspector import inspect_file
from tests.corpus import disks
from tests.corpus.cases import Workshop
from tests.corpus.cases import qemu_img as run_plainly
from tests.corpus.good import FORMATS as MADE
from tests.unit.children import gone, stand_in

MIB = 1024 * 1024
BLOCK = 512 * 1024
FORMATS = {disk_format: (driver, variants) for disk_format, driver, variants in MADE}
CASES = [
    ("raw", "plain"),
    *((name, variant) for name in ("vmdk", "vhd", "vhdx", "vdi") for variant in FORMATS[name][1]),
    *(("qcow2", variant) for variant in ("v2", "v3", "compressed", "zstd", "full", "extended-l2-compressed")),
]
SAMPLES = [
    ("raw", "plain"),
    ("qcow2", "compressed"),
    ("vmdk", "sparse"),
    ("vmdk", "stream"),
    ("vhd", "dynamic"),
    ("vhd", "fixed"),
    ("vhdx", "dynamic"),
    ("vdi", "dynamic"),
]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    with tempfile.TemporaryDirectory() as folder:
        yield Workshop(Path(folder))


def image(shop: Workshop, disk_format: str, variant: str) -> Path:
    """The workshop's disk in a format."""
    if disk_format == "raw":
        return shop.disk
    driver, variants = FORMATS[disk_format]
    return shop.convert(f"{disk_format}-{variant}", driver, *variants[variant])


def reference(disk: bytes) -> str:
    """The guest digest as the documentation has it, step by step."""
    records = b""
    for index, start in enumerate(range(0, len(disk), BLOCK)):
        block = disk[start : start + BLOCK].ljust(BLOCK, b"\0")
        if any(block):
            records += index.to_bytes(8, "big") + hashlib.sha256(block).digest()
    return hashlib.sha256(records).hexdigest()


def digest(path: Path, disk_format: str = "raw") -> str:
    return disk_image.guest_digest(path, inspect_file(path, disk_format))


def convert(
    source: Path, path: Path, disk_format: str = "raw", alive: Callable[[], None] = lambda: None
) -> disk_image.Conversion:
    return disk_image.convert(source, inspect_file(source), path, disk_format, alive)


@pytest.mark.parametrize(("disk_format", "variant"), CASES)
def test_one_disk_has_one_digest_in_every_format(disk_format: str, variant: str, shop: Workshop) -> None:
    found = digest(image(shop, disk_format, variant), disk_format)
    assert found == reference(shop.disk.read_bytes())


@pytest.mark.parametrize("to", disk_image.FORMATS_OUT)
@pytest.mark.parametrize(("disk_format", "variant"), SAMPLES)
def test_every_format_is_converted(
    disk_format: str, variant: str, to: str, shop: Workshop, tmp_path: Path
) -> None:
    source = image(shop, disk_format, variant)
    path = tmp_path / "result,with a comma"
    made = convert(source, path, to)
    assert inspect_file(path, to) == disk_image.Inspection(to, made.virtual_size)
    assert made.guest == reference(shop.disk.read_bytes())
    assert made.virtual_size == inspect_file(source).virtual_size
    assert (made.grown, made.size) == (0, path.stat().st_size)
    driver = FORMATS[disk_format][0] if disk_format in FORMATS else "raw"
    run_plainly("compare", "-q", "-f", driver, "-F", to, source, path)


def test_every_format_that_is_inspected_is_converted_but_iso() -> None:
    assert {disk_format for disk_format, _ in SAMPLES} == set(disk_image.FORMATS_IN)
    assert set(disk_image.FORMATS_IN) == set(disk_image.DISK_FORMATS) - {"iso"}


@pytest.mark.parametrize("length", [1, 511, 512, BLOCK, BLOCK + 1, 3 * MIB + 100])
def test_what_a_sector_is_filled_up_with_does_not_count(length: int, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(disks.noise(length))
    assert digest(source) == reference(source.read_bytes())
    made = convert(source, tmp_path / "result", "qcow2")
    assert made.grown == -length % 512
    assert made.virtual_size == length + made.grown
    assert made.guest == reference(source.read_bytes())


def test_holes_and_zeros_are_the_same(tmp_path: Path) -> None:
    content = disks.noise(BLOCK) + bytes(5 * MIB) + disks.noise(700) + bytes(4 * MIB) + b"\1"
    full = tmp_path / "full"
    full.write_bytes(content)
    holes = Workshop(tmp_path).write("holes", content)
    longer = tmp_path / "longer"
    longer.write_bytes(content + bytes(MIB))
    assert holes.stat().st_blocks < full.stat().st_blocks
    assert digest(full) == digest(holes) == digest(longer) == reference(content)
    assert digest(Workshop(tmp_path).write("empty", bytes(MIB))) == reference(b"")
    written = tmp_path / "written"
    run_plainly("convert", "-O", "qcow2", "-S", "0", full, written)
    assert written.stat().st_size > len(content)
    assert digest(written, "qcow2") == reference(content)
    convert(full, tmp_path / "result")
    assert (tmp_path / "result").stat().st_blocks <= holes.stat().st_blocks


@pytest.mark.parametrize(
    "change",
    [
        lambda disk: disk[:-1] + bytes([disk[-1] ^ 1]),
        lambda disk: disk[:BLOCK] + bytes([disk[BLOCK] ^ 128]) + disk[BLOCK + 1 :],
        lambda disk: disk[BLOCK:] + disk[:BLOCK],
        lambda disk: bytes(BLOCK) + disk,
        lambda disk: b"\0" + disk,
        lambda disk: disk + b"\1",
        lambda disk: bytes(BLOCK) + disk[BLOCK:],
    ],
    ids=["last bit", "one bit", "turned", "a block later", "a byte later", "longer", "a block of zeros"],
)
def test_another_disk_has_another_digest(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    disk = disks.noise(2 * MIB)
    path, other = tmp_path / "disk", tmp_path / "other"
    path.write_bytes(disk)
    other.write_bytes(change(disk))
    assert digest(other) == reference(change(disk)) != digest(path)
    packed = tmp_path / "packed"
    run_plainly("convert", "-f", "raw", "-O", "qcow2", "-c", other, packed)
    assert digest(packed, "qcow2") == digest(other)


@pytest.mark.parametrize(("size", "counted"), [("4k", False), ("64k", True)])
def test_a_disk_whose_data_is_scattered(size: str, counted: bool, tmp_path: Path) -> None:
    """In too many places for a list of them; and, in larger clusters, in one."""
    disk, scattered = tmp_path / "disk", tmp_path / "scattered"
    disk.write_bytes((b"\x5a" * 4096 + bytes(4096)) * (48 * MIB // 8192))
    how = ("-S", "4k", "-o", f"cluster_size={size}")
    run_plainly("convert", "-f", "raw", "-O", "qcow2", *how, disk, scattered)
    assert (guest._extents(scattered, inspect_file(scattered), lambda: None) is not None) == counted
    assert digest(scattered, "qcow2") == reference(disk.read_bytes())


def test_where_the_file_ends_the_disk_goes_on_in_zeros(tmp_path: Path) -> None:
    """qemu writes the last cluster no further than it has to."""
    source = tmp_path / "source"
    content = b"abc" * 1000
    (tmp_path / "disk").write_bytes(content.ljust(4096, b"\0"))
    run_plainly("convert", "-f", "raw", "-O", "qcow2", tmp_path / "disk", source)
    run_plainly("resize", "-q", "-f", "qcow2", source, "3M")
    [extent] = guest._extents(source, inspect_file(source), lambda: None) or []
    with source.open("r+b") as file:
        file.truncate(extent.offset + len(content))
    assert digest(source, "qcow2") == reference(content)


def test_a_huge_disk_of_holes_takes_no_time_and_no_room(tmp_path: Path) -> None:
    source = tmp_path / "huge"
    run_plainly("create", "-q", "-f", "qcow2", source, "2T")
    made = convert(source, tmp_path / "result")
    assert (made.size, made.guest) == (2 << 40, reference(b""))
    assert (tmp_path / "result").stat().st_blocks * 512 < MIB


def test_a_vhdx_is_as_large_as_what_it_holds(tmp_path: Path) -> None:
    """Though qemu-img takes all of it for data, and would read it for minutes."""
    source = tmp_path / "huge"
    run_plainly("create", "-q", "-f", "vhdx", source, "2T")
    found = inspect_file(source)
    assert disk_image.room_needed(source, found) < source.stat().st_size + (2 << 40) // 1000
    assert guest._extents(source, found, lambda: None) == []
    assert digest(source, "vhdx") == reference(b"")


def test_who_brought_it_may_hold_its_lock(shop: Workshop, tmp_path: Path) -> None:
    """As an engine does all the while; on NFS, its flock() is one that qemu-img would wait for."""
    source = tmp_path / "source"
    shutil.copy(image(shop, "vhdx", "dynamic"), source)
    found = inspect_file(source)
    with source.open("r+b") as file:
        # Unlike that of lockf(), it stays when somebody else in this process closes the file.
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole)
        disk_image.check_structure(source, found)
        assert disk_image.room_needed(source, found)
        assert convert(source, tmp_path / "result").guest == digest(shop.disk)


def test_no_image_is_held_in_memory(tmp_path: Path) -> None:
    source, packed = tmp_path / "disk", tmp_path / "packed"
    source.write_bytes(b"\x5a" * (64 * MIB))
    run_plainly("convert", "-f", "raw", "-O", "qcow2", "-c", source, packed)
    tracemalloc.start()
    try:
        assert digest(source) == digest(packed, "qcow2")
        _now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (2 * guest.WORKERS + 3) * guest.PIECE + MIB


def test_a_disk_that_is_something_else_as_raw(shop: Workshop, tmp_path: Path) -> None:
    """What is harmless in a qcow2 would be opened by the next tool: a backing file, say."""
    backed = shop.create("backed", "qcow2", "1M", "-u", "-F", "raw", "-b", "/etc/passwd")
    hidden = tmp_path / "hidden"
    run_plainly("convert", "-f", "raw", "-O", "qcow2", backed, hidden)
    assert_left_alone(tmp_path, hidden, "image.unsafe", "declared as raw, but it is qcow2")
    fixed = tmp_path / "fixed"
    run_plainly(
        "convert", "-f", "raw", "-O", "qcow2", image(shop, "vhd", "fixed-exact"), fixed
    )
    assert_left_alone(tmp_path, fixed, "image.unsafe", "declared as raw, but it is vhd")
    assert convert(fixed, tmp_path / "result", "qcow2").grown == 0


def assert_left_alone(folder: Path, source: Path, code: str, text: str | None = None) -> None:
    """A conversion fails, and nothing is left over."""
    there = set(folder.iterdir())
    with pytest.raises(exceptions.CimingError, match=text) as caught:
        convert(source, folder / "result")
    assert caught.value.code == code
    assert str(folder) not in caught.value.detail
    assert set(folder.iterdir()) == there


def test_nothing_is_written_over(shop: Workshop, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    with pytest.raises(FileExistsError):
        convert(shop.disk, there, "qcow2")
    assert there.read_text() == "mine"


@pytest.mark.parametrize(("disk_format", "to"), [("iso", "raw"), ("qcow2", "vmdk")])
def test_formats_that_are_not_converted(disk_format: str, to: str, shop: Workshop, tmp_path: Path) -> None:
    found = disk_image.Inspection(disk_format, MIB)
    with pytest.raises(exceptions.CimingError, match=f"{disk_format} into {to}") as caught:
        disk_image.convert(shop.disk, found, tmp_path / "result", to)
    assert caught.value.code == "conversion.failed"
    assert not (tmp_path / "result").exists()


def test_no_more_is_written_than_the_disk_is_large(tmp_path: Path) -> None:
    source = tmp_path / "source"
    run_plainly("create", "-q", "-f", "qcow2", source, "64M")
    with pytest.raises(exceptions.ImageRejected) as caught:
        disk_image.convert(source, disk_image.Inspection("qcow2", MIB), tmp_path / "result", "raw")
    assert caught.value.code == "image.too_complex"
    assert not (tmp_path / "result").exists()


def test_a_disk_that_is_too_large_for_the_file_system(tmp_path: Path) -> None:
    """Which is not the image's fault. (The limit is that of this process instead.)"""
    source = tmp_path / "source"
    run_plainly("create", "-q", "-f", "qcow2", source, "64M")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 * MIB, before[1]))
    try:
        with pytest.raises(exceptions.CimingError, match=r"67108864 bytes.*Ask the operator") as caught:
            convert(source, tmp_path / "result")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "conversion.failed"
    assert not (tmp_path / "result").exists()


def test_a_disk_of_another_size_is_told(tmp_path: Path) -> None:
    source = tmp_path / "source"
    run_plainly("create", "-q", "-f", "qcow2", source, "2M")
    with pytest.raises(exceptions.CimingError, match="2097152 instead of 1048576 bytes") as caught:
        disk_image.convert(source, disk_image.Inspection("qcow2", MIB), tmp_path / "result", "raw")
    assert caught.value.code == "conversion.differs"
    assert not (tmp_path / "result").exists()


def test_an_image_that_can_not_be_read(shop: Workshop, tmp_path: Path) -> None:
    source = image(shop, "qcow2", "v3")
    for call in (
        lambda found: disk_image.convert(source, found, tmp_path / "result", "raw"),
        lambda found: disk_image.guest_digest(source, found),
    ):
        with pytest.raises(exceptions.CimingError, match="invalid VMDK image descriptor") as caught:
            call(disk_image.Inspection("vmdk", MIB))
        assert caught.value.code == "conversion.failed"
        assert str(tmp_path) not in caught.value.detail
    assert not (tmp_path / "result").exists()


CONVERTS = 'case "$*" in *" -W "*) ;; *) exec /usr/bin/qemu-img "$@";; esac; for result; do :; done\n'
SPOILS = '/usr/bin/qemu-img "$@" || exit; printf x | dd of="$result" bs=1 seek=5000 conv=notrunc status=none'
MISFORTUNES = {
    "too slow": ("while :; do :; done", "image.too_complex"),
    "no room": ("echo 'qemu-img: error: No space left on device' >&2; exit 1", "staging.full"),
    "spoils": (SPOILS, "conversion.differs"),
    "killed": ("kill -KILL $$", "service.unavailable"),
    "does nothing": ("exit 0", "conversion.differs"),
    "other bytes": ('echo abc > "$result"', "conversion.differs"),
}


@pytest.mark.parametrize(("script", "code"), MISFORTUNES.values(), ids=MISFORTUNES)
def test_when_it_goes_wrong(
    script: str, code: str, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img, "CPU_SECONDS", 1)
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, CONVERTS + script))
    assert_left_alone(tmp_path, image(shop, "qcow2", "v3"), code)


@pytest.mark.parametrize("script", ["exit 0", "head -c 1000 /dev/urandom >&3; exit 0", "sleep 1; exit 0"])
def test_a_stream_that_is_none(
    script: str, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = image(shop, "qcow2", "compressed")
    number = 'for last; do :; done; number=${last##*=}; eval "exec 3>&$number"\n'
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, number + script))
    with pytest.raises(exceptions.CimingError) as caught:
        digest(source, "qcow2")
    assert caught.value.code == "conversion.failed"


@pytest.mark.parametrize("reason", [exceptions.Cancelled("x"), exceptions.ClaimLost("x")])
@pytest.mark.parametrize("during", ["-W", "--target-is-zero"])
def test_cancelled_in_the_middle(
    during: str, reason: BaseException, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, pid = image(shop, "qcow2", "compressed"), tmp_path / "pid"
    script = f"""
        case "$*" in *" {during} "*) ;; *) exec /usr/bin/qemu-img "$@";; esac
        for last; do :; done
        case "$last" in /*) head -c 100000 /dev/urandom > "$last";; esac
        echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600
        """
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, script))

    def alive() -> None:
        if pid.exists():
            raise reason

    with pytest.raises(type(reason)):
        convert(source, tmp_path / "result", "raw", alive)
    assert gone(int(pid.read_text()))
    assert not (tmp_path / "result").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("guest", "receive"))]


def test_it_runs_under_limits_that_grow_with_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, "ulimit -v; ulimit -t; ulimit -f"))
    source = tmp_path / "source"
    run_plainly("create", "-q", "-f", "qcow2", source, "1M")

    def limits(disk: int) -> list[int]:
        answer = qemu_img.run("convert", image=source, driver="qcow2", disk=disk, writes=disk + MIB).output
        return [int(number) for number in answer.split()]

    memory, seconds, writes = limits(1 << 40)
    assert memory == (qemu_img.ADDRESS_SPACE + qemu_img.BUFFERS + source.stat().st_size // 64) // 1024
    assert seconds == qemu_img.CPU_SECONDS + 1024 * qemu_img.CPU_SECONDS_PER_GIB
    assert writes == ((1 << 40) + MIB) // 512


def test_only_data_in_order_is_received() -> None:
    assert received(write(0, b"a" * 100), write(4096, b"b"), END) == b"a" * 100 + bytes(3996) + b"b"
    for words, reason in (
        ([], "ended early"),
        ([write(0, b"a")], "ended early"),
        ([write(0, b"abc")[:-1]], "ended early"),
        ([write(SIZE - 1, b"ab")], "command 1"),
        ([write(0, b"", command=6)], "command 6"),
        ([b"\0" * 28], "command 0"),
        ([b"x" * 28], "command"),
        ([write(8192, b"a"), write(0, b"a"), END], "out of order"),
    ):
        with pytest.raises(nbd.Garbled, match=reason):
            received(*words)


SIZE = 1 * MIB
END = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.DISCONNECT, 1, 0, 0)


def write(offset: int, data: bytes, command: int = nbd.WRITE) -> bytes:
    return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, command, 7, offset, len(data)) + data


def received(*words: bytes) -> bytes:
    """What comes of a client's words, in pieces of 4 KiB."""
    ours, theirs = socket.socketpair()
    start = nbd.OPTION.pack(nbd.OPTION_MAGIC, 8, 0) + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.GO, 6) + bytes(6)
    theirs.sendall(bytes(4) + start + b"".join(words))
    theirs.shutdown(socket.SHUT_WR)
    disk, last = bytearray(SIZE), 0

    def room(offset: int) -> memoryview:
        nonlocal last
        if offset < last:
            raise nbd.Garbled("it came out of order")
        last = offset
        return memoryview(disk)[offset : offset // 4096 * 4096 + 4096]

    with theirs:
        nbd.receive(ours, SIZE, room)
    return bytes(disk).rstrip(b"\0")
