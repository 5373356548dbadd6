# SPDX-License-Identifier: Apache-2.0
"""The door to Google Cloud: one project.

An image goes there as an archive that is packed on its way into a bucket, and an image of Compute Engine is
made of that. Both bear the Target's key, and so are found again; others make nothing in the project.
"""

import base64
import functools
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ciming import exceptions, staging
from ciming.providers import base
from ciming.providers.gcp import archive, images, lifecycle, metadata, objects
from ciming.providers.gcp.account import Account, Refusal

DAY = 24 * 3600         # seconds
SKEW_SECONDS = 60       # Google refuses keys' assertions that are 5 minutes off
KEPT = "ciming-bucket"  # label: where the archive was kept; a bucket whose name is none goes without
EXPORT = "https://cloud.google.com/compute/docs/images/export-image"


class GCP(base.Provider):
    """A project of Google Cloud. Place: what `configs.gcp.GCP` has, and what `Account` wants beside it.

    Where others use the same project, `tenant` is the OpenStack project whose images are all that there is.
    """

    def __init__(self, place: Mapping[str, Any], credential: Mapping[str, Any]) -> None:
        self._place = place
        self._account = Account(place, credential)
        self._name = self._account.name
        self._bucket = objects.Bucket(self._account, str(place["bucket"]))
        self._mark = {"ciming-project": str(place["tenant"])} if place.get("tenant") else {}

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
        objects.check(self._bucket)

    @staticmethod
    def _check_size(count: int) -> None:
        if count > archive.LARGEST:
            raise exceptions.ProviderError(
                f"A disk of {count} bytes is larger than any of Google's: {archive.LARGEST} bytes.",
                code="image.too_large",
            )

    def upload(
        self, staged: staging.Staged, spec: base.ImageSpec, key: str, transfer: base.Transfer
    ) -> str:
        metadata.fields(spec, (), self._name)       # before any byte moves
        self._check_size(spec.min_disk * archive.GIB)
        transfer.alive()
        name = objects.object_name(key)
        if not self._find(key):
            found = objects.show(self._bucket, name)
            if found is None or not objects.is_whole(found, staged.guest_digest(transfer.alive)):
                marks = {"ciming-image": spec.image_id, "ciming-target": key, **self._mark}
                objects.put(self._bucket, key, staged, marks, transfer)
            objects.tidy(self._bucket, key, transfer.alive)
        transfer.progress(staged.size)
        return name

    def register(
        self, blob: str, spec: base.ImageSpec, key: str, alive: base.Alive = lambda: None
    ) -> str:
        name = self._made(key, alive) or self._make(blob, spec, key, alive)
        self._check_disk(name, spec, key)
        if self._place.get("share_with"):
            images.share(self._account, name, self._place["share_with"], alive)
        if not self._place.get("keep_archive"):
            objects.clear(self._bucket, key, alive)
        return images.ref_in(self._account.project, name)

    def _check_disk(self, name: str, spec: base.ImageSpec, key: str) -> None:
        """:raises ProviderError: it is larger than was asked for, which only its archive tells"""
        kept = objects.show(self._bucket, objects.object_name(key))
        packed = objects.size_of(kept) if kept else None
        image = images.show(self._account, self._account.project, name) or {}
        size, most = int(image.get("disk_size_gb", 0)), max((packed or 0) // archive.GIB, spec.min_disk)
        if packed is not None and size > most:
            raise exceptions.ProviderError(
                f"{self._name} holds a disk of {size} GiB, but one of {most} GiB was asked for.",
                code="image.size_mismatch",
            )

    def _made(self, key: str, alive: base.Alive) -> str | None:
        """The name of the Target's image, when it is ready; what came to nothing is removed."""
        for image in self._find(key):
            if images.is_ready(self._account, image["name"], alive):
                return str(image["name"])
            alive()
            images.delete(self._account, image["name"], alive)
        return None

    def _make(self, blob: str, spec: base.ImageSpec, key: str, alive: base.Alive) -> str:
        found = objects.show(self._bucket, blob) if objects.object_name(key) == blob else None
        said = found.metadata or {} if found else {}
        size = objects.size_of(found) if found else None
        if found is None or size is None or objects.GUEST not in said:
            raise exceptions.ProviderError(
                f"The archive {blob[:255]} in {self._name} is gone after its upload.", code="image.not_active"
            )
        wanted = {
            **metadata.fields(spec, self._place.get("guest_os_features", ()), self._name),
            "labels": self._labels(spec, key, said[objects.GUEST]),
            "raw_disk": {
                "source": f"https://storage.googleapis.com/{self._bucket.name}/{blob}",
                "container_type": "TAR",
            },
        }
        if spec.min_disk:
            wanted["disk_size_gb"] = max(spec.min_disk, size // archive.GIB)
        if self._place.get("family"):
            wanted["family"] = self._place["family"]
        if self._place.get("storage_location"):
            wanted["storage_locations"] = [self._place["storage_location"]]
        if self._place.get("kms_key"):
            wanted["image_encryption_key"] = {"kms_key_name": self._place["kms_key"]}
        for suffix in ("", f"-{key[:8]}"):
            name = images.name(spec.name, spec.image_id, suffix)
            image = {**wanted, "name": name}
            once = json.dumps([image, found.generation], sort_keys=True)
            alive()
            try:
                operation = images.make(self._account, image, str(uuid.uuid5(uuid.NAMESPACE_OID, once)))
            except Refusal as error:
                if error.http_status != 409:
                    raise
                ours = self._made(key, alive)       # by another of us, a moment ago
                if ours:
                    return ours
                continue
            renew = functools.partial(objects.renew, self._bucket, blob)
            images.wait(self._account, operation, alive, failed=renew)  # else the answer would stay the same
            if images.is_ready(self._account, name, alive):
                return name
            raise exceptions.ProviderError(
                f"{self._name}: image {name} is not ready, though operation {operation} ended well.",
                code="image.not_active",
                cloud_request_id=operation,
            )
        raise exceptions.ProviderError(
            f"{self._name} has an image of another's at each name that this one could have.",
            code="image.name_taken",
        )

    def _labels(self, spec: base.ImageSpec, key: str, guest: str) -> dict[str, str]:
        said = (text.partition("=") for text in self._place.get("labels", ()))
        more = {name: value for name, _, value in said}
        kept = self._bucket.name if self._place.get("keep_archive") else ""
        if kept and metadata.LABEL_VALUE.fullmatch(kept):
            more[KEPT] = kept
        return metadata.labels(spec, {**self._marks(spec, key), objects.GUEST: _label_of(guest), **more})

    def _marks(self, spec: base.ImageSpec, key: str) -> dict[str, str]:
        return {"ciming-image": spec.image_id, "ciming-target": key, **self._mark}

    def _find(self, key: str) -> Sequence[Mapping[str, Any]]:
        return list(images.find(self._account, {"ciming-target": key, **self._mark}))

    def verify(
        self, image_ref: str, staged: staging.Staged, alive: base.Alive = lambda: None
    ) -> base.Proof:
        """By what Google keeps of it; the archive's sum was compared when it was put together."""
        image = self._show(image_ref)
        if image is None or image.get("status") != "READY":
            state = self._word(image, "status") if image else "gone"
            raise exceptions.ProviderError(
                f"Image {image_ref} in {self._name} is {state}.", code="image.not_active"
            )
        size = int(image.get("disk_size_gb", 0))
        wanted = archive.disk_size(staged.virtual_size) // archive.GIB
        if size < wanted or image.get("source_type") != "RAW":
            raise exceptions.ProviderError(
                f"{self._name} holds a disk of {size} GiB, made of {self._word(image, 'source_type')}, but "
                f"one of {staged.virtual_size} bytes was sent.",
                code="image.size_mismatch",
            )
        theirs = self._word(image.get("labels", {}), objects.GUEST)
        ours = _label_of(staged.guest_digest(alive))
        if theirs != ours:
            raise exceptions.ProviderError(
                f"{image_ref} in {self._name} was made of a disk with the guest digest {theirs} (in base32), "
                f"but {ours} was sent.",
                code="image.hash_mismatch",
            )
        return "guest"

    def _word(self, said: Mapping[str, Any], name: str) -> str:
        return self._account.words(said.get(name))

    def remarks(self, staged: staging.Staged, spec: base.ImageSpec) -> Sequence[str]:
        found = list(metadata.lost(spec, self._labels(spec, "", "")))
        size, before = archive.disk_size(staged.virtual_size), staged.virtual_size
        if size != before:
            grown = f"The disk of {before} bytes is one of {size // archive.GIB} GiB there: grown by zeros."
            found.append(grown)
        return found

    def discard(self, key: str, alive: base.Alive = lambda: None) -> None:
        objects.clear(self._bucket, key, alive)     # first: an image that is being made takes its time
        for image in self._find(key):
            alive()
            images.delete(self._account, image["name"], alive)

    # What is there

    def show(self, image_ref: str) -> base.Metadata | None:
        if objects.URL.fullmatch(image_ref):
            return self._seen_archive(image_ref)
        found = self._show(image_ref)
        return self._seen(found) if found else None

    def _seen(self, image: Mapping[str, Any]) -> base.Metadata:
        """What Google says of an image, in the words that all providers have."""
        project, _name = images.parse(str(image.get("self_link"))) or (None, "")
        labels, status = image.get("labels", {}), str(image.get("status"))
        age = image.get("deprecated", {}).get("state") or "ACTIVE"
        if status == "READY" and age in UNUSABLE and age != self._place.get("deprecate_to"):
            status = age
        guest = _guest_of(labels.get(objects.GUEST, ""))
        return base.Metadata(
            image_ref=_ref_of(image),
            name=metadata.name(image),
            status=status,
            state=STATES.get(status, "off"),
            size=int(image["archive_size_bytes"]) if image.get("archive_size_bytes") else None,
            virtual_size=int(image.get("disk_size_gb", 0)) * archive.GIB or None,
            digests={"guest": guest} if guest else {},
            owner=project,
            tags=metadata.glance_tags(image),
            properties=metadata.properties(image),
            deprecated=age != "ACTIVE",
            image_id=labels.get("ciming-image"),
            created_at=base.milliseconds(image.get("creation_timestamp")),
        )

    def _show(self, image_ref: str) -> Mapping[str, Any] | None:
        named = images.parse(image_ref)
        found = images.show(self._account, *named) if named else None
        if found is None or not self._mark:
            return found
        ours = self._is_here(found) and self._mark.items() <= found.get("labels", {}).items()
        return found if ours else None

    def _seen_archive(self, url: str) -> base.Metadata | None:
        named = objects.URL.fullmatch(url)
        if named is None or self._mark:      # whose an archive is, nothing says
            return None
        found = objects.show(objects.Bucket(self._account, named[1]), named[2])
        if found is None:
            return None
        return base.Metadata(url, named[2], "STORED", "ready", size=found.size)

    def _is_here(self, image: Mapping[str, Any]) -> bool:
        """In our project: anybody can give an image any label in another one."""
        found = images.parse(str(image.get("self_link")))
        return found is not None and found[0] == self._account.project

    def list(
        self, filters: Mapping[str, str], marker: str | None = None, most: int | None = None
    ) -> Iterator[base.Metadata]:
        return (each for each in map(self._seen, self._list(filters)) if base.fits(each, _but_name(filters)))

    def _list(self, filters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        name = filters.get("name")
        found = images.find(self._account, self._mark)
        return (each for each in found if name in (None, each.get("name"), metadata.name(each)))

    def describe(self, image: str) -> base.Description | None:
        if image.startswith("gs://"):
            return self._described_archive(image)
        found = self._show(image)
        if found is None:
            named = list(self._list({"name": image}))
            if len(named) > 1:
                raise exceptions.ProviderError(
                    f"{self._name} has several images of the name {image[:255]}: give one as "
                    "projects/PROJECT/global/images/NAME.",
                    code="image_ref.ambiguous",
                )
            found = named[0] if named else None
        return self._described(found) if found else None

    def _described(self, image: Mapping[str, Any]) -> base.Description:
        kept = self._archive_of(image)
        size = objects.size_of(kept) if kept else None
        return base.Description(
            image_ref=_ref_of(image),
            name=metadata.name(image),
            size=size,      # of the disk that was packed: the image may ask for a larger one
            disk_format="raw",
            properties=metadata.properties(image),
            min_disk=int(image.get("disk_size_gb", 0)),
            tags=metadata.glance_tags(image),
            unreadable=self._why_not(image) if size is None else None,
            unreadable_code="source.not_exportable",
        )

    def _archive_of(self, image: Mapping[str, Any]) -> Any | None:
        """The archive that an image was made of, if it is still there."""
        labels = image.get("labels", {})
        name = objects.object_name(labels.get("ciming-target", ""))
        guest = labels.get(objects.GUEST) if self._is_here(image) else None
        found = objects.show(self._bucket_of(image), name) if guest else None
        same = found is not None and _label_of((found.metadata or {}).get(objects.GUEST, "")) == guest
        return found if same else None

    def _bucket_of(self, image: Mapping[str, Any]) -> objects.Bucket:
        """Where its archive is, if that was kept: the Cloud may have another bucket by now."""
        return self._bucket._replace(name=image.get("labels", {}).get(KEPT) or self._bucket.name)

    def _why_not(self, image: Mapping[str, Any]) -> str:
        project, name = images.parse(str(image.get("self_link"))) or ("", "")
        target = f"gs://{self._bucket.name}/{name}.tar.gz"
        return (
            f"Google lets no image of Compute Engine out. Export it first, with gcloud compute images export "
            f"--image {name} --image-project {project} --project {self._account.project} --destination-uri "
            f"{target}, and give {target} as the source: see {EXPORT}"
        )

    def _described_archive(self, url: str) -> base.Description | None:
        named = objects.URL.fullmatch(url)
        if named is None or self._mark:      # whose an archive is, nothing says
            return None
        place = objects.Bucket(self._account, named[1])
        found = objects.show(place, named[2])
        if found is None:
            return None
        size, unreadable = None, None
        try:
            size = objects.size_of_disk(place, found)
        except exceptions.TransientProviderError:
            raise
        except exceptions.ProviderError as error:
            unreadable = error.detail
        return base.Description(url, named[2], size, "raw", unreadable=unreadable)

    def whose(self) -> str:
        return f"project {self._account.project}"

    def delete(self, image_ref: str, alive: base.Alive = lambda: None) -> None:
        """The image, and the archive that was kept of it."""
        if self._seen_archive(image_ref):
            raise exceptions.ProviderError(
                f"{image_ref[:255]} is an archive that CIMinG did not make, so it is not deleted. Unlink it.",
                code="image_ref.not_ours",
            )
        image = self._show(image_ref)
        if image is None:
            return
        if not self._is_here(image):
            raise exceptions.ProviderError(
                f"{image_ref[:255]} is in another project than {self._account.project}: it is not deleted.",
                code="cloud.forbidden",
            )
        key = image.get("labels", {}).get("ciming-target")
        if key:     # first: the image is what tells its name, also after a crash
            images.check_deletable(self._account, image["name"])
            objects.clear(self._bucket_of(image), key, alive)
        images.delete(self._account, image["name"], alive)

    def update(
        self, image_ref: str, changes: base.Changes, alive: base.Alive = lambda: None
    ) -> Sequence[str]:
        if self._seen_archive(image_ref):
            return ("An archive in a bucket can be told neither name nor tags, nor be hidden or deprecated.",)
        image = self._show(image_ref)
        if image is None:
            raise base.gone(self._name, image_ref)
        if not self._is_here(image):
            raise exceptions.ProviderError(
                f"{image_ref[:255]} is in another project than {self._account.project}: it is not changed.",
                code="cloud.forbidden",
            )
        return lifecycle.update(
            self._account, image, changes, alive, self._place.get("deprecate_to", "DEPRECATED")
        )

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        named = objects.URL.fullmatch(image_ref)
        if named and not self._mark:
            yield from objects.read(objects.Bucket(self._account, named[1]), named[2], offset)
            return
        image = self._show(image_ref)
        if image is None:
            raise exceptions.ProviderError(
                f"{self._name} has no image {image_ref[:255]} of yours.", code="cloud.not_found"
            )
        kept = self._archive_of(image)
        if kept is None:
            raise exceptions.ProviderError(self._why_not(image), code="source.not_exportable")
        yield from objects.read(self._bucket_of(image), kept.name, offset)

    # May it be used?

    def probe(self) -> Iterator[base.Verdict]:
        looks: tuple[tuple[str, Callable[[], tuple[bool | None, str]]], ...] = (
            ("login", self._look_in),
            ("clock", self._look_at_clock),
            ("read", self._try_read),
            ("bucket", self._try_bucket),
            ("create", self._try_create),
        )
        for name, look in looks:
            try:
                verdict = base.Verdict(name, *look())
            except exceptions.CimingError as error:
                verdict = base.Verdict(name, False, error.detail)
            yield verdict
            if name == "login" and not verdict.passed:
                return

    def _look_in(self) -> tuple[bool | None, str]:
        self._account.log_in()
        return True, f"Logged in as {self._account.email}."

    def _look_at_clock(self) -> tuple[bool | None, str]:
        skew = self._account.skew()
        if skew is None:
            return None, "It does not say what time it is there."
        return skew < SKEW_SECONDS, f"The clocks there and here differ by {skew:.0f} s."

    def _try_read(self) -> tuple[bool | None, str]:
        next(images.find(self._account, {"ciming-target": "check"}), None)
        return True, "Images can be listed."

    def _try_bucket(self) -> tuple[bool | None, str]:
        location, seconds = objects.check(self._bucket)
        said = f"The bucket is in {location}, and objects may be made there, read and deleted."
        if seconds:
            said += f" Google keeps what is deleted for {seconds / DAY:.3g} days more, and bills it: that is "
            said += "its soft delete policy."
        return True, said

    def _try_create(self) -> tuple[bool | None, str]:
        """Compute Engine has no dry run: of what is not there, no image can be made."""
        absent = objects.object_name(str(uuid.uuid4()))
        source = f"https://storage.googleapis.com/{self._bucket.name}/{absent}"
        name = images.name("ciming check", str(uuid.uuid4()))
        disk = {"source": source, "container_type": "TAR"}
        wanted = {"name": name, "labels": {"ciming-image": "check"}, "raw_disk": disk}
        try:
            operation = images.make(self._account, wanted, str(uuid.uuid4()))
            images.wait(self._account, operation, lambda: None, SKEW_SECONDS)
        except exceptions.TransientProviderError:
            raise
        except exceptions.ProviderError as error:
            if error.code in ("cloud.forbidden", "cloud.auth_failed"):
                raise
            if error.code == "cloud.quota_exceeded":
                return False, error.detail
            return True, "Images may be made."
        images.delete(self._account, name)
        return None, "Whether images can be made can not be told."

    def hang_up(self) -> None:
        self._account.hang_up()


def _label_of(guest: str) -> str:
    """A guest digest as a label can have it: in hex it is one character too long."""
    try:
        return base64.b32encode(bytes.fromhex(guest)).decode().rstrip("=").lower()
    except ValueError:
        return hashlib.sha256(guest.encode()).hexdigest()[:8]


def _ref_of(image: Mapping[str, Any]) -> str:
    found = images.parse(str(image.get("self_link", "")))
    return images.ref_in(*found) if found else str(image.get("name"))


def _but_name(filters: Mapping[str, str]) -> dict[str, str]:
    """An image has two: that of Google's, and what a person calls it."""
    return {name: value for name, value in filters.items() if name != "name"}


STATES: Mapping[str, base.State] = {"READY": "ready", "PENDING": "pending"}
"""By status; all others are off."""
UNUSABLE = ("OBSOLETE", "DELETED")      # of what an image can be beside its status: no disk is made of it


def _guest_of(label: str) -> str | None:
    """The guest digest in a label, if it is one."""
    try:
        digest = base64.b32decode(label.upper() + "=" * (-len(label) % 8))
    except ValueError:
        return None
    return digest.hex() if len(digest) == hashlib.sha256().digest_size else None
