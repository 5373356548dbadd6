# SPDX-License-Identifier: Apache-2.0
"""The provider's door: all that CIMinG asks of a kind of cloud.

Every method is safe to call twice. `key` is the Target's id: it goes out as a tag, label or property, and
what bears it (and is owned by us) is adopted instead of made again.
"""

import abc
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any, ClassVar, Literal, Protocol

from ciming import exceptions, staging

Proof = Literal["bytes", "guest", "asserted"]
State = Literal["ready", "pending", "off"]
"""Can an image be used: yes, not yet, not as it is."""
Alive = Callable[[], None]
GROUP = "ciming.providers"
EPOCH = datetime.fromtimestamp(0, UTC)


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
    unreadable_code: str = "source.not_readable"
    protected: bool = False


@dataclass(frozen=True)
class Changes:
    """What is said of an image anew; None: nothing."""

    name: str | None = None
    tags: tuple[str, ...] | None = None     # all that are its own
    untag: tuple[str, ...] = ()             # those that were, and are no more
    hidden: bool | None = None
    deprecated: bool | None = None

    def tagged(self, theirs: Iterable[str]) -> tuple[str, ...]:
        """The tags that it is to have, beside others' that it has there."""
        return tuple(dict.fromkeys([*(tag for tag in theirs if tag not in self.untag), *(self.tags or ())]))


@dataclass(frozen=True)
class Metadata:
    """What a cloud itself says of an image now; None: it has no such thing, or does not say it."""

    image_ref: str
    name: str
    status: str                             # in the cloud's own word
    state: State
    size: int | None = None                 # bytes of its file
    virtual_size: int | None = None         # bytes of its disk
    digests: Mapping[str, str] | None = None    # by hashlib's names, of its file; `guest`, of its disk: hex
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int | None = None             # GiB
    min_ram: int | None = None              # MiB
    visibility: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)     # by Glance's names
    hidden: bool | None = None
    deprecated: bool | None = None
    protected: bool | None = None
    image_id: str | None = None             # of the Image that it was made as: our mark
    created_at: int | None = None           # milliseconds since the epoch


