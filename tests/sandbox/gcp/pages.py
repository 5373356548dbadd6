# SPDX-License-Identifier: Apache-2.0
"""Pages of Storage's lists: https://cloud.google.com/storage/docs/paginate-results.

A token is good for the list that it came with, and for nothing else.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence

from tests.sandbox.gcp import errors, preconditions
from tests.sandbox.gcp.state import State

MOST = 1000


def cut(state: State, keys: Sequence[str], query: Mapping[str, str]) -> tuple[Sequence[str], str | None]:
    """Return the page of sorted keys that is asked for, and the token of the next one."""
    most = preconditions.number("maxResults", query.get("maxResults", str(MOST)))
    size = min(most or MOST, MOST, state.settings.page_size or MOST)
    if "pageToken" in query:
        last = _read(query["pageToken"])
        keys = [key for key in keys if key > last]
    if len(keys) <= size:
        return keys, None
    return keys[:size], base64.urlsafe_b64encode(keys[size - 1].encode()).decode()


def _read(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise errors.Refused(
            400, "invalid", f"Invalid page token: {token}", location=("parameter", "pageToken")
        ) from None
