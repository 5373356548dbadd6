# SPDX-License-Identifier: Apache-2.0
"""Another format for the same disk.

What comes out is trusted no more than what came in: it is inspected again, and its guest digest is compared
with that of the source, which is read a second time for it, meanwhile.
"""

import errno
import os
import threading
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

from ciming import exceptions
from ciming.disk_image import guest, qemu_img, rejections
from ciming.disk_image.inspector import FILE_IS_DISK, Inspection, inspect_file
from ciming.disk_image.structure import DRIVERS, SECTOR, check_structure

FORMATS_IN = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi")
FORMATS_OUT = ("raw", "qcow2")
MIB = 1024 * 1024
TOO_LARGE = "File too large"
NO_ROOM = ("No space left on device", "Disk quota exceeded")

Alive = Callable[[], None]


@dataclass(frozen=True)
class Conversion:
    """What a conversion gave. `size` of the file, `virtual_size` of the disk, both in bytes.

    The disk is longer than that of the source by `grown` zeros: most formats know whole sectors only.
    `guest` is the guest digest of both, in hex.
    """

    disk_format: str
    size: int
    virtual_size: int
    grown: int
    guest: str


def convert(
    source: Path, found: Inspection, path: Path, disk_format: str, alive: Alive = lambda: None
) -> Conversion:
    """Convert an image that has passed `check_structure`, and prove that the result is the same disk.

    :param found: what the source is; one of FORMATS_IN
    :param path: of the result, where nothing is yet, and nothing will be if this raises
    :param disk_format: of the result; one of FORMATS_OUT
    :param alive: asked now and then, by two threads; what that raises ends it
    :raises FileExistsError: something is at `path`
    :raises ImageRejected: its disk is no image that may go anywhere, or needs more than the limits allow
    :raises StagingFull: there is no room for the result
    :raises CimingError: it did not work (`conversion.failed`), or gave another disk (`conversion.differs`)
    :raises Unavailable: qemu-img could not be run
    """
    if found.disk_format not in FORMATS_IN or disk_format not in FORMATS_OUT:
        raise rejections.not_converted(f"{found.disk_format} into {disk_format} is not known here")
    with path.open("xb"):
        pass
    try:
        made, digest = _both(source, found, path, disk_format, alive)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    grown = made.virtual_size - found.virtual_size
    return Conversion(disk_format, path.stat().st_size, made.virtual_size, grown, digest)


def _both(
    source: Path, found: Inspection, path: Path, disk_format: str, alive: Alive
) -> tuple[Inspection, str]:
    """The result, and the guest digest; the source is read for that while it is converted."""
    failed = threading.Event()

    def both_alive() -> None:
        alive()
        if failed.is_set():
            raise exceptions.Interrupted("It is not wanted any more.")

    with futures.ThreadPoolExecutor(1, "guest") as pool:
        reading = pool.submit(guest.guest_digest, source, found, both_alive)
        try:
            made = write(source, found, path, disk_format, alive)
            digest = guest.guest_digest(path, made, alive)
        except BaseException:
            failed.set()
            raise
        if reading.result() != digest:
            raise _differs("other bytes are on its disk")
    return made, digest


def room_needed(source: Path, found: Inspection, alive: Alive = lambda: None) -> int:
    """Bytes that a conversion of the image will take on disk, at most: holes take none.

    :raises CimingError: the image can not be read (`conversion.failed`)
    """
    # As raw, it would count holes too.
    result = qemu_img.run(
        *("measure", "--output=json", "-O", "qcow2"),
        image=source,
        driver=DRIVERS.get(found.disk_format, found.disk_format),
        disk=found.virtual_size,
        alive=alive,
    )
    if result.status:
        raise rejections.not_converted(result.complaint())
    measured = result.json()
    needed = int(measured["required"])
    if found.disk_format == "vhdx":     # of which qemu-img knows no holes
        tables = int(measured["fully-allocated"]) - found.virtual_size
        needed = min(needed, source.stat().st_size + tables)
    return needed


def write(source: Path, found: Inspection, path: Path, disk_format: str, alive: Alive) -> Inspection:
    """Write the result into `path` and look at that. The rest is as for `convert`, but for the digests."""
    if disk_format in FILE_IS_DISK:
        _check_length(path, found.virtual_size)
    # Parts of the disk may be written in any order, and what is zero is not written at all.
    result = qemu_img.run(
        *("convert", "-W", "-m", "8", "-O", disk_format),
        image=source,
        driver=DRIVERS.get(found.disk_format, found.disk_format),
        target=str(path.absolute()),
        disk=found.virtual_size,
        writes=found.virtual_size + found.virtual_size // 1024 + 16 * MIB,  # the tables of a qcow2
        alive=alive,
    )
    if any(words in result.errors for words in NO_ROOM):
        raise exceptions.StagingFull(
            "No space is left in the staging area to convert the image. Try again later, or ask the operator."
        )
    if TOO_LARGE in result.errors:
        raise rejections.too_complex("qemu-img wants to write more than the disk holds")
    if result.status:
        raise rejections.not_converted(result.complaint())
    if disk_format in FILE_IS_DISK:
        _judge_size(found, path.stat().st_size)
    made = _inspected(path, disk_format)
    _judge_size(found, made.virtual_size)
    return made


def _check_length(path: Path, size: int) -> None:
    """Of qemu-img it can not be told whether our limit or the file system has stopped it."""
    try:
        os.truncate(path, size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise exceptions.CimingError(
            f"The image could not be converted: its disk has {size} bytes, and the file system of the "
            "staging area takes no file that is so large. Ask the operator.",
            code="conversion.failed",
        ) from None
    os.truncate(path, 0)


def _judge_size(found: Inspection, virtual_size: int) -> None:
    if not 0 <= virtual_size - found.virtual_size < SECTOR:
        raise _differs(f"it has {virtual_size} instead of {found.virtual_size} bytes")


def _inspected(path: Path, disk_format: str) -> Inspection:
    """What was written, which is trusted no more than what was read."""
    try:
        made = inspect_file(path, disk_format)
        check_structure(path, made)
    except exceptions.ImageRejected as error:
        if disk_format in FILE_IS_DISK:  # then it is what a guest, or somebody before, wrote into the disk
            raise rejections.unsafe(
                f"as {disk_format} its disk would be taken for something else",
                f"Look at how the disk in it begins and ends. {error.detail}",
            ) from None
        raise rejections.not_converted(error.detail) from None
    return made


def _differs(detail: str) -> exceptions.CimingError:
    return exceptions.CimingError(
        f"Converting the image gave another disk: {detail}. Nothing of it was kept. "
        "Please tell the operator.",
        code="conversion.differs",
    )
