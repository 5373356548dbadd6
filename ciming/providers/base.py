# SPDX-License-Identifier: Apache-2.0
"""The provider's door: all that CIMinG asks of a kind of cloud.

Every method is safe to call twice. `key` is the Target's id: it goes out as a tag, label or property, and
what bears it (and is owned by us) is adopted instead of made again.
"""

import abc
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar, Literal, Protocol

from ciming import exceptions, staging

Proof = Literal["bytes", "guest", "asserted"]
Alive = Callable[[], None]
GROUP = "ciming.providers"


@dataclass(frozen=True)
class ImageSpec:
    """What a person said about the image, and its identity."""

    image_id: str
    name: str
    properties: Mapping[str, str] = field(default_factory=dict)
    min_disk: int = 0           # GiB
    min_ram: int = 0            # MiB
    visibility: str | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None    # the project that is to have it there; None: whose credential it is


@dataclass(frozen=True)
class Description:
    """What an image in a cloud is, for who wants to read, link or delete it."""

    image_ref: str
    name: str
    size: int | None            # bytes of its file
    disk_format: str | None
    digests: Mapping[str, str] = field(default_factory=dict)       # of its file, by hashlib's names: hex
    properties: Mapping[str, str] = field(default_factory=dict)    # those that hold in other clouds, too
    min_disk: int = 0           # GiB
    min_ram: int = 0            # MiB
    tags: tuple[str, ...] = ()
    unreadable: str | None = None       # why its bytes can not be read
    protected: bool = False


@dataclass(frozen=True)
class Surveyed:
    """An image in a zone, with all that a sync of zones compares and carries."""

    image_ref: str
    name: str
    owner: str
    status: str                 # in the cloud's own word
    size: int | None            # bytes of its file
    digest: str | None          # of its file: `algorithm:hex`
    created_at: str             # ISO 8601 in UTC
    visibility: str = "private"
    tags: tuple[str, ...] = ()
    protected: bool = False
    hidden: bool = False
    min_disk: int = 0           # GiB
    min_ram: int = 0            # MiB
    properties: Mapping[str, str] = field(default_factory=dict)     # but for the cloud's own, and ours
    mark: str | None = None     # id of the Image that it was made as
    unreadable: str | None = None       # why its bytes can not be read
    members: tuple[str, ...] | None = None      # projects that it is shared with, where that was asked


@dataclass(frozen=True)
class Verdict:
    """What one look at a cloud came to."""

    check: str              # what was looked at, in a word
    passed: bool | None     # None: it can not be told
    message: str


class Transfer(Protocol):
    """How a provider tells of a transfer's progress, and hears that it must stop."""

    @property
    def checkpoint(self) -> Mapping[str, Any] | None:
        """What save_checkpoint() was last given for this Target, also before a crash."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep what is needed to go on after a crash; nothing that grants access."""

    def progress(self, bytes_done: int) -> None:
        """So many bytes of the whole have arrived."""

    def blocks(self, staged: staging.Staged) -> Iterator[bytes]:
        """All bytes of a staged file in order, waiting for those that are still to come.

        Asks alive() before each block, and reports progress.
        """

    def alive(self) -> None:
        """Ask between parts and before each mutation.

        :raises Interrupted: stop at once, undo nothing
        """


