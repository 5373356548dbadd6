# SPDX-License-Identifier: Apache-2.0
"""What the stand-in knows: who may call, and what was made. Disks are in sparse files."""

import dataclasses
import datetime
import pathlib
import secrets
import threading
from typing import Any

from google.cloud import compute_v1

from tests.sandbox.gcp import faults
from tests.sandbox.gcp.store import Store

GIB = 1 << 30


@dataclasses.dataclass
class Settings:
    """How slow things are; a test changes it by ``StandIn.settings(...)``."""

    pending_seconds: float = 0.1
    """How long an operation stays PENDING."""
    image_seconds: float = 0.3
    """The least time for which making an image is RUNNING."""
    change_seconds: float = 0.1
    """How long any other operation is RUNNING."""
    wait_seconds: float = 120.0
    """How long globalOperations.wait waits at most."""
    token_seconds: int = 3600
    """How long a token is good."""
    token_mark: str = ""
    """What is a part of every token."""
    session_seconds: float = 7 * 24 * 3600.0
    """How long the URI of a resumable upload is good."""
    failed_images_stay: bool = True
    """Whether an image that could not be made stays, as FAILED, or is gone."""
    page_size: int = 0
    """The most that a page of a list holds, whatever is asked for; 0: what is asked for. It may be less."""


@dataclasses.dataclass(frozen=True)
class Account:
    """A service account."""

    name: str
    project: str
    email: str


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a service account; `public` verifies what it signs."""

    id: str
    account: Account
    public: Any


@dataclasses.dataclass(frozen=True)
class Token:
    """A token that was given out."""

    key: Key
    scopes: frozenset[str]
    ends: float


@dataclasses.dataclass
class Image:
    """One image: `spec` is what is shown of it."""

    project: str
    spec: compute_v1.Image
    file: pathlib.Path
    made: datetime.datetime = dataclasses.field(default_factory=lambda: now())
    policy: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"projects/{self.project}/global/images/{self.spec.name}"


@dataclasses.dataclass
class Operation:
    """One operation; `ended` is set when it is DONE."""

    project: str
    spec: compute_v1.Operation
    made: datetime.datetime
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)


class State:
    """Everything; whoever reads or writes it holds the lock, but not while data move."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.url = ""
        self.lock = threading.RLock()
        self.settings = Settings()
        self.faults = faults.Faults()
        self.loosened = threading.Event()
        """Set when operations that are stuck by now go on."""
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, Key] = {}
        self.tokens: dict[str, Token] = {}
        self.callers: set[str] = set()
        """Ids of keys that somebody has been known by."""
        self.allowed: dict[str, tuple[str, ...]] = {}
        """Patterns of permissions, by account."""
        self.store = Store(directory / "objects")
        self.images: dict[tuple[str, str], Image] = {}
        self.operations: dict[tuple[str, str], Operation] = {}
        self.requests: dict[tuple[str, str], tuple[str, Operation]] = {}
        """By project and requestId: the request, and the operation that it began."""
        self.counters: dict[str, int] = {"bytes": 0}

    @property
    def disks(self) -> pathlib.Path:
        return self.directory / "disks"

    def clear(self) -> None:
        """Forget what was made."""
        for image in self.images.values():
            image.file.unlink(missing_ok=True)
        for things in (self.images, self.operations, self.requests):
            things.clear()
        self.store.clear()

    def count(self, what: str, how_many: int = 1) -> None:
        with self.lock:
            self.counters[what] = self.counters.get(what, 0) + how_many


@dataclasses.dataclass
class Call:
    """One call that was made by somebody who is known."""

    state: State
    action: str
    account: Account
    fault: faults.Fault | None

    def has(self, kind: str) -> bool:
        """Tell whether the call has a fault of the kind."""
        return self.fault is not None and self.fault.kind == kind


def new_id() -> int:
    """Return an id as Compute makes them."""
    return 10**18 + secrets.randbelow(8 * 10**18)


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def rfc3339(time: datetime.datetime) -> str:
    """Return a time as both services write it."""
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
