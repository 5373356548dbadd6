# SPDX-License-Identifier: Apache-2.0
"""The look at a whole image file, after the inspector has passed its bytes.

Our own checks come first: they bound what qemu-img is given to walk through.
"""

from collections.abc import Callable
from pathlib import Path

from ciming.disk_image import iso, qcow2, qemu_img, rejections, vdi, vhd, vhdx, vmdk
from ciming.disk_image.inspector import Inspection
from ciming.disk_image.reader import Reader

CHECKS: dict[str, Callable[[Reader, int], None]] = {
    "qcow2": qcow2.check,
    "vmdk": vmdk.check,
    "vhd": vhd.check,
    "vhdx": vhdx.check,
    "vdi": vdi.check,
    "iso": iso.check,
}
DRIVERS = {"qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx", "vdi": "vdi"}
# qemu-img has no check for vpc. That for vmdk says what ours says, but takes a minute for 60 TiB of holes.
CHECKED_BY_QEMU = ("qcow2", "vhdx", "vdi")
SOUND = (0, 3)  # 3: clusters that nobody uses; they cost space and nothing else
SECTOR = 512


def check_structure(
    path: Path, inspection: Inspection, alive: Callable[[], None] = lambda: None
) -> None:
    """Check that a file is all there and holds together: a qcow2 cut in half is still "safe".

    :param path: of a file whose bytes went through an Inspector
    :param inspection: what that found
    :param alive: asked again and again; what that raises ends it
    :raises ImageRejected: the image is damaged, not complete, or points out of itself
    :raises Unavailable: qemu-img could not be run
    """
    disk_format = inspection.disk_format
    with path.open("rb") as file:
        image = Reader(file, alive)
        if disk_format in CHECKS:
            CHECKS[disk_format](image, inspection.virtual_size)
    if disk_format in DRIVERS:
        _open_with_qemu(path, inspection, alive)
    if disk_format in CHECKED_BY_QEMU:
        _check_with_qemu(path, DRIVERS[disk_format], alive)


def _open_with_qemu(path: Path, inspection: Inspection, alive: Callable[[], None]) -> None:
    """qemu must see the same disk in it as the inspector."""
    driver = DRIVERS[inspection.disk_format]
    found = qemu_img.run("info", "--output=json", image=path, driver=driver, alive=alive).json()
    if "backing-filename" in found:
        raise rejections.unsafe("it has a backing file, which is no part of it")
    if found["virtual-size"] != -(-inspection.virtual_size // SECTOR) * SECTOR:
        raise rejections.broken(
            f"it holds a disk of {inspection.virtual_size} bytes for one reader and "
            f"{found['virtual-size']} for another"
        )


def _check_with_qemu(path: Path, driver: str, alive: Callable[[], None]) -> None:
    result = qemu_img.run("check", "--output=json", image=path, driver=driver, alive=alive)
    if result.status not in SOUND:
        raise rejections.broken(f"its tables are damaged ({result.complaint()})")
