# SPDX-License-Identifier: Apache-2.0
"""Thin tasks: each names a step and hands it to the tools.

`tools` and `staged` are injected anew at each load and never persisted; what a task returns is persisted,
so it is small and holds no secret. A task that was running when its engine died is executed again.
"""

import contextlib
from pathlib import Path
from typing import Any

from taskflow import task

from ciming import disk_image, staging

Dict = dict[str, Any]


class Locate(task.Task):  # type: ignore[misc]  # TaskFlow is untyped
    """Find the image that is the source, and have room for it."""

    def execute(self, tools: Any) -> None:
        tools.attempt("download", tools.locate)


class Receive(task.Task):  # type: ignore[misc]
    """Read the source once: look at the bytes, and hash them, as they pass."""

    default_provides = "received"

    def execute(self, tools: Any) -> Dict:
        return tools.attempt(tools.receiving, lambda: self._receive(tools)).to_dict()  # type: ignore[no-any-return]

    @staticmethod
    def _receive(tools: Any) -> staging.StagedFile:
        inspector = disk_image.Inspector(tools.declared_format, tools.max_virtual_size)
        hasher = staging.Hasher("sha512", "sha256")
        with contextlib.closing(tools.blocks()) as blocks:
            for block in blocks:
                inspector.feed(block)
                hasher.update(block)
                tools.looked_at(len(block), inspector.settled)
        found = inspector.finish()
        return tools.received(found.disk_format, found.virtual_size, hasher.digests())  # type: ignore[no-any-return]


class Inspect(task.Task):  # type: ignore[misc]
    """Hold the file against what was promised, and look at its structure as a whole."""

    def execute(self, tools: Any, received: Dict) -> None:
        tools.attempt("inspect", lambda: self._inspect(tools, staging.StagedFile.from_dict(received)))

    @staticmethod
    def _inspect(tools: Any, received: staging.StagedFile) -> None:
        staged = tools.find(received)
        tools.check_promises(staged)
        with tools.working():
            what = disk_image.Inspection(staged.disk_format, staged.virtual_size)
            disk_image.check_structure(Path(staged.path), what, tools.alive)
            tools.check_disk(staged)
        tools.finish(staged)


class Check(task.Task):  # type: ignore[misc]
    """Fail before any byte moves what would fail after."""

    def execute(self, tools: Any) -> None:
        tools.await_known()
        tools.attempt("check", tools.check)


class Upload(task.Task):  # type: ignore[misc]
    """Bring the bytes into the cloud; revert removes whatever this Target made there."""

    default_provides = "blob"

    def execute(self, tools: Any) -> str:
        return str(tools.attempt("upload", tools.upload))

    def revert(self, tools: Any, **_kwargs: Any) -> None:
        tools.withdraw()


class Register(task.Task):  # type: ignore[misc]
    """Make the bytes an image that can be used."""

    default_provides = "image_ref"

    def execute(self, tools: Any, blob: str) -> str:
        return str(tools.attempt("register", lambda: tools.register(blob)))


class Verify(task.Task):  # type: ignore[misc]
    """Prove that what arrived is what was sent."""

    default_provides = "proof"

    def execute(self, tools: Any, image_ref: str) -> str:
        tools.await_whole()     # it was, when the last byte was sent; after a crash it is looked at again
        return str(tools.attempt("verify", lambda: tools.verify(image_ref)))


class Link(task.Task):  # type: ignore[misc]
    """Know the image in this cloud as ours from now on."""

    def execute(self, tools: Any, image_ref: str, proof: str) -> None:
        tools.attempt("link", lambda: tools.link(image_ref, proof))


class Compare(task.Task):  # type: ignore[misc]
    """Look at the image that a person says is ours."""

    default_provides = ("image_ref", "proof")

    def execute(self, tools: Any) -> tuple[str, str]:
        return tools.attempt("verify", tools.compare)  # type: ignore[no-any-return]


class Update(task.Task):  # type: ignore[misc]
    """Say in the Cloud what is said of the Image; to say it twice is as once, so there is nothing to undo."""

    def execute(self, tools: Any) -> None:
        tools.attempt("update", tools.update)


class Delete(task.Task):  # type: ignore[misc]
    """Delete the image in the Cloud; one that is not there is fine."""

    def execute(self, tools: Any) -> None:
        tools.attempt("withdraw", tools.delete)


class Unlink(task.Task):  # type: ignore[misc]
    """Know the image in this Cloud no more."""

    def execute(self, tools: Any) -> None:
        tools.attempt("link", tools.unlink)


class Know(task.Task):  # type: ignore[misc]
    """Which image it is there, as the plan of a sync has found it."""

    default_provides = ("image_ref", "proof")

    def execute(self, tools: Any) -> tuple[str, str]:
        return tools.known()  # type: ignore[no-any-return]


class HoldZones(task.Task):  # type: ignore[misc]
    """Be the only sync of these zones."""

    def execute(self, tools: Any) -> None:
        tools.hold_zones()


class Plan(task.Task):  # type: ignore[misc]
    """Compare the zones, and note what is to be done."""

    def execute(self, tools: Any) -> None:
        tools.attempt("plan", tools.plan)


class Bring(task.Task):  # type: ignore[misc]
    """Have the images brought, each by a Job of its own."""

    def execute(self, tools: Any) -> None:
        tools.bring()


class Prune(task.Task):  # type: ignore[misc]
    """Delete what only the targets have, where that is wanted."""

    def execute(self, tools: Any) -> None:
        tools.attempt("prune", tools.prune)