class Provider(abc.ABC):
    """One cloud, reached with one credential.

    Methods raise ProviderError (for good) and TransientProviderError (worth another attempt), with a
    text that is safe to store and show.
    """

    follows: ClassVar[bool] = False
    """Does upload() take the bytes by Transfer.blocks(), so that they may still be on their way?"""

    @abc.abstractmethod
    def __init__(self, place: Mapping[str, Any], credential: Any) -> None:
        """:param place: where the cloud is: region, endpoint, … as the provider's config has it"""

    @property
    @abc.abstractmethod
    def formats(self) -> tuple[str, ...]:
        """Disk formats that this cloud takes, best first. It may be asked for them."""

    @abc.abstractmethod
    def check(self, staged: staging.Staged) -> None:
        """Fail now what would fail after hours of work: reachable, logged in, format taken."""

    @abc.abstractmethod
    def upload(
        self, staged: staging.Staged, spec: ImageSpec, key: str, transfer: Transfer
    ) -> str:
        """Bring the bytes there; the id of what holds them."""

    copies: ClassVar[bool] = False
    """May copy() find a way?"""

    def copy(
        self,
        place: Mapping[str, Any],
        image_ref: str,
        spec: ImageSpec,
        key: str,
        transfer: Transfer,
    ) -> str | None:
        """Have the cloud itself bring the bytes from another Cloud of the same provider, as upload() would.

        :param place: where that Cloud is
        :return: the id of what holds them; None: this can not be done
        :raises ProviderError: the cloud does not want to; nothing of it is left
        """
        return None

    @abc.abstractmethod
    def register(self, blob: str, spec: ImageSpec, key: str, alive: Alive = lambda: None) -> str:
        """Make them an image that can be used; its ref.

        :param alive: as verify() has it
        """

    @abc.abstractmethod
    def verify(self, image_ref: str, staged: staging.Staged, alive: Alive = lambda: None) -> Proof:
        """Prove that the image is what was staged.

        :param alive: to be asked now and then, where it takes long, see Transfer
        :raises ProviderError: it is not
        """

    def remarks(self, staged: staging.Staged, spec: ImageSpec) -> Sequence[str]:
        """In what the image is another there, and what could not be said of it: for a person to know."""
        return ()

    @abc.abstractmethod
    def discard(self, key: str, alive: Alive = lambda: None) -> None:
        """Remove whatever bears the key; absent is fine.

        :param alive: to be asked before each removal, see Transfer
        """

    @abc.abstractmethod
    def show(self, image_ref: str) -> Mapping[str, Any] | None:
        """The cloud's own metadata of an image; None: it is not there."""

    @abc.abstractmethod
    def list(self, filters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """The cloud's own metadata of all images that match."""

    def survey(self, owner: str | None = None) -> Iterator[Surveyed]:
        """All images that can be seen, hidden ones too; of one owner, where one is named.

        :raises ProviderError: a cloud of this kind is no zone
        """
        raise _no_zone()

    def members(self, image_ref: str) -> Sequence[str]:
        """Projects that an image is shared with."""
        raise _no_zone()

    def settle(self, image_ref: str, carry: Mapping[str, Any], alive: Alive = lambda: None) -> None:
        """Have an image be as `carry` says: some or all of the fields of Surveyed, `members` as well.

        Of properties those that are named; None removes one.

        :param alive: to be asked before each change
        """
        raise _no_zone()

    @abc.abstractmethod
    def describe(self, image: str) -> Description | None:
        """The image of this ref, or the only one of this name; None: there is none that can be seen.

        :raises ProviderError: several have this name
        """

    @abc.abstractmethod
    def probe(self) -> Iterator[Verdict]:
        """Look whether this cloud can be used, for who wants to know it before: one thing after another.

        Where it makes something, it removes that again. It raises nothing that a Verdict can tell.
        """

    @abc.abstractmethod
    def delete(self, image_ref: str) -> None:
        """Delete an image; absent is fine."""

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        """The bytes of an image as they come, from an offset on: none where it has no more.

        :raises ProviderError: this cloud lets no image out
        """
        raise exceptions.ProviderError("This cloud lets no image out.", code="cloud.no_download")

    def hang_up(self) -> None:  # noqa: B027  # where calls can not hang
        """End, from another thread, the calls that run: each raises an error that passes."""


def _no_zone() -> exceptions.ProviderError:
    return exceptions.ProviderError("A cloud of this kind is no zone.", code="zone_sync.no_zone")


@functools.cache     # to look through all that is installed takes longer than to write a row
def load(name: str) -> type[Provider]:
    """The class of a provider, by its entry point.

    :raises ProviderError: none of this name is installed
    """
    for entry in metadata.entry_points(group=GROUP, name=name):
        found: type[Provider] = entry.load()
        return found
    raise exceptions.ProviderError(
        f"The provider {name} is not installed.", code="provider.not_installed"
    )
