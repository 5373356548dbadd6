# SPDX-License-Identifier: Apache-2.0
"""How buckets and objects may be named.

https://cloud.google.com/storage/docs/buckets#naming and
https://cloud.google.com/storage/docs/objects#naming
"""

import re

from tests.sandbox.gcp import errors

BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9_-]{1,61})[a-z0-9]")
RESERVED = (".", "..")


def check_bucket(name: object) -> str:
    """Return a bucket's name; Refused if none may be called so. Names of domains are not done here."""
    if not isinstance(name, str) or not BUCKET.fullmatch(name) or name.startswith("goog") or "google" in name:
        raise errors.invalid(f"Invalid bucket name: '{name}'")
    return name


def check_object(name: object) -> str:
    """Return an object's name; Refused if none may be called so."""
    if not isinstance(name, str) or not name:
        raise errors.invalid("Required", "required")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise errors.invalid("The name of the object is not valid UTF-8.") from None
    if length > 1024:
        raise errors.invalid("The maximum object length is 1024 characters, but got a name with more.")
    if name in RESERVED or "\r" in name or "\n" in name or name.startswith(".well-known/acme-challenge/"):
        raise errors.invalid(f"Disallowed unicode characters or name present in object name '{name}'")
    return name
