# SPDX-License-Identifier: Apache-2.0
"""What the stand-in knows: who may call, and what was made. Data of blocks are in sparse files."""

import dataclasses
import datetime
import hashlib
import hmac
import pathlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.sandbox.aws import faults

BLOCK = 512 << 10
GIB = 1 << 30
REGIONS = ("us-east-1", "us-west-2", "eu-central-1", "eu-west-1")
NOT_OPTED_IN = ("ap-east-1",)
"""A region that exists, but that no account here has enabled."""


@dataclasses.dataclass
class Settings:
    """How slow things are; a test changes it by ``StandIn.settings(...)``."""

    completion_seconds: float = 0.2
    """How long a snapshot stays pending after CompleteSnapshot."""
    image_seconds: float = 0.1
    """How long an image stays pending after RegisterImage."""
    copy_seconds: float = 0.3
    """How long a copy takes."""
    import_seconds: float = 0.3
    """The least time that an import takes."""
    minute_seconds: float = 60.0
    """How long the minutes of StartSnapshot's Timeout are."""
    leaving_seconds: float = 0.0
    """How long an image is still described, as deregistered, after DeregisterImage."""
    consistency_seconds: float = 0.0
    """How long nobody sees a new object: the API is eventually consistent."""
    ebs_seconds: float = 0.0
    """How long EBS says of a snapshot that was begun, or that became complete, that it does not exist."""
    puts_per_second: int = 0
    """Blocks that may be put in a second; 0: any number."""
    checksum_needed: bool = False
    """Whether CompleteSnapshot is refused without one. AWS does not demand it: who sends it is tested so."""
    page_blocks: int = 10_000
    """How many blocks of a snapshot are in a page, at most."""
    page_token_seconds: float = 3600.0
    """How long the token lives that leads to the next one."""
    sparse_pages: bool = False
    """Whether every other page of a list is empty, but has a token: it may be."""
    encryption_by_default: bool = False
    block_public_access: bool = False
    session_mark: str = ""
    """What the secrets of a role's sessions end with, for who looks for them."""
    vmimport: bool = True
    """Whether the role that ImportSnapshot uses is there."""


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who signs: a user or a role's session."""

    name: str
    account: str
    arn: str
    user_id: str


@dataclasses.dataclass(frozen=True)
class Credential:
    """A key pair; a session's has a token and ends."""

    access_key: str
    secret_key: str
    caller: Caller
    token: str | None = None
    ends: float | None = None


@dataclasses.dataclass(frozen=True)
class Role:
    """A role that may be assumed by whoever knows the external id, if their account is trusted."""

    name: str
    account: str
    external_id: str
    trusted: frozenset[str]

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:role/{self.name}"


Tags = dict[str, dict[str, str]]
"""Tags by account: each account sees only those that it wrote, on a shared object too."""


@dataclasses.dataclass
class Snapshot:
    """One EBS snapshot."""

    id: str
    owner: str
    region: str
    size: int
    """GiB."""
    description: str
    file: pathlib.Path
    timeout: float
    """Seconds without a block after which it is given up."""
    key: str | None = None
    """ARN of the KMS key, if it is encrypted."""
    started: datetime.datetime = dataclasses.field(default_factory=lambda: now())
    touched: float = dataclasses.field(default_factory=time.time)
    sealed: bool = False
    ready_at: float = 0.0
    failure: str | None = None
    tags: Tags = dataclasses.field(default_factory=dict)
    users: set[str] = dataclasses.field(default_factory=set)
    public: bool = False
    digests: dict[int, bytes] = dataclasses.field(default_factory=dict)
    writing: set[int] = dataclasses.field(default_factory=set)

    @property
    def status(self) -> str:
        if not self.sealed:
            return "error" if time.time() > self.touched + self.timeout else "pending"
        if time.time() < self.ready_at:
            return "pending"
        return "error" if self.failure else "completed"

    def may_use(self, account: str) -> bool:
        return self.public or account == self.owner or account in self.users


