# SPDX-License-Identifier: Apache-2.0
"""What the tasks of a Target's flow may touch: its provider, what is sent there, and the Target's row."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import credentials, disk_image, exceptions, growing, lazy, metrics, staging, zone_plans
from ciming.db import models, status, work
from ciming.engine import conversions, events, locating, slots, tools
from ciming.engine import watch as watch_
from ciming.providers import base

LOG = log.getLogger(__name__)
PROGRESS_SECONDS = 1.0
AFTER_CHECK = ("copy", "upload", "convert", "register", "verify")
"""Steps of a flow that begins with a check: of those that bring bytes."""
NOT_CONVERTED = tuple(set(disk_image.DISK_FORMATS) - set(disk_image.FORMATS_IN))
MOST_REMARKS = 100
SAID = ("name", "min_disk", "min_ram", "visibility", "hidden", "deprecated")
"""What is kept of it when an image is linked by hand."""


def planned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be changed of an image that is there, as Provider.settle() takes it."""
    carry = entry["carry"]
    if entry["symbol"] != zone_plans.METADATA:      # most of it was said when it was made
        late = {"protected": carry["protected"], "hidden": carry["hidden"]}
        late |= {"visibility": carry["visibility"] == "community" and carry["visibility"]}
        return {name: value for name, value in late.items() if value}
    differs = entry["differs"]
    wanted = {name: carry[name] for name in differs if name in carry}
    if carry["visibility"] != "shared":     # then nobody can be asked for members, nor need be
        wanted.pop("members", None)
    names = [name.removeprefix("properties.") for name in differs if name.startswith("properties.")]
    return {**wanted, "properties": {name: carry["properties"].get(name) for name in names}}


