# SPDX-License-Identifier: Apache-2.0
"""The look at the bytes of an image as they pass, before any other tool opens it."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from ciming.disk_image import foreign, qcow2, rejections, vdi, vhd, vhdx, vmdk

DISK_FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso")
# No disk of any cloud is larger; only a limit of the operator should be.
MAX_VIRTUAL_SIZE = 64 * 1024**4
# Everything but VHDX metadata and VMDK footers is in the first block. Inspectors always get whole
# blocks: what some of them see depends on how the bytes were cut.
BLOCK = 1024 * 1024

LOOKS: dict[str, Callable[[format_inspector.FileInspector], int]] = {
    "qcow2": qcow2.look,
    "vmdk": vmdk.look,
    "vhd": vhd.look,
    "vhdx": vhdx.look,
    "vdi": vdi.look,
}
FILE_IS_DISK = ("raw", "iso")


@dataclass(frozen=True)
class Inspection:
    """What an image is. `disk_format` in Glance's words, `virtual_size` in bytes."""

    disk_format: str
    virtual_size: int


class Inspector:
    """Looks at the bytes of an image as they pass.

    :param declared: the disk_format that the user named, if any
    :param max_virtual_size: in bytes
    :raises ImageRejected: nobody handles the declared format
    """

    def __init__(self, declared: str | None = None, max_virtual_size: int | None = None) -> None:
        if declared is not None and declared not in DISK_FORMATS:
            raise rejections.unsupported(f"'{declared:.32}' is none of {', '.join(DISK_FORMATS)}")
        self._declared = declared
        self._limit = max_virtual_size or MAX_VIRTUAL_SIZE
        self._size = 0
        self._tail = b""
        self._disk_format: str | None = None
        self._virtual_size: int | None = None
        self._pending = bytearray()
        # Still to be fed: at first unknown, later the one of the format, None when it has seen enough.
        self._hungry: format_inspector.FileInspector | None = None

    def feed(self, chunk: bytes) -> None:
        """:raises ImageRejected: as soon as the verdict is settled and bad"""
        self._size += len(chunk)
        self._tail = (chunk if len(chunk) >= foreign.TRAILER else self._tail + chunk)[-foreign.TRAILER :]
        if self._disk_format is None or self._hungry:
            self._pending += chunk
            while len(self._pending) >= BLOCK:
                block = bytes(memoryview(self._pending)[:BLOCK])
                del self._pending[:BLOCK]
                self._eat(block)
        if self._disk_format in FILE_IS_DISK:
            self._judge_size(self._size)

    @property
    def sated(self) -> bool:
        """Nothing counts any more but how much there is, and how it ends."""
        return self._disk_format is not None and not self._hungry

    def skip(self, count: int) -> None:
        """Instead of so many bytes, when it is sated and at least TRAILER bytes follow."""
        self._size += count

    @property
    def settled(self) -> str | None:
        """The disk_format, once the beginning has told all that it can.

        A fixed VHD still looks raw then: only its end says what it is.
        """
        doubtful = self._hungry or (self._declared == "vhd" and self._disk_format == "raw")
        return None if doubtful else self._disk_format

    def finish(self) -> Inspection:
        """Settle what only the end of the stream tells.

        :raises ImageRejected: this is no image that may go anywhere
        """
        if not self._size:
            raise rejections.empty("there is not a single byte in it")
        self._eat(bytes(self._pending))
        self._pending.clear()
        if self._hungry:
            self._hungry.finish()
            self._look(self._hungry)
            self._hungry = None
        self._judge_trailer()
        virtual_size = self._size if self._virtual_size is None else self._virtual_size
        self._judge_size(virtual_size)
        return Inspection(str(self._disk_format), virtual_size)

    def _eat(self, block: bytes) -> None:
        if self._disk_format is None:
            self._identify(block)
        elif self._hungry:
            _feed(self._hungry, block)
        if self._hungry and self._hungry.complete:
            self._look(self._hungry)
            self._hungry = None

    def _identify(self, head: bytes) -> None:
        foreign.refuse_descriptor(head)
        found = _matches(head)
        if found.keys() == {"iso", "gpt"}:
            del found["gpt"]  # an ISO that also boots as a disk
        names = sorted("raw" if name == "gpt" else name for name in found) or ["raw"]
        if len(names) > 1:
            raise rejections.unsafe(f"it is {' and '.join(names)} at once")
        (name,) = names
        if name in FILE_IS_DISK:
            foreign.refuse_strangers(head)
        if name == "raw":
            foreign.refuse_stumps(head)
            foreign.refuse_packed(head)
        if name not in DISK_FORMATS:
            raise rejections.unsupported(f"this is {name}")
        # A fixed VHD is raw until its last 512 bytes.
        if self._declared not in (None, name) and (self._declared, name) != ("vhd", "raw"):
            raise rejections.mismatch(str(self._declared), name)
        self._disk_format = name
        self._hungry = found[name] if name in LOOKS else None

    def _look(self, inspector: format_inspector.FileInspector) -> None:
        try:
            self._virtual_size = LOOKS[inspector.NAME](inspector)
        except format_inspector.SafetyCheckFailed as error:
            raise rejections.unsafe(f"this {inspector.NAME} fails its checks ({error})") from None
        except (format_inspector.ImageFormatError, struct.error) as error:
            raise rejections.broken(f"this {inspector.NAME} cannot be read ({error})") from None
        self._judge_size(self._virtual_size)

    def _judge_trailer(self) -> None:
        if self._disk_format in FILE_IS_DISK:
            foreign.refuse_trailer(self._tail)
        if self._disk_format == "raw":
            if foreign.has_vhd_footer(self._tail):
                self._disk_format = "vhd"
                self._virtual_size = vhd.look_at_end(self._tail)
            if self._declared not in (None, self._disk_format):
                raise rejections.mismatch(str(self._declared), self._disk_format)
        elif self._disk_format != "vhd" and vhd.wraps(self._tail, self._size):
            raise rejections.unsafe(f"it is {self._disk_format} and vhd at once")

    def _judge_size(self, virtual_size: int) -> None:
        if not virtual_size:
            raise rejections.empty("it holds a disk of 0 bytes")
        if virtual_size > self._limit:
            raise rejections.too_large(virtual_size, self._limit)


