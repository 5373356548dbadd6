# SPDX-License-Identifier: Apache-2.0
"""OpenStack: an image in one Glance, uploaded by PUT, proven by Glance's own hash.

Glance's rules that shape this: a deleted UUID can not be used again; a failed upload leaves the record
`queued`, ready for another; an upload whose Glance died stays `saving` for ever.
"""

import contextlib
import email.utils
import itertools
import re
import time
import urllib.parse
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import requests
from keystoneauth1 import session as ks_session

from ciming import answers, exceptions, lazy, points, staging
from ciming.providers import base
from ciming.providers.openstack import records, zones
from ciming.providers.openstack.account import Account

SKEW_SECONDS = 60       # from which on a token that was just made may not be good yet
CUT_PATIENCE = 15       # seconds; an upload that was cut is `queued` again after about 4
SAVING_PATIENCE = 30    # seconds; one that had all its bytes is `active` as soon as the store has them,
SAVING_RATE = 20_000_000    # so one more for so many bytes
SEEN_SECONDS = 10       # after which each of several Glances behind one address has heard of what was done
OCTETS = "application/octet-stream"
PATCH = "application/openstack-images-v2.1-json-patch"
PAGE = 1000           # images, as Glance's own limit is
MOST_PAGES = 1000       # of a list; one that does not end is none


