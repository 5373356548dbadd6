# SPDX-License-Identifier: Apache-2.0
"""Checksums that come with data: https://cloud.google.com/storage/docs/data-validation.

A wrong one is refused, and nothing is kept, wherever it is said: in the object's description, or in a header.
"""

import base64
from collections.abc import Mapping

from tests.sandbox.gcp import errors, objects
from tests.sandbox.gcp.store import Resource


def said(description: Resource, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the checksums that are said: by `crc32c` and `md5`."""
    found = {
        short: str(description[key])
        for short, key in (("crc32c", "crc32c"), ("md5", "md5Hash"))
        if description.get(key)
    }
    for one in headers.get("x-goog-hash", "").split(","):
        short, _, value = one.strip().partition("=")
        if not short:
            continue
        if short not in ("crc32c", "md5") or found.get(short, value) != value:
            raise errors.invalid(f"Invalid value for X-Goog-Hash: {one}")
        found[short] = value
    if "content-md5" in headers:
        found["md5"] = headers["content-md5"]
    return found


def check(wanted: Mapping[str, str], crc32c: int, md5: bytes) -> None:
    """Refused if one is not that of the data."""
    real = {
        "crc32c": ("CRC32C", objects.encoded(crc32c)),
        "md5": ("MD5 hash", base64.b64encode(md5).decode()),
    }
    for short, value in wanted.items():
        name, right = real[short]
        if value != right:
            message = f'Provided {name} "{value}" doesn\'t match calculated {name} "{right}".'
            raise errors.invalid(message)
