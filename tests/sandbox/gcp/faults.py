# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on demand.

- Storage's throttling is a 429: https://cloud.google.com/storage/docs/retry-strategy
- Compute's is a 403 with the reason rateLimitExceeded:
  https://cloud.google.com/compute/docs/api/how-tos/troubleshooting-apis
- A quota of images: https://cloud.google.com/compute/resource-usage
"""

import dataclasses
import fnmatch
import threading
from typing import Any

from tests.sandbox.gcp import errors

KINDS = (
    "throttle",
    "500",
    "502",
    "503",
    "auth",
    "denied",
    "quota",
    "reset",  # nothing is done, and the connection ends
    "lost",  # it is done, and the connection ends
    "cut",  # half of what is downloaded is answered, and the connection ends
    "slow",  # it is done `seconds` later
    "corrupt",  # what is stored, or answered, has one bit flipped; checksums are those of what is stored
    "grown",  # the disk of the image that is made is one GiB larger
    "fail",  # the operation is accepted, and ends with an error
    "stuck",  # the operation is accepted, and does not end before reset()
)


@dataclasses.dataclass
class Fault:
    """What goes wrong with calls of an action (a pattern), `times` times, after `after` that go well."""

    kind: str
    action: str = "*"
    times: int = 1
    after: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault must be one of {', '.join(KINDS)}")

    def refusal(self, action: str) -> errors.Refused | None:
        """Return the answer that the fault is, if it is one; `denied` is not said here."""
        if action == "token":
            return _TOKEN.get(self.kind)
        service = action.partition(".")[0]
        return _BOTH.get(self.kind) or _OWN[service].get(self.kind)


_BOTH = {
    "500": errors.Refused(500, "backendError", "Backend Error"),
    "502": errors.Refused(502, "badGateway", "Bad Gateway"),
    "503": errors.Refused(503, "backendError", "The service is currently unavailable.", status="UNAVAILABLE"),
    "auth": errors.Refused(
        401,
        "authError",
        "Invalid Credentials",
        status="UNAUTHENTICATED",
        location=("header", "Authorization"),
    ),
}
_OWN = {
    "compute": {
        "throttle": errors.Refused(
            403,
            "rateLimitExceeded",
            "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service "
            "'compute.googleapis.com'.",
        ),
        "quota": errors.Refused(403, "quotaExceeded", "Quota 'IMAGES' exceeded.  Limit: 2000.0 globally."),
    },
    "storage": {
        "throttle": errors.Refused(
            429,
            "rateLimitExceeded",
            "The rate of requests exceeds what the bucket is scaled for. Please reduce your request rate.",
        ),
        "quota": errors.Refused(403, "quotaExceeded", "The project exceeded its quota of stored bytes."),
    },
}
_TOKEN = {
    "throttle": errors.NoToken(429, "rate_limit_exceeded", "Rate limit exceeded."),
    "quota": errors.NoToken(429, "rate_limit_exceeded", "Rate limit exceeded."),
    "500": errors.NoToken(500, "internal_failure", "Internal failure."),
    "502": errors.NoToken(502, "bad_gateway", "The server encountered a temporary error."),
    "503": errors.NoToken(503, "temporarily_unavailable", "Try again later."),
    "auth": errors.NoToken(400, "invalid_grant", "Invalid JWT Signature."),
    "denied": errors.NoToken(400, "invalid_grant", "Invalid grant: account not found"),
}


class Faults:
    """What is still to go wrong."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, wanted: dict[str, Any]) -> None:
        """Plan a fault; ValueError or TypeError if it is none."""
        fault = Fault(**wanted)
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._waiting.clear()

    def take(self, action: str) -> Fault | None:
        """Return the fault that this call has, if it has one, and count it."""
        if not self._waiting:
            return None
        with self._lock:
            for fault in self._waiting:
                if not fnmatch.fnmatchcase(action, fault.action):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if not fault.times:
                    self._waiting.remove(fault)
                return fault
        return None
