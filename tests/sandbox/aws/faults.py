# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on demand."""

import dataclasses
import threading
from typing import Any, get_args

from tests.sandbox.aws import errors

KINDS: dict[str, errors.Cause | None] = {
    "throttle": "throttled",
    "500": "internal",
    "503": "unavailable",
    "auth": "unknown key",
    "denied": "denied",
    "throttling": None,  # EBS direct has three codes for it
    "concurrent": None,
    "quota": None,
    "reset": None,  # nothing is done, and the connection ends
    "lost": None,  # it is done, and the connection ends
    "slow": None,  # it is done `seconds` later
    "corrupt": None,  # a block is stored, or answered, with one bit flipped
    "fail": None,  # it is accepted, and fails afterwards
}
"""The kinds, and the cause of those that are an answer."""

QUOTAS: dict[str, errors.Code] = {
    "RegisterImage": errors.Code("AMIQuotaExceeded"),
    "CopyImage": errors.Code("ResourceLimitExceeded"),
    "ImportSnapshot": errors.Code("ResourceCountLimitExceeded"),
    "ebs": errors.Code("ServiceQuotaExceededException", 402),
    "ec2": errors.Code("ResourceLimitExceeded"),
    "s3": errors.Code("TooManyBuckets"),
    "kms": errors.Code("LimitExceededException"),
    "sts": errors.Code("Throttling"),
}
"""What a quota is called, by action or else by service."""

MESSAGES: dict[errors.Cause, str] = {
    "throttled": "Rate exceeded",
    "internal": "An internal error has occurred",
    "unavailable": "The service is unavailable. Please try again shortly.",
    "unknown key": "AWS was not able to validate the provided access credentials",
    "denied": "You are not authorized to perform this operation.",
}
assert set(MESSAGES) <= set(get_args(errors.Cause))


@dataclasses.dataclass
class Fault:
    """What goes wrong with calls of an action (``*``: any), `times` times, after `after` that go well."""

    kind: str
    action: str = "*"
    service: str = "*"
    region: str = "*"
    times: int = 1
    after: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault must be one of {', '.join(KINDS)}")

    def hits(self, service: str, action: str, region: str) -> bool:
        pairs = ((self.service, service), (self.action, action), (self.region, region))
        return all(wanted in ("*", given) for wanted, given in pairs)

    def refusal(self, service: str, action: str) -> errors.Refused | None:
        """Return the answer that the fault is, if it is one."""
        if self.kind == "quota":
            code = QUOTAS.get(action) or QUOTAS[service]
            more = {"Reason": "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"} if code.status == 402 else {}
            return errors.Refused(
                code.name, "You have reached the limit of your account.", code.status, **more
            )
        if self.kind == "throttling":
            return errors.Refused("ThrottlingException", "Rate exceeded")
        if self.kind == "concurrent":
            return errors.Refused("ConcurrentLimitExceededException", "Too many requests at the same time")
        cause = KINDS[self.kind]
        if cause is None:
            return None
        more = {"Reason": "ACCOUNT_THROTTLED"} if (service, cause) == ("ebs", "throttled") else {}
        return errors.refusal(service, cause, MESSAGES[cause], **more)


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

    def take(self, service: str, action: str, region: str) -> Fault | None:
        """Return the fault that this call has, if it has one, and count it."""
        if not self._waiting:
            return None
        with self._lock:
            for fault in self._waiting:
                if not fault.hits(service, action, region):
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if not fault.times:
                    self._waiting.remove(fault)
                return fault
        return None
