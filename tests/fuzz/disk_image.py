# SPDX-License-Identifier: Apache-2.0
"""The target: ciming.disk_image over images that atheris makes up, without qemu-img.

An input is one byte that names an image of the corpus, and changes of it: each is four bytes for the
place, one for the length, and what is written there. A length of 255 cuts the file at the place. Image 0
is empty, and the rest of the input is the whole file. So inputs are short, also for formats whose files
begin at some MiB.
"""

import logging
import os
import struct
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ciming.disk_image", "oslo_utils.imageutils"]):
    from ciming import disk_image, exceptions
    from ciming.disk_image import structure
    from ciming.disk_image.reader import Reader

from tests import corpus

CUT = 255
MAX_INPUT = 4096
MAX_IMAGE = 9 * 1024 * 1024
CHUNK = 300_000  # to be fed; neither whole blocks of the inspector nor all at once
LIMITS = ("-rss_limit_mb=700", "-malloc_limit_mb=400", "-timeout=60")


def bases(folder: Path) -> list[bytes]:
    """The images that are changed, always in the same order; the first one is empty."""
    names = (
        "qcow2-v2", "qcow2-v3", "qcow2-compressed", "qcow2-extended-l2", "qcow2-snapshot", "qcow2-bitmap",
        "qcow2-clusters-512", "vmdk-sparse", "vmdk-stream", "vmdk-stream-footer", "vhd-dynamic",
        "vhd-fixed-empty", "vhdx-small-blocks", "vhdx-small-blocks-empty", "vdi-dynamic", "iso-bootable",
    )  # fmt: skip
    found = {case.name: case.path for case in corpus.good(folder)}
    return [b"", *(found[name].read_bytes() for name in names)]


def image(base: bytes, changes: bytes) -> bytes:
    """What an input stands for."""
    if not base:
        return changes
    changed, at = bytearray(base), 0
    while at + 5 <= len(changes):
        place, length = struct.unpack_from(">IB", changes, at)
        place %= len(changed) + 1
        at += 5
        if length == CUT:
            del changed[place:]
        else:
            content = changes[at : at + length]
            changed[place : place + len(content)] = content
            at += length
    return bytes(changed[:MAX_IMAGE])


def judge(content: bytes) -> None:
    """:raises Exception: which ImageRejected is not, whatever is in the image"""
    try:
        inspector = disk_image.Inspector()
        for start in range(0, len(content), CHUNK):
            inspector.feed(content[start : start + CHUNK])
        inspection = inspector.finish()
        check = structure.CHECKS.get(inspection.disk_format)
        if check:
            with os.fdopen(os.memfd_create("image"), "r+b", buffering=0) as file:
                file.write(content)
                check(Reader(file), inspection.virtual_size)
    except exceptions.ImageRejected as error:
        if not error.code.startswith("image.") or not error.detail.isprintable():
            raise AssertionError(f"not fit to be shown: {error.detail!r}") from error


def seeds(images: list[bytes], bad: list[corpus.Bad]) -> list[bytes]:
    """Inputs for the images that are changed, as they are, and for each bad one that is short."""
    found = [bytes([index]) for index in range(len(images))]
    for case in bad:
        content = case.path.read_bytes()
        if len(content) < MAX_INPUT:
            found.append(b"\0" + content)
    return found


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        images = bases(Path(name, "good"))
        inputs = Path(sys.argv[1])
        if inputs.is_dir():
            for number, seed in enumerate(seeds(images, corpus.bad(Path(name, "bad")))):
                inputs.joinpath(f"seed-{number}").write_bytes(seed)

    artifacts = inputs if inputs.is_dir() else inputs.parent

    def one(data: bytes) -> None:
        if not data:
            return
        content = image(images[data[0] % len(images)], data[1:])
        try:
            judge(content)
        except Exception:
            artifacts.joinpath("image").write_bytes(content)
            raise

    arguments = [f"-max_len={MAX_INPUT}", f"-artifact_prefix={artifacts}/", *LIMITS]
    atheris.Setup([sys.argv[0], *arguments, *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
