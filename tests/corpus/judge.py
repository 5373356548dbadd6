# SPDX-License-Identifier: Apache-2.0
"""Judges image files, each in a process of its own under limits of memory and processor time.

Run as a module, with the seconds that each may take: reads lines of JSON, [path, declared], and answers
each by one line: what the image is, why it is refused, or how the judge himself came to grief.
"""

import dataclasses
import json
import logging
import os
import resource
import sys
from pathlib import Path

from ciming import disk_image, exceptions

MEMORY = 384 * 1024 * 1024  # more than what is mapped after the imports, in bytes
BLOCK = 1024 * 1024


def examine(path: Path, declared: str | None = None) -> disk_image.Inspection:
    """All that is done with the bytes of an image before they go anywhere."""
    inspector = disk_image.Inspector(declared)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            inspector.feed(block)
    inspection = inspector.finish()
    disk_image.check_structure(path, inspection)
    return inspection


def _judge(path: Path, declared: str | None) -> dict[str, object]:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, hard))  # qemu-img gets a limit of its own
    try:
        return dataclasses.asdict(examine(path, declared))
    except exceptions.ImageRejected as error:
        return {"code": error.code, "detail": error.detail}
    except BaseException as error:
        return {"crash": repr(error)}


def main(seconds: int) -> None:
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        path, declared = json.loads(line)
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            print(json.dumps(_judge(Path(path), declared)), flush=True)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            print(json.dumps({"crash": f"ended with {status}"}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
