# SPDX-License-Identifier: Apache-2.0
"""What stands before the application."""

import pytest
from keystonemiddleware import auth_token

from ciming.api import middleware


@pytest.mark.parametrize(
    "token", ["", "x\r\n swordfish", " swordfish", "sword fish", "swordfish\0", "swördfish"]
)
def test_what_can_be_no_token_is_not_sent_to_keystone(token: str) -> None:
    """The error that it is no header's value would quote it."""
    unasked = middleware.AuthToken.__new__(middleware.AuthToken)
    with pytest.raises(auth_token.InvalidToken) as caught:
        unasked.fetch_token(token)
    assert "sword" not in str(caught.value)
