# SPDX-License-Identifier: Apache-2.0
"""What CIMinG knows about disk images: everything that other code may use is named here.

`Inspector` looks at the bytes as they pass, `check_structure` at the whole file after that.
One module per format holds what is particular to it: `look` for the stream, `check` for the file.
What belongs here next: `convert` (by `qemu_img.run`) and the guest digest, a module each.
"""

from ciming.disk_image.inspector import DISK_FORMATS, Inspection, Inspector
from ciming.disk_image.structure import check_structure

__all__ = ["DISK_FORMATS", "Inspection", "Inspector", "check_structure"]
