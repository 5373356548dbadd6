# SPDX-License-Identifier: Apache-2.0
"""What the contract suite needs of a kind of cloud, beside its provider: a look from outside."""

import abc
import contextlib
import hashlib
import json
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from ciming import exceptions, staging
from ciming.providers import base
from tests.sandbox import sandbox

Result = TypeVar("Result")


class Subject(abc.ABC):
    """One cloud, with an account that may do all and one that may do nothing."""

    name: ClassVar[str]
    """The provider's entry point."""
    proof: ClassVar[base.Proof]
    foreign_format: ClassVar[str]
    """A disk format that this cloud does not take."""
    unit: ClassVar[int] = 1
    """Bytes of which a disk there has a whole number: zeros are added to it."""
    knows_digests: ClassVar[bool] = True
    """Does it tell digests of the files that it has?"""
    lets_out: ClassVar[bool] = True
    """Can what was brought there be read again?"""
    renames: ClassVar[bool] = False
    """Can the name of an image be changed, and not only something that stands beside it?"""
    carries: ClassVar[frozenset[str]] = frozenset({"deprecated"})
    """Of `hidden` and `deprecated`, what can be said of an image there."""

    @abc.abstractmethod
    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        """Make ready what is needed; `stack` clears it away."""

    @abc.abstractmethod
    def provider(self) -> base.Provider:
        """A new one, logged in anew: as after a crash."""

    @abc.abstractmethod
    def forbidden(self) -> base.Provider:
        """One whose credential may look, but make nothing."""

    @abc.abstractmethod
    def unreachable(self) -> base.Provider:
        """One whose cloud does not answer."""

    @abc.abstractmethod
    def refs(self, key: str) -> set[str]:
        """All that is ours and bears the key, seen from outside: images, and what is not one yet."""

    def absent(self) -> str:
        """A ref that nothing has."""
        return new_key()

    def parts(self, image_ref: str) -> set[str]:
        """What refs() may have given while it was made."""
        return {image_ref}

    @abc.abstractmethod
    def read(self, image_ref: str) -> bytes:
        """The bytes that the cloud gives to whoever uses the image, without the zeros it added at the end."""

    def size_of(self, staged: staging.StagedFile) -> int:
        """Bytes that its disk has there."""
        return -(-staged.size // self.unit) * self.unit

    def says(self, provider: base.Provider, image_ref: str, what: str) -> bool:
        """Is this said of an image, by now or for soon?

        :param what: one of `carries`
        """
        return bool(getattr(provider.show(image_ref), what))

    @abc.abstractmethod
    def squat(self, spec: base.ImageSpec, key: str) -> str:
        """A stranger's image that we can see, under our identity and with our mark; its ref."""

    @abc.abstractmethod
    def squatted(self, image_ref: str) -> bool:
        """Is the stranger's image as it was?"""

    @abc.abstractmethod
    def secrets(self) -> list[str]:
        """What must be in no text: the credential, and all tokens that providers have by now."""


class Transfer:
    """Notes what it is told; raises at the n-th question whether to go on."""

    def __init__(
        self,
        stop_at: int | None = None,
        reason: type[exceptions.Interrupted] = exceptions.Interrupted,
        checkpoint: Mapping[str, Any] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.told: list[int] = []
        self.asked = 0
        self._stop_at = stop_at
        self._reason = reason

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        self.checkpoint = json.loads(json.dumps(checkpoint))       # as a row keeps it

    def progress(self, bytes_done: int) -> None:
        self.told.append(bytes_done)

    def blocks(self, staged: staging.Staged) -> Iterator[bytes]:
        sent = 0
        for block in staging.read_blocks(staged.path):
            self.alive()
            self.progress(sent)
            yield block
            sent += len(block)

    def alive(self) -> None:
        self.asked += 1
        if self._stop_at is not None and self.asked >= self._stop_at:
            raise self._reason("Stop.")


def persistently(call: Callable[[], Result], attempts: int = 8) -> Result:
    """Do it again while its errors are passing ones, as the engine does."""
    for _ in range(attempts - 1):
        with contextlib.suppress(exceptions.TransientProviderError):
            return call()
        time.sleep(0.5)
    return call()


def stage(file: pathlib.Path, data: bytes, disk_format: str = "raw") -> staging.StagedFile:
    """Bytes as the stage flow leaves them."""
    file.write_bytes(data)
    digests = {name: hashlib.new(name, data).hexdigest() for name in ("sha256", "sha512")}
    return staging.StagedFile(str(file), disk_format, len(data), len(data), digests)


def new_spec(**values: Any) -> base.ImageSpec:
    image_id = str(uuid.uuid4())
    known = {"properties": {"architecture": "x86_64"}}
    return base.ImageSpec(**{"image_id": image_id, "name": f"contract {image_id}", **known, **values})


def new_key() -> str:
    return str(uuid.uuid4())
