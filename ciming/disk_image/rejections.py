# SPDX-License-Identifier: Apache-2.0
"""The words in which an image is refused: what is wrong, and what a person can do about it."""

from ciming import exceptions

GIB = 1024**3


def broken(detail: str) -> exceptions.ImageRejected:
    """Damaged, or not all of it is there."""
    return exceptions.ImageRejected(
        f"The image is damaged or incomplete: {detail}. Check the file where it comes from "
        "and upload it again.",
        code="image.broken",
    )


def unsafe(detail: str, remedy: str = "Convert it into one self-contained file") -> exceptions.ImageRejected:
    """Opening it could read something else than the image itself."""
    return exceptions.ImageRejected(f"The image is not safe to use: {detail}. {remedy}.", code="image.unsafe")


def unsupported(
    detail: str, remedy: str = "Convert it, for example with 'qemu-img convert -O qcow2'"
) -> exceptions.ImageRejected:
    """A format, or a kind of it, that no cloud takes from us."""
    return exceptions.ImageRejected(
        f"The image has a format that is not supported: {detail}. {remedy}.",
        code="image.format_unsupported",
        field="disk_format",
    )


def mismatch(declared: str, found: str) -> exceptions.ImageRejected:
    """Declared as one format, and really another."""
    return exceptions.ImageRejected(
        f"The image was declared as {declared}, but it is {found}. Declare disk_format {found}, "
        "or leave disk_format out.",
        code="image.format_mismatch",
        field="disk_format",
    )


def empty(detail: str) -> exceptions.ImageRejected:
    return exceptions.ImageRejected(f"The image is empty: {detail}.", code="image.empty")


def too_large(size: int, limit: int) -> exceptions.ImageRejected:
    """:param size: of the disk that a guest would see, and `limit`: in bytes"""
    return exceptions.ImageRejected(
        f"The image holds a disk of {size} bytes ({size // GIB} GiB); at most {limit} bytes "
        f"({limit // GIB} GiB) are allowed.",
        code="image.too_large",
    )


def too_complex(detail: str) -> exceptions.ImageRejected:
    """Checking or converting it needs more than any sound image of its size does."""
    return exceptions.ImageRejected(
        f"The image could not be checked or converted within the limits for its size: {detail}. "
        "Convert it again, for example with 'qemu-img convert', and upload the result.",
        code="image.too_complex",
    )


def not_converted(detail: str) -> exceptions.CimingError:
    """Not the fault of the image, which was found to be sound."""
    return exceptions.CimingError(
        f"The image could not be converted: {detail}. Try again later, or convert it yourself.",
        code="conversion.failed",
    )