class OpenStack(base.Provider):
    """A Glance. Place: `region`, `interface`; `formats` where others are wanted than this Glance would take.

    The credential is the session of a user of the zone's Keystone. For another Keystone it is what
    configs.openstack.Credential gives, and the place has `auth_url`, `cacert`, `timeout`, `cloud` (its name).
    Where others use the same account, `tenant` is the project whose images are all that there is.
    """

    follows = True
    keeps_properties = True
    ordered = True
    batch = 100         # of UUIDs, so that a URL is no longer than 4 KiB

    def __init__(
        self, place: Mapping[str, Any], credential: ks_session.Session | Mapping[str, str]
    ) -> None:
        self._account = Account(place, credential)
        self._name = self._account.name
        self._tenant: str | None = place.get("tenant")
        self._owner: str | None = place.get("owner")
        self._wanted = tuple(place.get("formats") or records.FORMATS)

    @lazy.cached_property
    def formats(self) -> tuple[str, ...]:
        schema = self._account.ask("GET", "/schemas/image", needs="properties")
        with self._account.reading("the formats that it takes"):
            taken = list(schema["properties"].get("disk_format", {}).get("enum") or records.FORMATS)
        return tuple(name for name in self._wanted if name in taken)

    def check(self, staged: staging.Staged) -> None:
        if staged.disk_format not in self.formats:
            raise exceptions.ProviderError(
                f"{self._name} takes no {staged.disk_format} images, only "
                f"{', '.join(self.formats) or 'none of ours'}.",
                code="image.format_not_taken",
            )

    def upload(
        self, staged: staging.Staged, spec: base.ImageSpec, key: str, transfer: base.Transfer
    ) -> str:
        transfer.alive()
        image = self._settled(self._find(key) or self._create(staged, spec, key), staged.size, transfer)
        if image is None or image["disk_format"] != staged.disk_format:
            # Its upload hangs for ever, or the file's end said what it is: only deleting helps.
            self.discard(key, transfer.alive)
            image = self._create(staged, spec, key)
        known, begun = transfer.checkpoint or {}, {"image": image["id"]}
        if known.get("image") != image["id"] or (known != begun and image["status"] != "active"):
            transfer.save_checkpoint(begun)     # who has to clean up by hand needs it
        if image["status"] != "active":
            self._put(image["id"], staged, transfer)
        transfer.progress(staged.size)
        return str(image["id"])

    def register(
        self, blob: str, spec: base.ImageSpec, key: str, alive: base.Alive = lambda: None
    ) -> str:
        image = self._still_there(blob, alive)
        if image["status"] != "active":
            raise exceptions.ProviderError(
                f"Image {blob} in {self._name} is {image['status']} after its upload.",
                code="image.not_active",
            )
        return blob

    def verify(
        self, image_ref: str, staged: staging.Staged, alive: base.Alive = lambda: None
    ) -> base.Proof:
        image = self._still_there(image_ref, alive)
        if image.get("os_hash_value"):
            algorithm, theirs = image["os_hash_algo"], image["os_hash_value"]
        else:                   # Glance before Rocky
            algorithm, theirs = "md5", image.get("checksum")
        try:
            ours = staged.digest(algorithm, alive)
        except ValueError:
            raise exceptions.ProviderError(
                f"{self._name} hashes images by {algorithm}, which CIMinG can not compute.",
                code="image.hash_unknown",
            ) from None
        if image.get("size") != staged.size or theirs != ours:
            raise exceptions.ProviderError(
                f"{self._name} holds {image.get('size')} bytes with {algorithm} {theirs}, but "
                f"{staged.size} bytes with {ours} were sent.",
                code="image.hash_mismatch",
            )
        return "bytes"

    def discard(self, key: str, alive: base.Alive = lambda: None) -> None:
        for image in self._marked(key):
            alive()
            if image["protected"] and self._owner:      # a sync of zones had come to its end
                self._patch(image["id"], [{"op": "replace", "path": "/protected", "value": False}])
            self.delete(image["id"])

    def show(self, image_ref: str) -> base.Metadata | None:
        found = self._show(image_ref)
        return records.metadata(found) if found else None

    def _show(self, image_ref: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._account.ask(
            "GET", f"/images/{_path(image_ref)}", also=404, needs="status"
        )
        return found if found and self._is_seen(self._image(found)) else None

    def _still_there(self, image_ref: str, alive: base.Alive) -> Mapping[str, Any]:
        """An image that had all of its bytes a moment ago; one look may be a late one.

        :raises ProviderError: it is gone
        """
        until = time.monotonic() + SEEN_SECONDS
        found = self._show(image_ref)
        while (found is None or records.is_pending(found)) and time.monotonic() < until:
            alive()
            time.sleep(1)
            found = self._show(image_ref)
        if found is None:
            raise exceptions.ProviderError(
                f"Image {image_ref} is gone from {self._name}.", code="image.not_active"
            )
        return found

    def list(
        self, filters: Mapping[str, str], marker: str | None = None, most: int | None = None
    ) -> Iterator[base.Metadata]:
        query = records.query(filters) | {"limit": str(min(most or PAGE, PAGE))}
        if marker:
            if self._show(marker) is None:
                raise exceptions.ProviderError(
                    f"{self._name} has no image {marker[:255]} to go on behind.", code="marker.not_found"
                )
            query["marker"] = marker
        found = (each for each in map(records.metadata, self._list(query)) if base.fits(each, filters))
        yield from itertools.islice(found, most)

    def _list(self, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        query = {**query, **self._mark}
        for _page in range(MOST_PAGES):
            page = self._account.ask("GET", "/images", needs="images", params=query)
            with self._account.reading("a list"):
                found, following = [*page["images"]], page.get("next")
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(following or "").query))
            yield from filter(self._is_seen, map(self._image, found))
            if not following:
                return
        raise self._account.bad_answer("a list that does not end")

    def ours(self) -> Mapping[str, str]:
        return {"owner": self._account.project_id()}

    def _named(self, image_refs: Collection[str]) -> Iterator[base.Metadata]:
        if len(image_refs) == 1:
            yield from super()._named(image_refs)
            return
        left = set(image_refs)
        for hidden in ("false", "true"):
            if left:
                wanted = {"id": f"in:{','.join(sorted(left))}", "os_hidden": hidden, "visibility": "all"}
                for found in self._list({**wanted, "limit": str(PAGE)}):
                    left.discard(found["id"])
                    yield records.metadata(found)

    def survey(self, owner: str | None = None) -> Iterator[base.Surveyed]:
        wanted = {"limit": str(PAGE), "visibility": "all", **({"owner": owner} if owner else {})}
        for hidden in ("false", "true"):
            for image in self._list({**wanted, "os_hidden": hidden}):
                if owner in (None, image["owner"]):
                    with self._account.reading("an image"):
                        found = zones.surveyed(image, records.described(image, self._name))
                    yield found

    def members(self, image_ref: str) -> Sequence[str]:
        found = self._account.ask("GET", f"/images/{_path(image_ref)}/members", needs="members")
        with self._account.reading("an image's members"):
            return sorted(str(member["member_id"]) for member in found["members"])

    def settle(
        self, image_ref: str, carry: Mapping[str, Any], alive: base.Alive = lambda: None
    ) -> None:
        now = self._still_there(image_ref, alive)
        changes = zones.patch(now, carry)
        if changes:
            alive()
            self._patch(image_ref, changes)
        if "members" in carry:
            wanted, there = set(carry["members"]), set(self.members(image_ref))
            for member in sorted(wanted - there):
                alive()
                self._share(image_ref, member)
            for member in sorted(there - wanted):
                alive()
                self._unshare(image_ref, member)

    @points.mutation
    def _share(self, image_ref: str, member: str) -> None:
        self._account.call("POST", f"/images/{_path(image_ref)}/members", also=409, json={"member": member})

    @points.mutation
    def _unshare(self, image_ref: str, member: str) -> None:
        self._account.call("DELETE", f"/images/{_path(image_ref)}/members/{_path(member)}", also=404)

    def probe(self) -> Iterator[base.Verdict]:
        for name, look in (("login", self._look_in), ("endpoint", self._look_at_endpoint)):
            verdict = self._verdict(name, look)
            yield verdict
            if not verdict.passed:
                return
        yield self._verdict("clock", self._look_at_clock)
        yield self._verdict("formats", self._look_at_formats)
        yield self._verdict("quota", self._look_at_quota)
        made: dict[str, str] = {}
        yield self._verdict("create", lambda: self._try_create(made))
        if made:
            yield self._verdict("read", lambda: self._try_read(made["id"]))
            yield self._verdict("delete", lambda: self._try_delete(made["id"]))

    @staticmethod
    def _verdict(name: str, look: Callable[[], tuple[bool | None, str]]) -> base.Verdict:
        try:
            return base.Verdict(name, *look())
        except exceptions.CimingError as error:
            return base.Verdict(name, False, error.detail)

    def _look_in(self) -> tuple[bool | None, str]:
        return True, f"Logged in; the project there is {self._account.project_id()}."

    def _look_at_endpoint(self) -> tuple[bool | None, str]:
        self._account.ask("GET", "/images", needs="images", params={"limit": "1"})
        return True, f"Glance in {self._account.region} answers."

    def _look_at_clock(self) -> tuple[bool | None, str]:
        said = self._account.call("GET", "/schemas/image").headers.get("Date")
        try:
            theirs = email.utils.parsedate_to_datetime(str(said)).timestamp()
        except (ValueError, OverflowError):
            return None, "It does not say what time it is there."
        skew = abs(theirs - time.time())
        return skew < SKEW_SECONDS, f"The clocks there and here differ by {skew:.0f} s."

    def _look_at_formats(self) -> tuple[bool | None, str]:
        taken = ", ".join(self.formats)
        return bool(taken), f"Formats that it takes: {taken or 'none that CIMinG knows'}."

    def _look_at_quota(self) -> tuple[bool | None, str]:
        found = self._account.ask("GET", "/info/usage", also=404, needs="usage")
        if found is None:       # Glance before Wallaby, or without quotas
            return None, "It does not say what quota there is."
        with self._account.reading("its quota"):
            limited = {name: each for name, each in found["usage"].items() if each["limit"] >= 0}
            full = any(each["usage"] >= each["limit"] for each in limited.values())
            used = (f"{name} {each['usage']} of {each['limit']}" for name, each in limited.items())
            told = answers.words(", ".join(used))
        return not full, f"Used: {told}." if told else "There is no limit."

    def _try_create(self, made: dict[str, str]) -> tuple[bool | None, str]:
        kind = {"container_format": "bare", "disk_format": [*self.formats, "raw"][0]}
        body = {"id": str(uuid.uuid4()), "name": "ciming check", **kind, **self._mark}
        try:
            self._post(body)
        except exceptions.TransientProviderError:   # it may be there, and is to go
            made["id"] = body["id"]
            raise
        made["id"] = body["id"]
        return True, "A record was created."

    def _try_read(self, image_ref: str) -> tuple[bool | None, str]:
        found = self._show(image_ref) is not None
        return found, "It can be read." if found else "It can not be found again."

    def _try_delete(self, image_ref: str) -> tuple[bool | None, str]:
        self.delete(image_ref)
        return True, "It was deleted again."

    @property
    def _mark(self) -> dict[str, str]:
        """What images bear that are ours, where others use the same account."""
        return {"ciming_project": self._tenant} if self._tenant else {}

    def _is_seen(self, image: Mapping[str, Any]) -> bool:
        return all(image.get(name) == value for name, value in self._mark.items())

    def describe(self, image: str) -> base.Description | None:
        found = self._show(image) if _UUID.fullmatch(image) else None
        if found is None:
            named = [each for each in self._list(records.query({"name": image})) if each["name"] == image]
            if len(named) > 1:
                raise exceptions.ProviderError(
                    f"{self._name} has several images of the name {image[:255]}: give an id.",
                    code="image_ref.ambiguous",
                )
            found = named[0] if named else None
        return records.described(found, self._name) if found else None

    def whose(self) -> str:
        return f"project {self._account.project_id()} in {self._account.region}"

    @points.mutation
    def delete(self, image_ref: str, alive: base.Alive = lambda: None) -> None:
        if self._tenant and self._show(image_ref) is None:
            return
        self._account.call("DELETE", f"/images/{_path(image_ref)}", also=404)

    def update(
        self, image_ref: str, changes: base.Changes, alive: base.Alive = lambda: None
    ) -> Sequence[str]:
        image = self._show(image_ref)
        if image is None:
            raise base.gone(self._name, image_ref)
        wanted: dict[str, Any] = {"name": changes.name, "os_hidden": changes.hidden}
        tags = sorted(image["tags"] or ())
        if changes.tags is not None and sorted(changes.tagged(tags)) != tags:
            wanted["tags"] = list(changes.tagged(tags))
        lost = []
        if "os_hidden" not in image and wanted.pop("os_hidden"):
            lost.append("This Glance can hide no image: it is older than Rocky.")
        if changes.deprecated:
            lost.append("Glance knows no deprecated images. What it can do is hide them: --hidden.")
        patch = [
            {"op": "replace", "path": f"/{name}", "value": value}
            for name, value in wanted.items()
            if value not in (None, image.get(name))
        ]
        if patch:
            alive()
            self._patch(image_ref, patch)
        return lost

    @points.mutation
    def _patch(self, image_ref: str, patch: Sequence[Mapping[str, Any]]) -> None:
        headers = {"Content-Type": PATCH}
        self._account.call("PATCH", f"/images/{_path(image_ref)}", json=patch, headers=headers)

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        if self._tenant and self._show(image_ref) is None:
            raise exceptions.ProviderError(
                f"{self._name} has no image {image_ref[:255]} of yours.", code="cloud.not_found"
            )
        url = f"/images/{_path(image_ref)}/file"
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        answer = self._account.call("GET", url, also=416, stream=True, headers=ranged)
        with contextlib.closing(answer):
            if answer.status_code == 416:      # it ends there
                return
            skip = offset if answer.status_code == 200 else 0      # a store that knows no ranges
            try:
                for block in answer.iter_content(staging.BLOCK):
                    if skip < len(block):
                        yield block[skip:]
                    skip = max(0, skip - len(block))
            except requests.RequestException as error:
                raise exceptions.TransientProviderError(
                    f"{self._name} did not send all of image {image_ref}: {self._account.words(error)}",
                    code="cloud.unreachable"
                ) from None

    def hang_up(self) -> None:
        self._account.hang_up()

    # What we made before

    def _marked(self, key: str) -> Iterator[Mapping[str, Any]]:
        """Images with our mark that our project owns; a stranger's with the same mark is not ours."""
        owner = self._owner or self._account.project_id()
        wanted = {"ciming_target": key, "owner": owner}
        # A sync of zones may have hidden it already, or made it another's for all.
        hidden = ({"os_hidden": value, "visibility": "all"} for value in ("false", "true"))
        for more in hidden if self._owner else ({},):
            for image in self._list({**wanted, **more}):
                if image["owner"] == owner:
                    yield image

    def _find(self, key: str) -> Mapping[str, Any] | None:
        return next(self._marked(key), None)

    def _create(
        self, staged: staging.Staged, spec: base.ImageSpec, key: str
    ) -> Mapping[str, Any]:
        """A new record with the Image's own UUID; with another where that one is taken or burned.

        Where it is taken by our own mark, another of us was faster: that is ours too.
        """
        body: dict[str, Any] = {
            **spec.properties,
            "name": spec.name,
            "disk_format": staged.disk_format,
            "container_format": "bare",
            "min_disk": spec.min_disk,
            "min_ram": spec.min_ram,
            "tags": list(spec.tags),
            "ciming_image": spec.image_id,
            "ciming_target": key,
            **self._mark,
        }
        if spec.visibility:
            body["visibility"] = spec.visibility
        if spec.owner:
            body["owner"] = spec.owner
        with_id = {**body, "id": spec.image_id}
        return self._post(with_id, also=409) or self._find(key) or self._post(body)

    @points.mutation
    def _post(self, body: dict[str, Any], also: int | None = None) -> Any:
        made = self._account.ask("POST", "/images", also=also, needs="id", json=body)
        return None if made is None else self._image(made)

    @points.mutation
    def _put(self, image_ref: str, staged: staging.Staged, transfer: base.Transfer) -> None:
        headers = {"Content-Type": OCTETS, "x-openstack-image-size": str(staged.size)}
        body = _Body(staged, transfer, {"image": image_ref, "sent": True})
        self._account.call("PUT", f"/images/{image_ref}/file", data=body, headers=headers)

    def _settled(
        self, image: Mapping[str, Any], size: int, transfer: base.Transfer
    ) -> Mapping[str, Any] | None:
        """The image when its earlier upload, cut by a crash, has ended; None: it does not end."""
        sent = transfer.checkpoint == {"image": image["id"], "sent": True}
        patience = SAVING_PATIENCE + size // SAVING_RATE if sent else CUT_PATIENCE
        for _second in range(patience):
            if image["status"] != "saving":
                return image
            time.sleep(1)
            transfer.alive()
            found = self._show(image["id"])
            if found is None:
                return None
            image = found
        return None

    def _image(self, found: Any) -> Mapping[str, Any]:
        """:raises TransientProviderError: what a Glance says of an image can be none"""
        try:
            return records.record(found)
        except ValueError as error:
            raise self._account.bad_answer(str(error)) from None


def _path(image_ref: str) -> str:
    """A ref in a URL: one that a person gave must not lead anywhere else."""
    return urllib.parse.quote(image_ref, safe="")


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _Body:
    """The staged bytes as a request's body: sized, so not chunked, and from the start at each iteration,

    so that keystoneauth can send it again after it logged in again.

    :param sent: the checkpoint from when the last block goes out
    """

    def __init__(self, staged: staging.Staged, transfer: base.Transfer, sent: Mapping[str, Any]) -> None:
        self._staged = staged
        self._transfer = transfer
        self._sent = sent

    def __len__(self) -> int:
        return self._staged.size

    def __iter__(self) -> Iterator[bytes]:
        left = self._staged.size
        for block in self._transfer.blocks(self._staged):
            left -= len(block)
            if not left:
                self._transfer.save_checkpoint(self._sent)
            yield block
