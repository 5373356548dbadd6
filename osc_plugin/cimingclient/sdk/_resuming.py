# SPDX-License-Identifier: Apache-2.0
"""Sending what the service does not have yet, on a line that breaks: tus 1.0.0."""

import time
from collections.abc import Callable
from typing import NamedTuple

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions

from cimingclient.sdk import _waiting

HEADERS = {"Tus-Resumable": "1.0.0"}
PART = HEADERS | {"Content-Type": "application/offset+octet-stream", "Connection": "close"}

#: Codes of refusals that go away: the line broke, or the service has not noticed yet that it did.
_PASSING = {"upload.incomplete", "upload.locked", "upload.lost", "upload.too_many", "upload.wrong_offset"}
_LONGEST = 5.0


class Offset(NamedTuple):
    """Bytes that the service has, and bytes there are in all (None: it was not told)."""

    done: int
    size: int | None


def send(
    ask: Callable[[], Offset],
    part: Callable[[int], Offset],
    *,
    known: Offset | None,
    again: bool,
    patience: float,
) -> bool:
    """Send part after part until the service has all; False where it had all before.

    :param part: sends from a byte on, and returns what the service has then.
    :param known: what the service has: it is not asked before something went wrong.
    :param again: whether the same bytes can be sent a second time.
    :param patience: seconds after a failure without a byte more, after which to give up.
    """
    reached, pause, sent = -1, 0.1, False
    failing_since: float | None = None
    while True:
        try:
            offset, known = known or ask(), None
            while offset.done != offset.size:
                if offset.done > reached:
                    reached, failing_since, pause = offset.done, None, 0.1
                sent = True
                offset = part(offset.done)
            return sent
        except (exceptions.HttpException, ksa_exceptions.ClientException) as exc:
            now = time.monotonic()
            failing_since = failing_since or now  # a part may take hours, and get far
            if not again or not _passes(exc) or now - failing_since > patience:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)


def _passes(exc: Exception) -> bool:
    full = getattr(exc, "status_code", None) == 507
    return (_waiting.passes(exc) and not full) or _code(exc) in _PASSING


def _code(exc: Exception) -> str:
    try:
        return str(exc.response.json()["errors"][0]["code"])  # type: ignore[attr-defined]
    except (AttributeError, ValueError, LookupError, TypeError):
        return ""  # not the service's own answer
