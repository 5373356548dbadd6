# SPDX-License-Identifier: Apache-2.0
"""Requests that are only to be done of a generation: https://cloud.google.com/storage/docs/request-preconditions.

A generation of 0 means that there is no such object. A read of what did not change is a 304.
"""

from collections.abc import Mapping

from tests.sandbox.gcp import errors
from tests.sandbox.gcp.store import Resource

NAMES = {
    "ifGenerationMatch": ("generation", True),
    "ifGenerationNotMatch": ("generation", False),
    "ifMetagenerationMatch": ("metageneration", True),
    "ifMetagenerationNotMatch": ("metageneration", False),
}
"""The parameters: what they are about, and whether it is to be the same."""


def check(said: Mapping[str, object], found: Resource | None, *, reading: bool = False) -> None:
    """Refused if the object, or that there is none, is not what the request is only for."""
    for name, (what, same) in NAMES.items():
        if name not in said:
            continue
        wanted = number(name, said[name])
        if (wanted == int(found[what] if found else 0)) is same:
            continue
        if reading and not same:
            raise errors.NotModified
        raise errors.condition("At least one of the pre-conditions you specified did not hold.")


def number(name: str, value: object) -> int:
    """Return a parameter that is a number; Refused if it is none."""
    text = str(value)
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise errors.invalid(f"Invalid value for {name}: '{text}'")
    return int(text)
