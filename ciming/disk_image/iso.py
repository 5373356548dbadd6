# SPDX-License-Identifier: Apache-2.0
"""ISO 9660: guests see the file as it is, so its size is the virtual size too."""

import struct

from ciming.disk_image import rejections
from ciming.disk_image.reader import Reader

SECTOR = 2048
FIRST, LAST = 16, 48  # sectors with volume descriptors; nobody writes more than a handful
PRIMARY, TERMINATOR = 1, 255


def check(image: Reader, _virtual_size: int) -> None:
    """The file is as long as the volume says.

    :raises ImageRejected: it is not
    """
    descriptor = _primary_descriptor(image)
    (blocks,) = struct.unpack_from("<I", descriptor, 80)
    (block,) = struct.unpack_from("<H", descriptor, 128)
    if not blocks or block not in (512, 1024, 2048):
        raise rejections.broken("its volume descriptor makes no sense")
    if blocks * block > image.size:
        raise rejections.broken("the file is shorter than the volume in it")


def _primary_descriptor(image: Reader) -> bytes:
    for sector in range(FIRST, LAST):
        descriptor = image.at(sector * SECTOR, SECTOR, "volume descriptor")
        if descriptor[0] == PRIMARY:
            return descriptor
        if descriptor[0] == TERMINATOR:
            break
    raise rejections.broken("it has no primary volume descriptor")
