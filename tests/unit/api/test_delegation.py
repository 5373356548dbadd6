# SPDX-License-Identifier: Apache-2.0
"""What becomes of a trust when the rows that are to name it can not be written."""

from typing import Any

import pytest
from oslo_db import exception as db_exceptions

from ciming import exceptions, trusts
from ciming.api import delegation


@pytest.mark.parametrize(
    ("error", "taken_back"),
    [
        (exceptions.Conflict("Another one works on it."), ["trust-1"]),
        (RuntimeError("nobody thought of this"), ["trust-1"]),
        # They may be written, and only the answer be lost; if not, an engine finds the trust.
        (db_exceptions.DBConnectionError(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_trust_is_taken_back_only_if_nothing_can_name_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, taken_back: list[str]
) -> None:
    found: list[str] = []
    made = delegation.Trust("trust-1", "pending-1")
    monkeypatch.setattr(delegation, "_trust_or_token", lambda *_: (made, None))
    monkeypatch.setattr(trusts, "take_back", lambda _caller, trust_id: found.append(trust_id))
    nobody: Any = None
    with pytest.raises(type(error)), delegation.delegated(nobody, {}):
        raise error
    assert found == taken_back
