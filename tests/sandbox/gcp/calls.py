# SPDX-License-Identifier: Apache-2.0
"""What happens around each call: it is counted, it may go wrong on demand, and who makes it is known."""

import contextlib
import time
from collections.abc import Iterator

from tests.sandbox.gcp import errors, faults, tokens, wire
from tests.sandbox.gcp.state import Call, State


@contextlib.contextmanager
def unsigned(state: State, action: str) -> Iterator[faults.Fault | None]:
    """A call whose caller is known by other means than a token."""
    state.count(action)
    fault = state.faults.take(action)
    if fault is not None:
        if fault.kind == "reset":
            raise errors.Dropped
        time.sleep(fault.seconds)
        if refused := fault.refusal(action):
            raise refused
    yield fault
    if fault is not None and fault.kind == "lost":
        raise errors.Dropped


@contextlib.contextmanager
def call(state: State, request: wire.Request, action: str) -> Iterator[Call]:
    """A call by whoever the request's token names; Refused if that is nobody."""
    with unsigned(state, action) as fault:
        account = tokens.caller(state, request, action.partition(".")[0])
        yield Call(state, action, account, fault)