@dataclass(frozen=True)
class Surveyed:
    """An image in a zone, with all that a sync of zones compares and carries."""

    image_ref: str
    name: str
    owner: str
    status: str                 # in the cloud's own word
    size: int | None            # bytes of its file
    digest: str | None          # of its file: `algorithm:hex`
    md5: str | None             # of the same
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
    keeps_properties: ClassVar[bool] = False
    """Does it say properties and tags as they were said to it?"""

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
    def show(self, image_ref: str) -> Metadata | None:
        """What the cloud says of an image; None: it is not there."""

    @abc.abstractmethod
    def list(
        self, filters: Mapping[str, str], marker: str | None = None, most: int | None = None
    ) -> Iterator[Metadata]:
        """What the cloud says of all images that match, page after page as they are asked for.

        :param filters: what `name`, `status` (the cloud's word), `tag`, `visibility`, `owner`, `digest` (any
            of them), `hidden` (`true`), or a property must be
        :param marker: a ref, where `ordered`: only what comes behind that image
        :param most: how many are wanted, where `ordered`
        """

    ordered: ClassVar[bool] = False
    """Has list() an order that stays, so that it can begin behind a marker?"""
    batch: ClassVar[int] = 1
    """Refs that one call can name."""

    def look(self, image_refs: Collection[str]) -> Iterator[Metadata]:
        """What the cloud says of these images, in few calls; of those that are not there, nothing."""
        left = set(image_refs)
        if len(left) > self.batch:
            for found in self.list(self.ours()):
                if found.image_ref in left:
                    left.remove(found.image_ref)
                    yield found
                if not left:
                    return
        refs = sorted(left)     # not everything is in lists
        for start in range(0, len(refs), self.batch):
            yield from self._named(refs[start : start + self.batch])

    def ours(self) -> Mapping[str, str]:
        """Filters of list() for what is our own, where it shows that of others, too.

        :raises ProviderError: the cloud does not say who we are
        """
        return {}

    def _named(self, image_refs: Collection[str]) -> Iterator[Metadata]:
        """What the cloud says of these, which are no more than `batch`."""
        for image_ref in image_refs:
            found = self.show(image_ref)
            if found is not None:
                yield found

    def survey(self, owner: str | None = None) -> Iterator[Surveyed]:
        """All images that can be seen, hidden ones too; of one owner, where one is named.

        :raises ProviderError: a cloud of this kind is no zone
        """
        raise _no_zone()

    def members(self, image_ref: str) -> Sequence[str]:
        """Projects that an image is shared with."""
        raise _no_zone()

    def settle(self, image_ref: str, carry: Mapping[str, Any], alive: Alive = lambda: None) -> None:
        """Have an image be as `carry` says: some of the fields of Surveyed, `members` as well; not its owner.

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
    def whose(self) -> str:
        """Where this credential's images are, in words: what is not there for another place may be there."""

    @abc.abstractmethod
    def delete(self, image_ref: str, alive: Alive = lambda: None) -> None:
        """Delete an image; absent is fine.

        :param alive: to be asked while that takes long, see Transfer
        """

    def clear_left(self, image_ref: str, alive: Alive = lambda: None) -> None:     # noqa: B027
        """Delete what an earlier delete of an image that is gone had to leave there, where there is such.

        :param alive: to be asked before each deletion, see Transfer
        """

    def update(
        self, image_ref: str, changes: Changes, alive: Alive = lambda: None
    ) -> Sequence[str]:
        """Have an image be as is said; what this cloud can not carry of that, for a person to know.

        :param alive: to be asked before each change, see Transfer
        :raises ProviderError: there is no such image, or it may not be changed
        """
        return ("This cloud can carry no change of an image: what it has stays as it is.",)

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        """The bytes of an image as they come, from an offset on: none where it has no more.

        :raises ProviderError: this cloud lets no image out
        """
        raise exceptions.ProviderError("This cloud lets no image out.", code="cloud.no_download")

    def hang_up(self) -> None:  # noqa: B027  # where calls can not hang
        """End, from another thread, the calls that run: each raises an error that passes."""


def gone(cloud: str, image_ref: str) -> exceptions.ProviderError:
    """The error of one who wants to change what is not there."""
    return exceptions.ProviderError(
        f"{cloud} has no image {image_ref[:255]} that you can see: it was deleted there, or is not shared "
        "with you any more. Unlink it there; then the image can be brought there again.",
        code="image_ref.not_found",
    )


def _no_zone() -> exceptions.ProviderError:
    return exceptions.ProviderError("A cloud of this kind is no zone.", code="zone_sync.no_zone")


@functools.cache     # to look through all that is installed takes longer than to write a row
def load(name: str) -> type[Provider]:
    """The class of a provider, by its entry point.

    :raises ProviderError: none of this name is installed, or not what it needs
    """
    for entry in metadata.entry_points(group=GROUP, name=name):
        try:
            found: type[Provider] = entry.load()
        except ImportError as error:
            raise exceptions.ProviderError(
                f"The provider {name} lacks what it needs: {error}. The service needs ciming[{name}].",
                code="provider.not_installed",
            ) from None
        return found
    raise exceptions.ProviderError(
        f"The provider {name} is not installed.", code="provider.not_installed"
    )


def fits(found: Metadata, filters: Mapping[str, str]) -> bool:
    """Is an image one that list() is to give?"""
    return all(_is(found, name, wanted) for name, wanted in filters.items())


def _is(found: Metadata, name: str, wanted: str) -> bool:
    if name == "tag":
        return wanted in found.tags
    if name == "digest":
        return wanted in (found.digests or {}).values()
    if name == "hidden":
        return bool(found.hidden) == (wanted == "true")
    if name == "status":        # some clouds write it in capitals
        return found.status.lower() == wanted.lower()
    return bool(getattr(found, name, found.properties.get(name)) == wanted)


def milliseconds(time: str | None) -> int | None:
    """Since the epoch, of a time in ISO 8601; None where it is none, or none that an image can have."""
    try:
        at = datetime.fromisoformat(str(time))
        return (at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None
