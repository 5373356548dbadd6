# SPDX-License-Identifier: Apache-2.0
"""The door to AWS: one region of one account.

An image goes there as an EBS snapshot, written block by block or imported from S3, and an AMI is registered
of that. Both bear the Target's key as a tag, and so are found again; of other accounts' images nobody sees
our tags.
"""

import email.utils
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ciming import disk_image, exceptions, staging
from ciming.providers import base, pace
from ciming.providers.aws import images, imports, lifecycle, metadata, snapshots
from ciming.providers.aws.account import Account, Refusal

LARGEST = {"gp3": 64 << 40, "gp2": 16 << 40, "standard": 1 << 40}
"""Bytes of a volume: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EbsBlockDevice.html."""
VERIFY_UP_TO = 256      # GiB of a disk of which all is read back
SAMPLE = 2048           # blocks that are read back of a larger one,
ANYWHERE = 8            # of which one in so many may be a hole
COPYING = 12 * 3600     # seconds that a copy between regions may take
SKEW_SECONDS = 60       # AWS refuses signatures that are 5 minutes off
ALLOWED = "DryRunOperation"     # how EC2 says that it would do it


class AWS(base.Provider):
    """A region of AWS. Place: what `configs.aws.AWS` has, and what `Account` wants beside it.

    Where others use the same account, `tenant` is the project whose images are all that there is.
    """

    copies = True
    batch = 200     # values of a filter

    def __init__(self, place: Mapping[str, Any], credential: Mapping[str, str]) -> None:
        self._place = place
        self._account = Account(place, credential)
        self._name = self._account.name
        self._mark = _mark(place)
        said = (text.partition("=") for text in place.get("tags", ()))
        self._tags = {key: value for key, _, value in said}
        self._platform = metadata.PLAIN     # of the image that was proven last

    @property
    def formats(self) -> tuple[str, ...]:
        return ("raw",)

    def check(self, staged: staging.Staged) -> None:
        if staged.disk_format not in self.formats:
            raise exceptions.ProviderError(
                f"{self._name} takes no {staged.disk_format} images, only raw.",
                code="image.format_not_taken",
            )
        self._check_size(staged.virtual_size)
        self._account.ask("ec2", "DescribeSnapshots", OwnerIds=["self"], MaxResults=5)
        self._try_register()
        if self._by_import:
            if staged.size > imports.LARGEST:
                raise exceptions.ProviderError(
                    f"{staged.size} bytes are more than an object in S3 may have: {imports.LARGEST}. Such "
                    "an image can go by the route ebs-direct.",
                    code="image.too_large",
                )
            imports.check(self._bucket())

    def _check_size(self, count: int) -> None:
        kind = self._volume_type
        if count > LARGEST[kind]:
            raise exceptions.ProviderError(
                f"A disk of {count} bytes is larger than any volume of type {kind} of AWS: {LARGEST[kind]} "
                "bytes.",
                code="image.too_large",
            )

    @property
    def _by_import(self) -> bool:
        return self._place.get("route") == "s3-import"

    def _bucket(self) -> imports.Bucket:
        return imports.bucket(self._account, str(self._place["bucket"]))

    def upload(
        self, staged: staging.Staged, spec: base.ImageSpec, key: str, transfer: base.Transfer
    ) -> str:
        metadata.parameters(spec, self._name)       # before any byte moves
        self._check_size(spec.min_disk * snapshots.GIB)
        transfer.alive()
        found = self._find_snapshot(key)
        if found is not None and found["State"] not in ("pending", "completed"):
            snapshots.delete(self._account, found["SnapshotId"])        # AWS gave it up
            found = None
        bring = self._import if self._by_import else self._write
        snapshot_id = bring(found, staged, spec, key, transfer)
        transfer.progress(staged.size)
        return snapshot_id

    def copy(
        self,
        place: Mapping[str, Any],
        image_ref: str,
        spec: base.ImageSpec,
        key: str,
        transfer: base.Transfer,
    ) -> str | None:
        """By CopyImage, where that makes what register() would make; the checkpoint has its token."""
        checkpoint = transfer.checkpoint or {}
        image = next(self._find_images(key), None)
        if image is None and not self._may_copy(checkpoint, key):
            return None
        token = str(checkpoint.get("copy") or uuid.uuid4())
        if "copy" not in checkpoint:
            transfer.save_checkpoint({"copy": token})
        try:
            known = str(image["ImageId"]) if image else None
            image_id = known or self._copy(place, image_ref, spec, key, token, transfer)
            if image_id:
                transfer.save_checkpoint({"copy": token, "image": image_id})
                made = images.wait(self._account, image_id, transfer.alive, COPYING)
                return next(iter(images.snapshot_ids(made).values()), None)
        except exceptions.ProviderError as error:
            if isinstance(error, exceptions.TransientProviderError | exceptions.CredentialRefused):
                raise
            self.discard(key, transfer.alive)
            raise
        return None

    def _may_copy(self, checkpoint: Mapping[str, Any], key: str) -> bool:
        """Has no upload been begun?"""
        return "copy" in checkpoint if checkpoint else self._find_snapshot(key) is None

    def _copy(
        self,
        place: Mapping[str, Any],
        image_ref: str,
        spec: base.ImageSpec,
        key: str,
        token: str,
        transfer: base.Transfer,
    ) -> str | None:
        """A copy that was begun, and is seen; None: it would be another image.

        :raises ProviderError: AWS does not make it
        """
        if place.get("endpoint_url") != self._place.get("endpoint_url"):
            return None
        region = str(place["region"])
        image = self._show_in(region, image_ref, transfer)
        tags = snapshots.of_tags(image or {})
        if image is None or not {*self._mark.items(), *_mark(place).items()} <= {*tags.items()}:
            return None
        spec = metadata.beside(spec, image, tags)
        if not self._is_as_wanted(image, spec):
            return None
        if self._by_import:     # what a run that died may have begun there
            imports.discard(self._bucket(), key, self._of_key(key), transfer.alive)
        labels = {"image": self._image_tags(spec, key), "snapshot": self._snapshot_tags(spec, key)}
        more = {"Description": image["Description"]} if image.get("Description") else {}
        if self._place.get("kms_key"):
            more |= {"Encrypted": True, "KmsKeyId": self._place["kms_key"]}
        made = images.copy(self._account, image, region, spec, key, token, labels, more, transfer.alive)
        snapshots.await_seen(lambda: next(self._find_images(key), None))
        return made

    def _show_in(
        self, region: str, image_ref: str, transfer: base.Transfer
    ) -> Mapping[str, Any] | None:
        """An image of another region; where that does not let us in, or answer, its bytes may be elsewhere.

        :raises ProviderError: it does not
        """
        for look in range(images.LOOKS):
            if look:
                transfer.alive()
                time.sleep(look * 0.5)
            try:
                return images.show(self._account.in_region(region), image_ref)
            except pace.Throttled:
                raise
            except (exceptions.CredentialRefused, exceptions.TransientProviderError) as error:
                refused = error
            if isinstance(refused, exceptions.CredentialRefused):
                break
        raise exceptions.ProviderError(
            refused.detail, code=refused.code, cloud_request_id=refused.cloud_request_id
        )

    def _is_as_wanted(self, image: Mapping[str, Any], spec: base.ImageSpec) -> bool:
        """Is an image what register() would make? Of most, CopyImage changes nothing."""
        devices = [device["Ebs"] for device in image.get("BlockDeviceMappings", ()) if "Ebs" in device]
        machine = {**dict.fromkeys(("BootMode", "ImdsSupport", "TpmSupport")), **self._machine(spec)}
        size = devices[0].get("VolumeSize", 0) if len(devices) == 1 else 0
        return (
            size >= max(1, spec.min_disk)
            and (not devices[0].get("Encrypted") or bool(self._place.get("kms_key")))
            and devices[0].get("VolumeType") == self._volume_type
            and all(image.get(name) == value for name, value in machine.items())
        )

    def _machine(self, spec: base.ImageSpec) -> dict[str, Any]:
        """What RegisterImage is told of machines."""
        return metadata.parameters(spec, self._name) | (
            {"ImdsSupport": "v2.0"} if self._place.get("imds_v2") else {}
        )

    @property
    def _volume_type(self) -> str:
        return str(self._place.get("volume_type", "gp3"))

    def _write(
        self,
        found: Mapping[str, Any] | None,
        staged: staging.Staged,
        spec: base.ImageSpec,
        key: str,
        transfer: base.Transfer,
    ) -> str:
        """The snapshot, of blocks that are put into it; or that which was found, completed."""
        there = found or self._start(staged, spec, key)
        snapshot_id = there["SnapshotId"]
        checkpoint = transfer.checkpoint or {}
        if checkpoint.get("snapshot") != snapshot_id:
            checkpoint = {"snapshot": snapshot_id}
            transfer.save_checkpoint(checkpoint)    # who has to clean up by hand needs it
        self._check_shareable(there.get("KmsKeyArn") or there.get("KmsKeyId"))      # as EBS or EC2 calls it
        pending = found is None or found["State"] == "pending"
        if not checkpoint.get("whole"):
            if pending:
                snapshots.write(self._account, snapshot_id, staged, transfer)
            transfer.save_checkpoint({**checkpoint, "whole": True})     # AWS is told so only once
        if pending:
            snapshots.wait(self._account, snapshot_id, transfer.alive)
        return str(snapshot_id)

    def _import(
        self,
        found: Mapping[str, Any] | None,
        staged: staging.Staged,
        spec: base.ImageSpec,
        key: str,
        transfer: base.Transfer,
    ) -> str:
        """The snapshot, imported from an object; or that which was found. The object goes in any case."""
        bucket = self._bucket()
        wanted: dict[str, Any] = {"Description": f"CIMinG image {spec.image_id}"}
        if self._place.get("kms_key"):
            wanted |= {"Encrypted": True, "KmsKeyId": self._place["kms_key"]}
        if self._place.get("import_role"):
            wanted |= {"RoleName": self._place["import_role"]}
        marks, tags = self._of_key(key), self._snapshot_tags(spec, key)
        snapshot_id = (
            found["SnapshotId"]
            if found
            else imports.bring(bucket, key, staged, marks, tags, wanted, transfer)
        )
        imports.clear(bucket, imports.object_name(key), transfer.alive)
        return str(snapshot_id)

    def _check_shareable(self, key: str | None) -> None:
        """Before any byte: an account may encrypt all snapshots by default, with a key that is AWS's own.

        https://docs.aws.amazon.com/ebs/latest/userguide/encryption-by-default.html

        :raises ProviderError: what is encrypted with the key can not be shared, as it is to be
        """
        if key is None or not self._place.get("share_with"):
            return
        try:
            found = self._account.ask("kms", "DescribeKey", KeyId=key)["KeyMetadata"]
        except exceptions.ProviderError:    # it need not be told: then who shares it sees it
            return
        if found.get("KeyManager") == "AWS":
            raise exceptions.ProviderError(
                f"{self._name} encrypts the snapshot with AWS's own key {key}: such a one can not be shared "
                "with other accounts (share_with). Name a key of yours as the Cloud's kms_key.",
                code="cloud.refused",
            )

    def _start(self, staged: staging.Staged, spec: base.ImageSpec, key: str) -> Mapping[str, Any]:
        return snapshots.start(
            self._account,
            key,
            staged.virtual_size,
            Description=f"CIMinG image {spec.image_id}",
            Tags=snapshots.as_tags(self._snapshot_tags(spec, key)),
            **self._encryption(),
        )

    def _encryption(self) -> dict[str, Any]:
        """As StartSnapshot takes it."""
        return {"Encrypted": True, "KmsKeyArn": self._key_arn()} if self._place.get("kms_key") else {}

    def _key_arn(self) -> str:
        """Of the key by whatever name it was given: EBS wants its ARN."""
        key = str(self._place["kms_key"])
        if key.startswith("arn:") and ":key/" in key:
            return key
        return str(self._account.ask("kms", "DescribeKey", KeyId=key)["KeyMetadata"]["Arn"])

    def _snapshot_tags(self, spec: base.ImageSpec, key: str) -> dict[str, str]:
        name = {"Name": spec.name[: metadata.LONGEST_VALUE]}
        return {**self._marks(spec, key), **self._tags, **name}

    def _image_tags(self, spec: base.ImageSpec, key: str) -> dict[str, str]:
        return metadata.tags(spec, self._snapshot_tags(spec, key))

    def _marks(self, spec: base.ImageSpec, key: str) -> dict[str, str]:
        return {"ciming:image": spec.image_id, "ciming:target": key, **self._mark}

    def register(
        self, blob: str, spec: base.ImageSpec, key: str, alive: base.Alive = lambda: None
    ) -> str:
        image = next(self._find_images(key), None)
        image_id = str(image["ImageId"]) if image else self._register(blob, spec, key, alive)
        images.wait(self._account, image_id, alive)
        accounts = self._place.get("share_with")
        if accounts:
            alive()
            images.share(self._account, image_id, blob, accounts)
        return image_id

    def _register(self, blob: str, spec: base.ImageSpec, key: str, alive: base.Alive) -> str:
        snapshot = snapshots.wait(self._account, blob, alive)      # one look may be a late one
        volume = {
            "VolumeType": self._volume_type,
            "VolumeSize": max(spec.min_disk, snapshot["VolumeSize"]),
        }
        machine = self._machine(spec)
        return images.register(
            self._account, blob, spec, key, self._image_tags(spec, key), volume, machine, alive
        )

    def verify(
        self, image_ref: str, staged: staging.Staged, alive: base.Alive = lambda: None
    ) -> base.Proof:
        image = images.wait(self._account, image_ref, alive)
        self._platform = str(image.get("PlatformDetails", metadata.PLAIN))
        ids = list(images.snapshot_ids(image).values())
        if not ids:
            raise exceptions.ProviderError(
                f"Image {image_ref} in {self._name} is made of no EBS snapshot.", code="image.not_active"
            )
        snapshot = snapshots.wait(self._account, ids[0], alive)
        if snapshot["VolumeSize"] != snapshots.volume_size(staged.virtual_size):
            raise exceptions.ProviderError(
                f"{self._name} holds a disk of {snapshot['VolumeSize']} GiB, but one of "
                f"{staged.virtual_size} bytes was sent.",
                code="image.size_mismatch",
            )
        sample = self._sample(staged)
        theirs = snapshots.digest(self._account, ids[0], alive, sample)
        ours = staged.guest_digest(alive) if sample is None else _sample_digest(staged, sample)
        if theirs != ours:
            raise exceptions.ProviderError(
                f"{self._name} holds a disk with the guest digest {theirs}, but {ours} was sent.",
                code="image.hash_mismatch",
            )
        return "guest"

    def _is_sampled(self, staged: staging.Staged) -> bool:
        """What AWS copied can be held against no file, so all of it is read back."""
        count = -(-staged.virtual_size // disk_image.BLOCK)
        largest = int(self._place.get("verify_up_to", VERIFY_UP_TO))
        return staged.virtual_size > largest * snapshots.GIB and count > SAMPLE and bool(staged.path)

    def _sample(self, staged: staging.Staged) -> Sequence[int] | None:
        """Indices of the blocks to be read back, most of where there is data; None: of all."""
        if not self._is_sampled(staged):
            return None
        anywhere, few = range(-(-staged.virtual_size // disk_image.BLOCK)), SAMPLE // ANYWHERE
        held = disk_image.sample(Path(staged.path), SAMPLE - few)
        return sorted({*held, *random.sample(anywhere, few)})

    def remarks(self, staged: staging.Staged, spec: base.ImageSpec) -> Sequence[str]:
        found = list(metadata.lost(spec, self._snapshot_tags(spec, ""), self._platform))
        size = snapshots.volume_size(staged.virtual_size)
        if size * snapshots.GIB != staged.virtual_size:
            grown = f"The disk of {staged.virtual_size} bytes is one of {size} GiB there: grown by zeros."
            found.append(grown)
        if self._is_sampled(staged):
            found.append(f"Of the disk there, {SAMPLE} blocks were read back and compared, not all.")
        return found

    def discard(self, key: str, alive: base.Alive = lambda: None) -> None:
        """Where a call had no answer, until EC2 must show what it has made; absent is fine."""
        until = time.monotonic() + snapshots.SEEN_SECONDS
        for pause in snapshots.pauses():
            in_use = self._discard_seen(key, alive)
            now = time.monotonic()
            if in_use is None and now > self._account.unanswered + snapshots.SEEN_SECONDS:
                return
            if in_use is not None and now > until:
                raise exceptions.TransientProviderError(
                    in_use.detail, cloud_request_id=in_use.cloud_request_id
                )
            alive()
            time.sleep(pause)

    def _discard_seen(self, key: str, alive: base.Alive) -> Refusal | None:
        """What AWS says if a snapshot is of an image: which it shows only later, or which is just going."""
        try:
            self._discard(key, alive)
        except Refusal as error:
            if error.name != images.IN_USE:
                raise
            return error
        return None

    def _discard(self, key: str, alive: base.Alive) -> None:
        for image in self._find_images(key):
            alive()
            images.deregister(self._account, image["ImageId"])
        if self._by_import:
            imports.discard(self._bucket(), key, self._of_key(key), alive)
        for snapshot in snapshots.find(self._account, self._of_key(key)):
            alive()
            snapshots.delete(self._account, snapshot["SnapshotId"])

    def _of_key(self, key: str) -> dict[str, str]:
        return {"ciming:target": key, **self._mark}

    def _find_images(self, key: str) -> Iterator[Mapping[str, Any]]:
        return images.find(self._account, self._of_key(key))

    def _find_snapshot(self, key: str) -> Mapping[str, Any] | None:
        return next(snapshots.find(self._account, self._of_key(key)), None)

    # What is there

    def show(self, image_ref: str) -> base.Metadata | None:
        found = self._show(image_ref)
        return metadata.seen(found, snapshots.of_tags(found)) if found else None

    def _show(self, image_ref: str) -> Mapping[str, Any] | None:
        of = snapshots if image_ref.startswith("snap-") else images
        found = of.show(self._account, image_ref)
        return found if found and self._is_seen(found) else None

    def _is_seen(self, described: Mapping[str, Any]) -> bool:
        return self._mark.items() <= snapshots.of_tags(described).items()

    def list(
        self, filters: Mapping[str, str], marker: str | None = None, most: int | None = None
    ) -> Iterator[base.Metadata]:
        rest = {name: value for name, value in filters.items() if name != "name"}
        for image in images.find(self._account, self._mark):
            found = metadata.seen(image, snapshots.of_tags(image))
            if filters.get("name", found.name) in _names(image) | {found.name} and base.fits(found, rest):
                yield found

    def _named(self, image_refs: Collection[str]) -> Iterator[base.Metadata]:
        amis = [each for each in image_refs if each.startswith("ami-")]
        if len(amis) > 1:
            for image in filter(self._is_seen, images.named(self._account, amis)):
                yield metadata.seen(image, snapshots.of_tags(image))
            image_refs = [each for each in image_refs if each not in amis]
        yield from super()._named(image_refs)

    def describe(self, image: str) -> base.Description | None:
        found = self._show(image) if image.startswith(("ami-", "snap-")) else None
        if found is None:
            named = [each for each in images.find(self._account, self._mark) if image in _names(each)]
            if len(named) > 1:
                raise exceptions.ProviderError(
                    f"{self._name} has several images of the name {image[:255]}: give an id.",
                    code="image_ref.ambiguous",
                )
            found = named[0] if named else None
        if found is None:
            return None
        return self._described_image(found) if "ImageId" in found else self._described_snapshot(found)

    def _described_image(self, image: Mapping[str, Any]) -> base.Description:
        tags, ids = snapshots.of_tags(image), images.snapshot_ids(image)
        root = ids.get(image.get("RootDeviceName", "")) or next(iter(ids.values()), None)
        snapshot = snapshots.show(self._account, root) if root else None
        size = snapshot["VolumeSize"] if snapshot else None
        return base.Description(
            image_ref=str(image["ImageId"]),
            name=tags.get("Name") or str(image.get("Name", "")),
            size=size * snapshots.GIB if size else None,
            disk_format="raw",
            properties=metadata.properties(image, tags),
            min_disk=size or 0,
            tags=metadata.glance_tags(tags),
            unreadable=self._unreadable_image(image, ids, snapshot),
        )

    def _unreadable_image(
        self, image: Mapping[str, Any], ids: Mapping[str, str], snapshot: Mapping[str, Any] | None
    ) -> str | None:
        which = f"Image {image['ImageId']} in {self._name}"
        if image["State"] != "available":
            return f"{which} is {image['State']}: only one that is available can be read."
        if image.get("ProductCodes"):
            return f"{which} is from the marketplace, where images can not be read."
        if not ids:
            return f"{which} is made of no EBS snapshot, so it can not be read."
        if len(ids) > 1:
            volumes = ", ".join(f"{device} ({each})" for device, each in ids.items())
            return f"{which} has several volumes: {volumes}. Name one of these snapshots as the source."
        if snapshot is None:
            owner = image.get("OwnerId")
            return f"{which} is of account {owner}, which does not share the snapshot that it is made of."
        return self._unreadable_snapshot(snapshot)

    def _described_snapshot(self, snapshot: Mapping[str, Any]) -> base.Description:
        tags = snapshots.of_tags(snapshot)
        return base.Description(
            image_ref=str(snapshot["SnapshotId"]),
            name=tags.get("Name") or str(snapshot.get("Description", "")),
            size=snapshot["VolumeSize"] * snapshots.GIB,
            disk_format="raw",
            properties=metadata.properties({}, tags),
            min_disk=snapshot["VolumeSize"],
            tags=metadata.glance_tags(tags),
            unreadable=self._unreadable_snapshot(snapshot),
        )

    def _unreadable_snapshot(self, snapshot: Mapping[str, Any]) -> str | None:
        which = f"Snapshot {snapshot['SnapshotId']} in {self._name}"
        if snapshot["State"] != "completed":
            return f"{which} is {snapshot['State']}: only one that is complete can be read."
        try:
            self._account.ask(
                "ebs", "ListSnapshotBlocks", SnapshotId=snapshot["SnapshotId"], MaxResults=100
            )
        except Refusal as error:
            key = f" It is encrypted with {snapshot['KmsKeyId']}." if snapshot.get("KmsKeyId") else ""
            return f"{which} can not be read.{key} {error.detail}"
        return None

    def whose(self) -> str:
        account = self._account.ask("sts", "GetCallerIdentity")["Account"]
        return f"account {self._account.words(account)} in {self._account.region}"

    def delete(self, image_ref: str, alive: base.Alive = lambda: None) -> None:
        found = self._show(image_ref)
        if found is None:
            self.clear_left(image_ref, alive)
        if self._mark and found is None:
            return
        if image_ref.startswith("snap-"):
            snapshots.delete(self._account, image_ref)
            return
        for snapshot in images.snapshot_ids(found or {}).values():      # else nothing would lead to it
            self._dry_run("DeleteSnapshot", "its snapshot may be deleted", SnapshotId=snapshot)
        images.deregister(self._account, image_ref)

    def clear_left(self, image_ref: str, alive: base.Alive = lambda: None) -> None:
        for left in snapshots.find(self._account, {images.LEFT: image_ref, **self._mark}):
            alive()
            snapshots.delete(self._account, left["SnapshotId"])

    def update(
        self, image_ref: str, changes: base.Changes, alive: base.Alive = lambda: None
    ) -> Sequence[str]:
        described = self._show(image_ref)
        if described is None:
            raise base.gone(self._name, image_ref)
        return lifecycle.update(self._account, described, changes, alive)

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        found = self._show(image_ref)
        ids = list(images.snapshot_ids(found).values()) if found and "ImageId" in found else [image_ref]
        snapshot = snapshots.show(self._account, ids[0]) if found else None
        if snapshot is None:
            raise exceptions.ProviderError(
                f"{self._name} has no image {image_ref[:255]} of yours.", code="cloud.not_found"
            )
        end = snapshot["VolumeSize"] * snapshots.GIB
        wanted = snapshots.blocks(self._account, ids[0], offset // disk_image.BLOCK)
        for index, data in snapshots.read(self._account, ids[0], wanted, lambda: None):
            start = index * disk_image.BLOCK
            yield from _zeros(start - offset)
            yield data[max(0, offset - start) :]
            offset = start + len(data)
        yield from _zeros(end - offset)

    # May it be used?

    def probe(self) -> Iterator[base.Verdict]:
        looks: list[tuple[str, Callable[[], tuple[bool | None, str]]]] = [
            ("login", self._look_in),
            ("clock", self._look_at_clock),
            ("read", self._try_read),
        ]
        if self._by_import:
            looks += [("bucket", self._try_bucket), ("import", self._try_import)]
        else:
            looks += [("create", self._try_snapshot)]
        looks += [("register", self._try_register)]
        for name, look in looks:
            try:
                verdict = base.Verdict(name, *look())
            except exceptions.CimingError as error:
                verdict = base.Verdict(name, False, error.detail)
            yield verdict
            if name == "login" and not verdict.passed:
                return

    def _look_in(self) -> tuple[bool | None, str]:
        found = self._account.ask("sts", "GetCallerIdentity")
        return True, f"Logged in as {self._account.words(found['Arn'])}."

    def _look_at_clock(self) -> tuple[bool | None, str]:
        found = self._account.ask("sts", "GetCallerIdentity")
        said = found["ResponseMetadata"]["HTTPHeaders"].get("date")
        try:
            theirs = email.utils.parsedate_to_datetime(str(said)).timestamp()
        except (ValueError, OverflowError):
            return None, "It does not say what time it is there."
        skew = abs(theirs - time.time())
        return skew < SKEW_SECONDS, f"The clocks there and here differ by {skew:.0f} s."

    def _try_read(self) -> tuple[bool | None, str]:
        self._account.ask("ec2", "DescribeImages", Owners=["self"], MaxResults=5)
        self._account.ask("ec2", "DescribeSnapshots", OwnerIds=["self"], MaxResults=5)
        return True, "Images and snapshots can be listed."

    def _try_snapshot(self) -> tuple[bool | None, str]:
        tags = {"Name": "ciming check", **self._mark}
        made = snapshots.try_out(self._account, tags, **self._encryption())
        self._check_shareable(made.get("KmsKeyArn"))
        return True, "A snapshot was begun, with a block in it, and deleted again."

    def _try_bucket(self) -> tuple[bool | None, str]:
        imports.try_out(self._bucket())
        return True, "In the bucket an upload was begun, and removed again."

    def _try_import(self) -> tuple[bool | None, str]:
        """Of the role, which is not ours, nothing is told."""
        return self._dry_run("ImportSnapshot", "snapshots may be imported")

    def _try_register(self) -> tuple[bool | None, str]:
        tags = self._image_tags(base.ImageSpec("check", "ciming check"), "check")
        labels = [{"ResourceType": "image", "Tags": snapshots.as_tags(tags)}]
        what = "images may be registered"
        return self._dry_run("RegisterImage", what, Name="ciming check", TagSpecifications=labels)

    def _dry_run(self, action: str, what: str, **parameters: Any) -> tuple[bool | None, str]:
        try:
            self._account.call("ec2", action, DryRun=True, **parameters)
        except Refusal as error:
            if error.name == ALLOWED:
                return True, f"{what.capitalize()}."
            if error.code == "cloud.forbidden":
                raise
            return None, f"Whether {what} can not be told: {error.detail}"
        return None, f"Whether {what} can not be told."

    def hang_up(self) -> None:
        self._account.hang_up()


def _mark(place: Mapping[str, Any]) -> dict[str, str]:
    """The tag by which images are known as a project's, where others use the same account."""
    return {"ciming:project": str(place["tenant"])} if place.get("tenant") else {}


def _sample_digest(staged: staging.Staged, sample: Sequence[int]) -> str:
    """Of those blocks of a staged file."""
    return disk_image.digest_of(disk_image.records(Path(staged.path), sample))


def _zeros(count: int) -> Iterator[bytes]:
    """So many of them."""
    while count > 0:
        yield staging.ZEROS[:count]
        count -= staging.BLOCK


def _names(image: Mapping[str, Any]) -> set[str]:
    """An image may have another name than was wanted; then a tag has that."""
    return {str(image.get("Name", "")), snapshots.of_tags(image).get("Name", "")} - {""}