class TargetTools(tools.Tools):
    """For a Target's flow; also the Transfer that its provider reports to."""

    def __init__(
        self,
        job: models.Job,
        watch: watch_.Watch,
        staged: growing.GrowingFile,
        claim: work.Claim,
        target: models.Target,
        slot: slots.Slot,
        converted: conversions.Conversions | None = None,
    ) -> None:
        super().__init__(job, watch, staged)
        self._source = staged   # `staged` is what is sent: this, or that converted
        self._converted = converted
        self.key = target.id
        self.checkpoint: Mapping[str, Any] | None = target.checkpoint
        self._claim = claim
        self.target = target
        self._slot = slot
        self._meter = metrics.Meter(target)
        self._told = time.monotonic()
        self._undoing = False
        self._refused: str | None = None    # why the cloud did not copy the image by itself
        self._epoch = 0
        self._fault = target.error
        checked = job.kind in status.MOVING and target.step in AFTER_CHECK
        self._let_in = checked or target.checkpoint is not None
        self._source_provider: base.Provider | None = None

    @lazy.cached_property
    def spec(self) -> base.ImageSpec:
        """What is said about the image. Made when first used: when the source is known, where it has one."""
        return self._spec()

    def _spec(self) -> base.ImageSpec:
        job = work.load(self._claim)
        said, image = job.spec or {}, job.image     # which may have another name by now
        found = job.source if job.kind == "sync" or "source" in said else {}    # else it was lost meanwhile
        more = found.get("tags", ()) if job.kind == "sync" else ()      # else the Image has them by now
        if self.entry:
            return self._as_planned(self.entry["carry"])
        return base.ImageSpec(
            image_id=self.job.image_id,
            name=image.name,
            properties={**found.get("properties", {}), **said.get("properties", {})},
            min_disk=said.get("min_disk", found.get("min_disk", 0)),
            min_ram=said.get("min_ram", found.get("min_ram", 0)),
            visibility=said.get("visibility"),
            tags=tuple(dict.fromkeys([*image.tags, *more])),
        )

    @lazy.cached_property
    def entry(self) -> Mapping[str, Any]:
        """What a plan of zones says of the image there; nothing where there is no plan."""
        return tools.entry_of(self.job, self.target.cloud_key)

    def _as_planned(self, carry: Mapping[str, Any]) -> base.ImageSpec:
        return base.ImageSpec(
            image_id=str((self.job.spec or {})["source"]["image"]),     # another project's Image may be that
            name=carry["name"],
            properties=carry["properties"],
            min_disk=carry["min_disk"],
            min_ram=carry["min_ram"],
            # Nobody else is to see it before it is proven.
            visibility="private" if carry["visibility"] == "community" else carry["visibility"],
            tags=tuple(carry["tags"]),
            owner=carry["owner"],
        )

    def known(self) -> tuple[str, str]:
        """The image that a plan has found there, and how that is known."""
        return self.entry["there"], self.entry["proof"]

    @lazy.cached_property
    def provider(self) -> base.Provider:
        """The Target's cloud. Made when first used: inside an attempt."""
        return tools.provider_of(self.job, self.target)

    def alive(self) -> None:
        """:raises CimingError: the stage flow failed, and its bytes are needed here"""
        super().alive()
        if self._takes_bytes:
            self._source.check()

    @contextlib.contextmanager
    def cancelling(self) -> Iterator[None]:
        """Who is left without bytes ends by the reason for that, as well."""
        with super().cancelling():
            try:
                yield
            except exceptions.Cancelled:
                raise
            except exceptions.CimingError as error:
                if self._fault and error is self._source.failure:
                    self._tell(error, final=True)
                raise

    def _called(self) -> Iterable[base.Provider]:
        if "provider" in self.__dict__ and (self._watch.ends or not self._undoing):
            yield self.provider
        if self._source_provider is not None:
            yield self._source_provider

    @lazy.cached_property
    def _origins(self) -> Sequence[models.Link]:
        """Where its provider may copy the image from by itself: we have seen that it is this disk."""
        guest = self.job.image.digests.get("guest")
        if self.job.kind != "sync" or not guest:
            return ()
        with contextlib.suppress(exceptions.ProviderError):     # the first attempt will say so
            if base.load(self.target.provider).copies:
                links = [link for link in self.job.image.links if link.proof == "guest"]
                return [link for link in links if link.provider == self.target.provider]
        return ()

    @property
    def _takes_bytes(self) -> bool:
        """Does it need those that the stage flow brings, as far as is known?"""
        if self.entry.get("symbol") == zone_plans.METADATA:
            return False
        return self._refused is not None or not self._origins

    @property
    def _disk(self) -> staging.StagedFile:
        """What is known of it without its bytes."""
        size = int(self.job.image.virtual_size or 0)
        return staging.StagedFile("", "raw", size, size, {}, self.job.image.digests.get("guest"))

    def await_known(self) -> None:
        """Wait until enough of the image is known to begin."""
        if self._takes_bytes:
            with self.cancelling():
                self._await_known()

    def _await_known(self) -> None:
        """Wait until enough of its bytes are there; most providers need all of them."""
        follows = False
        with contextlib.suppress(exceptions.ProviderError):     # the first attempt will say so
            follows = base.load(self.target.provider).follows
        if follows:
            self.staged.await_known(self.alive)
        else:
            self.staged.await_whole(self.alive)

    def await_whole(self) -> None:
        """Wait until all that the proof needs is there, and fine."""
        if self._takes_bytes:
            with self.cancelling():
                self.staged.await_whole(self.alive)

    def check(self) -> None:
        """:raises ProviderError: what would fail later"""
        if self._takes_bytes:
            self._check_source()
        else:
            self.provider.check(self._disk)

    def _check_source(self) -> None:
        to = self._format_there()
        source, disk = self._source, self._source.virtual_size
        whole = disk if to == "raw" else 0      # how large another file becomes is not known
        self.provider.check(source if to is None else staging.StagedFile("", to, whole, disk, {}))

    def _format_there(self) -> str | None:
        """The format that the image has to be converted to for this cloud, if it has to be."""
        formats = self.provider.formats
        if self._source.disk_format in (*formats, *NOT_CONVERTED):
            return None
        return next((name for name in formats if name in disk_image.FORMATS_OUT), None)

    def _choose(self, step: str) -> None:
        """Send the image as it is; or converted, which has to be waited for.

        :param step: what it is needed for
        """
        self.staged = self._source
        if self._converted is None or self._format_there() is None:
            return
        self._write(step="convert")
        self._source.await_whole(self.alive)
        to = self._format_there()       # only its end told that it is a fixed VHD, and not raw
        if to is not None:
            self.staged = self._converted.of(to, hashed=self.provider.follows)
            self.staged.await_known(self.alive)
        self.target.bytes_total = self.staged.size
        self._write(step=step, bytes_total=self.staged.size)

    def _start_again(self) -> None:
        self._source.await_whole(self.alive)

    def upload(self) -> str:
        """Have the provider bring the bytes to its cloud; the id of what holds them."""
        if not self._takes_bytes:
            copied = self._copy()
            if copied is not None:
                return copied
        self.staged = self._source
        self._epoch = self.staged.epoch     # before anything is made of what is known of the file
        self._await_known()
        if self._origins:
            self._check_source()
        self._choose("upload")
        if self.staged is not self._source:
            self._epoch = self.staged.epoch
        try:
            if self.staged.whole or not self.provider.follows:
                self._slot.take(self.alive)
            return self.provider.upload(self.staged, self.spec, self.key, self)
        finally:
            self._slot.free()

    def _copy(self) -> str | None:
        """What the cloud itself brings from where the image is; None: it needs the bytes from us."""
        self._write(step="copy", bytes_total=0)
        refused = ""
        for link in self._origins:
            try:
                place = credentials.where(self.job, link)
                copied = self.provider.copy(place, link.image_ref, self._spec(), self.key, self)
            except (exceptions.TransientProviderError, exceptions.CredentialRefused):
                raise
            except exceptions.ProviderError as error:       # or its Cloud is registered no more
                LOG.info("Not copied from %s: %s", link.cloud, error)
                refused = f"It was not copied from {link.cloud}, but sent: {error.detail}"
                continue
            if copied is not None:
                self._write(bytes_total=0)      # whatever others wanted to be sent
                return copied
        self._refused = refused
        self.save_checkpoint({"copied": False})     # so it is not tried again when some were sent
        size = work.load(self._claim).file["size"]
        self._write(step="upload", bytes_total=size, remarks=self._remarks())
        return None

    def _remarks(self, *found: str) -> list[str] | None:
        """For a person to know."""
        remarks = [*([self._refused] if self._refused else ()), *found][:MOST_REMARKS]
        return [remark[:tools.LONGEST] for remark in remarks] or None

    def register(self, blob: str) -> str:
        """Have the provider make it an image; its ref."""
        return self.provider.register(blob, self.spec, self.key, self.alive)

    def verify(self, image_ref: str) -> str:
        """The proof that the cloud has the image: of what was converted, it can only be the same disk."""
        if not self._takes_bytes:       # however it came there: it has to be the disk that was proven before
            self._verify(image_ref, self._disk)
            return "guest"
        self._choose("verify")
        self.staged.await_whole(self.alive)
        proof = self._verify(image_ref, self.staged)
        if self.staged.guest is not None:
            work.proven(self._claim, self.staged.guest)
        another = self.staged is not self._source or self._source.converted_for
        return "guest" if another and proof == "bytes" else proof

    def _verify(self, image_ref: str, staged: staging.Staged) -> base.Proof:
        proof = self.provider.verify(image_ref, staged, self.alive)
        remarks = self._remarks(*self._as_found(), *self.provider.remarks(staged, self.spec))
        if remarks:
            self._write(remarks=remarks)
        return proof

    def _as_found(self) -> Iterator[str]:
        """That it comes from what was converted, where it does."""
        if self._takes_bytes and self._source.converted_for:
            grown = self._source.virtual_size - (self.job.image.virtual_size or 0)
            more = f", with {grown} bytes of zeros at its end" if grown else ""
            yield f"It is the disk as {self._source.converted_for} has it: in another file{more}."

    def blocks(self, staged: staging.Staged) -> Iterator[bytes]:
        """See Transfer. A slot is held only while there are bytes to be sent.

        :raises Stalled: begin again when all bytes are there
        """
        assert staged is self.staged
        epoch, position = self._epoch, 0
        while position < self.staged.size:
            self.alive()
            block = self.staged.read(position, epoch)
            if not block:
                self._slot.free()
                waiting = functools.partial(self._waiting, position)
                self.staged.await_next(position, epoch, waiting, cfg.CONF.engine.max_stall)
                continue
            self._slot.take(self._impatiently())
            self.progress(position)
            yield block
            position += len(block)
        self.progress(position)     # seen while the cloud makes up its answer

    def _waiting(self, position: int) -> None:
        self.alive()
        self.progress(position)

    def _impatiently(self) -> Callable[[], None]:
        """An alive() for who waits with an open request."""
        until = time.monotonic() + cfg.CONF.engine.max_stall

        def alive() -> None:
            self.alive()
            if time.monotonic() > until:
                raise growing.Stalled("others transfer")

        return alive

    def withdraw(self) -> None:
        """Remove what this Target made in its cloud; what can not be removed is said in its error."""
        self._undoing = True
        with contextlib.suppress(exceptions.CimingError):
            self.undo(self._withdraw)

    def _withdraw(self) -> None:
        self.provider.discard(self.key, self._watch.ask)
        if (self.checkpoint or {}).get("hides"):
            former = self.entry["there"]
            if self.provider.show(former):
                self.provider.settle(former, {"hidden": False}, self._watch.ask)
            self._write(remarks=None)

    def _place(self) -> str:
        return metrics.place(self.target)

    def _begun(self) -> str:
        refs = [value for value in (self.checkpoint or {}).values() if isinstance(value, str)]
        return f" ({', '.join(refs)})" if refs else ""

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        work.update_target(self._claim, self.key, checkpoint=dict(checkpoint))
        self.checkpoint = checkpoint

    def progress(self, bytes_done: int) -> None:
        """Written at a bounded rate; each write also asks whether the Job is still ours."""
        self._meter.reached(bytes_done)
        whole = bytes_done == self.target.bytes_total
        if not whole and time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        work.progress(self._claim, self.key, bytes_done)

    def compare(self) -> tuple[str, str]:
        """The image that a person says is ours: its ref, and how that is known.

        :raises ProviderError: there is none that they can see
        """
        found = self.provider.describe(self._ref)
        if found is None:
            raise exceptions.ProviderError(
                f"{self.target.cloud} has no image {self._ref[:255]} that you can see.",
                code="image_ref.not_found",
            )
        return found.image_ref, "bytes" if locating.same(found, self.job.image) else "asserted"

    def update(self) -> None:
        """Have the linked image in the Cloud be as its Image's row says by now.

        :raises ProviderError: it is gone, or may not be changed
        """
        job = work.load(self._claim)
        spec = job.spec or {}
        said = {name: getattr(job.image, name) for name in spec["said"]}
        if "tags" in said:
            said["tags"] = tuple(said["tags"])
            said["untag"] = tuple(tag for tag in spec["untag"] if tag not in said["tags"])
        [ref] = [link.image_ref for link in job.image.links if link.cloud_key == self.target.cloud_key]
        lost = self.provider.update(ref, base.Changes(**said), self.alive)
        told = {name: said[name] for name in ("hidden", "deprecated") if name in said}
        if {"name", "tags"} & said.keys():      # which it may have in another way, or not at all
            found = self.provider.show(ref)
            if "name" in said:
                told["name"] = found.name if found else said["name"]
            if "tags" in said:      # those of others are not ours to judge
                told["tags"] = [tag for tag in said["tags"] if found and tag in found.tags]
        work.updated(self._claim, self.key, ref, told, self._remarks(*lost))
        events.target_ended(self.job, self.target, "success")

    def delete(self) -> None:
        """Delete the linked image in the Cloud; what is another Image, too, is left for that one.

        :raises ProviderError: it is protected, or may not be deleted
        """
        found = self.provider.describe(self._ref)
        if found is None or found.image_ref != self._ref:
            self._check_whose()
            self.provider.clear_left(self._ref, self.alive)
            return
        if found.protected:
            raise exceptions.ProviderError(
                f"Image {self._ref} in {self.target.cloud} is protected: lift that there first.",
                code="image_ref.protected",
            )
        other = work.leave(self._claim, self.key, self._ref)
        if other:
            what = f"It is Image {other.id} ({other.name}), too, and was left for that one."
            self._write(remarks=self._remarks(what))
            return
        self.alive()
        self.provider.delete(self._ref, self.alive)

    def _check_whose(self) -> None:
        """:raises ProviderError: it was linked with a credential that sees what this one does not"""
        links = [link for link in self.job.image.links if link.cloud_key == self.target.cloud_key]
        whose = next(((link.told or {}).get("whose") for link in links), None)
        now = self.provider.whose() if whose else None
        if whose != now:
            raise exceptions.ProviderError(
                f"Image {self._ref} came to {self.target.cloud} with a credential of {whose}; this one is of "
                f"{now}, so whether it is still there can not be seen. Retry the Job with the former one, or "
                "unlink the image there.",
                code="credential.of_another",
            )

    def unlink(self) -> None:
        work.remove_link(self._claim, self.key)
        events.target_ended(self.job, self.target, "success")

    @property
    def _ref(self) -> str:
        """What the Job says that the image is called in this Cloud."""
        return str((self.job.spec or {})["refs"][self.target.cloud_key])

    def link(self, image_ref: str, proof: str) -> None:
        source = None
        if self.entry:
            self._settle(image_ref)
            if self.entry["symbol"] == zone_plans.METADATA:     # nobody has looked at its bytes
                said = (self.job.spec or {})["source"]
                carry = self.entry["carry"]
                told = {name: carry[name] for name in (*SAID, "tags", "properties") if name in carry}
                source = {**said, "image_ref": said["image"], "told": told}
        told = {**self._as_linked(image_ref), **tools.whose(self.target, self.provider)}
        work.add_link(self._claim, self.key, image_ref, proof, told, source)
        events.linked(self.job, self.target, image_ref, proof)

    def _as_linked(self, image_ref: str) -> dict[str, Any]:
        """What the Cloud was told of the image, or says of one that it had."""
        if self.job.kind == "link" or self.entry:
            found = self.provider.show(image_ref)
            if found is None:
                return {}
            said = {name: getattr(found, name) for name in SAID}
            return said | {"tags": list(found.tags), "properties": dict(found.properties)}
        said = {name: getattr(self.spec, name) for name in ("name", "min_disk", "min_ram")}
        if self.provider.keeps_properties:
            said |= {"tags": list(self.spec.tags), "properties": dict(self.spec.properties)}
            said |= {"visibility": self.spec.visibility} if self.spec.visibility else {}
        return said

    def _settle(self, image_ref: str) -> None:
        """Have the image be as planned; also in what can be said only of one that is whole and proven."""
        symbol, carry, former = (self.entry[name] for name in ("symbol", "carry", "there"))
        wanted = planned(self.entry)
        if symbol != zone_plans.METADATA and carry["visibility"] == "shared":
            said = (self.job.spec or {})["source"]
            self._source_provider = tools.provider_of(self.job, locating.place_of(said))
            members = self._source_provider.members(said["image"])
            wanted |= {"members": members} if members else {}
        if wanted:
            self.provider.settle(image_ref, wanted, self.alive)
        if symbol == zone_plans.CONTENT and former != image_ref:
            self._hide(former)

    def _hide(self, former: str) -> None:
        found = self.provider.show(former)
        if found is None:
            return
        if not found.hidden:        # else it is to stay so, whatever comes of this
            self.save_checkpoint({**(self.checkpoint or {}), "hides": True})
            self.provider.settle(former, {"hidden": True}, self.alive)
        self._write(remarks=self._remarks(f"It replaces image {former}, which is hidden now."))

    def _write(self, **values: Any) -> None:
        work.update_target(self._claim, self.key, **values)