@dataclasses.dataclass
class Image:
    """One AMI: `spec` is what was registered, in the words of DescribeImages."""

    id: str
    owner: str
    region: str
    spec: dict[str, Any]
    created: datetime.datetime
    ready_at: float
    failure: str | None = None
    tags: Tags = dataclasses.field(default_factory=dict)
    users: set[str] = dataclasses.field(default_factory=set)
    public: bool = False
    deprecation: datetime.datetime | None = None
    leaves_at: float | None = None
    """When it is seen no more, once it was deregistered."""

    @property
    def lingers(self) -> bool:
        return self.leaves_at is not None and time.time() < self.leaves_at

    @property
    def state(self) -> str:
        if self.leaves_at is not None:
            return "deregistered"
        if time.time() < self.ready_at:
            return "pending"
        return "failed" if self.failure else "available"

    @property
    def snapshots(self) -> list[str]:
        devices = self.spec["BlockDeviceMappings"]
        return [one["Ebs"]["SnapshotId"] for one in devices if "SnapshotId" in one.get("Ebs", {})]

    def may_use(self, account: str) -> bool:
        return self.public or account == self.owner or account in self.users


@dataclasses.dataclass
class Key:
    """One KMS key."""

    id: str
    arn: str
    account: str
    region: str
    enabled: bool = True


@dataclasses.dataclass
class Task:
    """One import of a snapshot."""

    id: str
    owner: str
    region: str
    format: str
    bucket: str
    key: str
    description: str
    kms_key: str | None
    tags: Tags
    status: str = "active"
    message: str | None = "pending"
    progress: int = 0
    size: int = 0
    """Bytes of the object."""
    snapshot: str | None = None


class State:
    """Everything; whoever reads or writes it holds the lock, but not while data of blocks move."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.settings = Settings()
        self.faults = faults.Faults()
        self.credentials: dict[str, Credential] = {}
        self.callers: set[str] = set()
        """Ids of access keys that somebody has signed with, rightly."""
        self.policies: dict[str, tuple[str, ...]] = {}
        self.roles: dict[str, Role] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.images: dict[str, Image] = {}
        self.leaving: dict[str, Image] = {}
        """Images that were deregistered."""
        self.gone: set[str] = set()
        """Ids of what was deregistered."""
        self.keys: dict[str, Key] = {}
        self.tasks: dict[str, Task] = {}
        self.client_tokens: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
        """By action, account, region and token: the request's digest, and what it answered."""
        self.counters: dict[str, int] = {"puts": 0, "bytes": 0}
        self.second = (0, 0)
        """A second, and how many blocks were put in it."""
        self._secret = secrets.token_bytes(32)

    def seal(self, text: str) -> str:
        """Return what only this stand-in can say of the text: tokens of blocks and pages carry it."""
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:32]

    def clear(self) -> None:
        """Forget what was made."""
        for one in self.snapshots.values():
            one.file.unlink(missing_ok=True)
        for things in (
            self.snapshots,
            self.images,
            self.leaving,
            self.keys,
            self.tasks,
            self.client_tokens,
            self.gone,
        ):
            things.clear()

    def count(self, what: str) -> None:
        """Count a call."""
        with self.lock:
            self.counters[what] = self.counters.get(what, 0) + 1

    def fresh(self, made: float) -> bool:
        """Tell whether something is too new to be seen by all."""
        return time.time() < made + self.settings.consistency_seconds

    def image_users(self, snapshot_id: str) -> list[str]:
        """Return the images that use the snapshot."""
        return [image.id for image in self.images.values() if snapshot_id in image.snapshots]


@dataclasses.dataclass
class Call:
    """One call that was signed by somebody who may do this."""

    state: State
    service: str
    action: str
    caller: Caller
    region: str
    params: dict[str, Any]
    digest: bytes
    """SHA-256 of the body."""
    fault: faults.Fault | None

    @property
    def failure(self) -> str | None:
        """What shall become of the thing that is made, if it shall fail afterwards."""
        failing = self.fault is not None and self.fault.kind == "fail"
        return "Client.InternalError: it failed on demand" if failing else None


def new_id(prefix: str) -> str:
    """Return an id as EC2 makes them."""
    return f"{prefix}-0{secrets.token_hex(8)}"


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


Action = Callable[[Call], dict[str, Any]]
"""What a call does: its answer, in the words of the service's model."""