def inspect_file(path: Path, declared: str | None = None, max_virtual_size: int | None = None) -> Inspection:
    """The same look at a file that is there, of which only what counts is read.

    :raises ImageRejected: see Inspector
    """
    inspector = Inspector(declared, max_virtual_size)
    with path.open("rb", buffering=0) as file:
        last = os.fstat(file.fileno()).st_size - foreign.TRAILER
        while block := file.read(BLOCK):
            inspector.feed(block)
            if inspector.sated and file.tell() < last:
                inspector.skip(last - file.tell())
                file.seek(last)
    return inspector.finish()


def _matches(head: bytes) -> dict[str, format_inspector.FileInspector]:
    """All formats that the beginning of a file has the marks of."""
    found = {}
    for name, factory in format_inspector.ALL_FORMATS.items():
        inspector = factory()
        _feed(inspector, head)
        if name != "raw" and _is_match(inspector):
            found[name] = inspector
    return found


def _feed(inspector: format_inspector.FileInspector, block: bytes) -> None:
    try:
        inspector.eat_chunk(block)
    except Exception:  # whatever its parsing trips over
        if _is_match(inspector):
            raise rejections.broken(f"it begins as {inspector.NAME}, but cannot be read as such") from None


def _is_match(inspector: format_inspector.FileInspector) -> bool:
    try:
        return inspector.format_match
    except AttributeError:  # the VMDK one, on a text that is no descriptor
        return False
