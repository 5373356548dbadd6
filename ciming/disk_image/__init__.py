# SPDX-License-Identifier: Apache-2.0
"""What CIMinG knows about disk images: everything that other code may use is named here.

`Inspector` looks at the bytes as they pass, `check_structure` at the whole file after that. What has
passed both may be given to `convert` and `guest_digest`.
One module per format holds what is particular to it: `look` for the stream, `check` for the file.
"""

from ciming.disk_image.conversion import FORMATS_IN, FORMATS_OUT, Conversion, convert, room_needed
from ciming.disk_image.guest import BLOCK, blocks, digest_of, guest_digest, records, sample
from ciming.disk_image.inspector import DISK_FORMATS, Inspection, Inspector, inspect_file
from ciming.disk_image.structure import check_structure

__all__ = [
    "BLOCK",
    "DISK_FORMATS",
    "FORMATS_IN",
    "FORMATS_OUT",
    "Conversion",
    "Inspection",
    "Inspector",
    "blocks",
    "check_structure",
    "convert",
    "digest_of",
    "guest_digest",
    "inspect_file",
    "records",
    "room_needed",
    "sample",
]
