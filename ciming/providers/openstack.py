# SPDX-License-Identifier: Apache-2.0
"""OpenStack: an image in one Glance, uploaded by PUT, proven by Glance's own hash.

Glance's rules that shape this: a deleted UUID can not be used again; a failed upload leaves the record
`queued`, ready for another; an upload whose Glance died stays `saving` for ever.
"""

import contextlib
import email.utils
import itertools
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import openstack
import requests
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3
from openstack import exceptions as sdk_exceptions
from oslo_log import log

from ciming import answers, connections, egress, exceptions, lazy, points, staging
from ciming.providers import base, glance, zones

LOG = log.getLogger(__name__)

# 410: of two uploads at once, Glance lets one lose so.
TRANSIENT = frozenset((408, 409, 410, 429, 500, 502, 503, 504))
SKEW_SECONDS = 60       # from which on a token that was just made may not be good yet
CUT_PATIENCE = 15       # seconds; an upload that was cut is `queued` again after about 4
SAVING_PATIENCE = 30    # seconds; one that had all its bytes is `active` as soon as the store has them,
SAVING_RATE = 20_000_000    # so one more for so many bytes
FORMATS = ("qcow2", "raw", "vmdk", "vhd", "vhdx", "vdi", "iso")
OCTETS = "application/octet-stream"
PATCH = "application/openstack-images-v2.1-json-patch"
PAGE = 1000           # images, as Glance's own limit is
MOST_PAGES = 1000       # of a list; one that does not end is none
MOST_SAID = 1024 * 1024     # bytes that a Glance may say about one image


PLUGINS: Mapping[str, Callable[..., v3.Auth]] = {
    "v3applicationcredential": v3.ApplicationCredential,
    "v3password": v3.Password,
}


class OpenStack(base.Provider):
    """A Glance. Place: `region`, `interface`; `formats` where others are wanted than this Glance would take.

    The credential is the session of a user of the zone's Keystone. For another Keystone it is what
    configs.openstack.Credential gives, and the place has `auth_url`, `cacert`, `timeout`, `cloud` (its name).
    Where others use the same account, `tenant` is the project whose images are all that there is.
    """

    follows = True
    ordered = True
    batch = 100         # of UUIDs, so that a URL is no longer than 4 KiB

    def __init__(
        self, place: Mapping[str, Any], credential: ks_session.Session | Mapping[str, str]
    ) -> None:
        # Of a zone: as its user, whose login was good when it was given.
        self._as_user = isinstance(credential, ks_session.Session)
        self._session = (
            credential if isinstance(credential, ks_session.Session) else _login(place, credential)
        )
        self._secrets = [] if isinstance(credential, ks_session.Session) else _secrets(credential)
        self._tenant: str | None = place.get("tenant")
        self._owner: str | None = place.get("owner")
        self._region = str(place["region"])
        self._name = str(place.get("cloud") or self._region)
        self._interface = str(place.get("interface", "public"))
        self._wanted = tuple(place.get("formats") or FORMATS)

    @lazy.cached_property
    def formats(self) -> tuple[str, ...]:
        schema = self._ask("GET", "/schemas/image", needs="properties")
        with self._reading("the formats that it takes"):
            taken = list(schema["properties"].get("disk_format", {}).get("enum") or FORMATS)
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
        image = self._show(blob)
        if image is None or image["status"] != "active":
            raise exceptions.ProviderError(
                f"Image {blob} in {self._name} is {image['status'] if image else 'gone'} after its "
                "upload.",
                code="image.not_active",
            )
        return blob

    def verify(
        self, image_ref: str, staged: staging.Staged, alive: base.Alive = lambda: None
    ) -> base.Proof:
        image = self._still_there(image_ref)
        if image.get("os_hash_value"):
            algorithm, theirs = image["os_hash_algo"], image["os_hash_value"]
        else:                   # Glance before Rocky
            algorithm, theirs = "md5", image.get("checksum")
        try:
            ours = staged.digest(algorithm)
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
            self.delete(image["id"])

    def show(self, image_ref: str) -> base.Metadata | None:
        found = self._show(image_ref)
        return glance.metadata(found) if found else None

    def _show(self, image_ref: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._ask(
            "GET", f"/images/{_path(image_ref)}", also=404, needs="status"
        )
        return found if found and self._is_seen(self._image(found)) else None

    def _still_there(self, image_ref: str) -> Mapping[str, Any]:
        """:raises ProviderError: it is gone"""
        found = self._show(image_ref)
        if found is None:
            raise exceptions.ProviderError(
                f"Image {image_ref} is gone from {self._name}.", code="image.not_active"
            )
        return found

    def list(
        self, filters: Mapping[str, str], marker: str | None = None, most: int | None = None
    ) -> Iterator[base.Metadata]:
        query = glance.query(filters) | {"limit": str(min(most or PAGE, PAGE))}
        if marker:
            if self._show(marker) is None:
                raise exceptions.ProviderError(
                    f"{self._name} has no image {marker[:255]} to go on behind.", code="marker.not_found"
                )
            query["marker"] = marker
        found = (each for each in map(glance.metadata, self._list(query)) if base.fits(each, filters))
        yield from itertools.islice(found, most)

    def _list(self, query: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        query = {**query, **self._mark}
        for _page in range(MOST_PAGES):
            page = self._ask("GET", "/images", needs="images", params=query)
            with self._reading("a list"):
                found, following = [*page["images"]], page.get("next")
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(following or "").query))
            yield from filter(self._is_seen, map(self._image, found))
            if not following:
                return
        raise self._bad_answer("a list that does not end")

    def _ours(self) -> Mapping[str, str]:
        return {"owner": self._project_id()}

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
                    yield glance.metadata(found)

    def survey(self, owner: str | None = None) -> Iterator[base.Surveyed]:
        wanted = {"limit": str(PAGE), "visibility": "all", **({"owner": owner} if owner else {})}
        for hidden in ("false", "true"):
            for image in self._list({**wanted, "os_hidden": hidden}):
                if owner in (None, image["owner"]):
                    with self._reading("an image"):
                        found = zones.surveyed(image, _described(image, self._name))
                    yield found

    def members(self, image_ref: str) -> Sequence[str]:
        found = self._ask("GET", f"/images/{_path(image_ref)}/members", needs="members")
        with self._reading("an image's members"):
            return sorted(str(member["member_id"]) for member in found["members"])

    def settle(
        self, image_ref: str, carry: Mapping[str, Any], alive: base.Alive = lambda: None
    ) -> None:
        now = self._still_there(image_ref)
        for changes in zones.patches(now, carry):
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
        self._call("POST", f"/images/{_path(image_ref)}/members", also=409, json={"member": member})

    @points.mutation
    def _unshare(self, image_ref: str, member: str) -> None:
        self._call("DELETE", f"/images/{_path(image_ref)}/members/{_path(member)}", also=404)

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
        return True, f"Logged in; the project there is {self._project_id()}."

    def _look_at_endpoint(self) -> tuple[bool | None, str]:
        self._ask("GET", "/images", needs="images", params={"limit": "1"})
        return True, f"Glance in {self._region} answers."

    def _look_at_clock(self) -> tuple[bool | None, str]:
        said = self._call("GET", "/schemas/image").headers.get("Date")
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
        found = self._ask("GET", "/info/usage", also=404, needs="usage")
        if found is None:       # Glance before Wallaby, or without quotas
            return None, "It does not say what quota there is."
        with self._reading("its quota"):
            limited = {name: each for name, each in found["usage"].items() if each["limit"] >= 0}
            full = any(each["usage"] >= each["limit"] for each in limited.values())
            used = (f"{name} {each['usage']} of {each['limit']}" for name, each in limited.items())
            told = answers.words(", ".join(used))
        return not full, f"Used: {told}." if told else "There is no limit."

    def _try_create(self, made: dict[str, str]) -> tuple[bool | None, str]:
        kind = {"container_format": "bare", "disk_format": [*self.formats, "raw"][0]}
        body = {"name": "ciming check", **kind, **self._mark}
        made["id"] = self._post(body)["id"]
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
            # One that begins with "in:" is a list for Glance.
            named = [each for each in self._list({"name": image}) if each["name"] == image]
            if len(named) > 1:
                raise exceptions.ProviderError(
                    f"{self._name} has several images of the name {image[:255]}: give an id.",
                    code="image_ref.ambiguous",
                )
            found = named[0] if named else None
        return _described(found, self._name) if found else None

    @points.mutation
    def delete(self, image_ref: str) -> None:
        if self._tenant and self._show(image_ref) is None:
            return
        self._call("DELETE", f"/images/{_path(image_ref)}", also=404)

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
        self._call("PATCH", f"/images/{_path(image_ref)}", json=patch, headers={"Content-Type": PATCH})

    def download(self, image_ref: str, offset: int) -> Iterator[bytes]:
        if self._tenant and self._show(image_ref) is None:
            raise exceptions.ProviderError(
                f"{self._name} has no image {image_ref[:255]} of yours.", code="cloud.not_found"
            )
        url = f"/images/{_path(image_ref)}/file"
        ranged = {"Range": f"bytes={offset}-"} if offset else {}
        with contextlib.closing(self._call("GET", url, also=416, stream=True, headers=ranged)) as answer:
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
                    f"{self._name} did not send all of image {image_ref}: {self._words(error)}",
                    code="cloud.unreachable"
                ) from None

    def hang_up(self) -> None:
        connections.hang_up(self._session.session)

    # What we made before

    def _marked(self, key: str) -> Iterator[Mapping[str, Any]]:
        """Images with our mark that our project owns; a stranger's with the same mark is not ours."""
        owner = self._owner or self._project_id()
        for image in self._list({"ciming_target": key, "owner": owner}):
            if image["owner"] == owner:
                yield image

    def _find(self, key: str) -> Mapping[str, Any] | None:
        return next(self._marked(key), None)

    def _project_id(self) -> str:
        found = self._asking("log in to", self._session.get_project_id)
        if not answers.is_text(found, 255):
            raise self._bad_answer("a login without a project")
        return str(found)

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
        made = self._ask("POST", "/images", also=also, needs="id", json=body)
        return None if made is None else self._image(made)

    @points.mutation
    def _put(self, image_ref: str, staged: staging.Staged, transfer: base.Transfer) -> None:
        headers = {"Content-Type": OCTETS, "x-openstack-image-size": str(staged.size)}
        body = _Body(staged, transfer, {"image": image_ref, "sent": True})
        self._call("PUT", f"/images/{image_ref}/file", data=body, headers=headers)

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

    # Calls and their errors

    @lazy.cached_property
    def _images(self) -> Any:
        """The SDK's image proxy; finding its endpoint logs in, so it is first used inside _asking."""
        if not self._session.get_endpoint(
            service_type="image", region_name=self._region, interface=self._interface
        ):
            raise exceptions.ProviderError(
                f"The catalog has no {self._interface} image endpoint in {self._name}.",
                code="cloud.no_endpoint",
            )
        return openstack.connection.Connection(
            session=self._session, region_name=self._region, image_interface=self._interface
        ).image

    def _ask(
        self, method: str, url: str, *, needs: str, also: int | None = None, **kwargs: Any
    ) -> Any:
        """The JSON object that a call gives; None where its status is `also`.

        :param needs: what it must have: some proxies answer with a page of their own
        """
        answer = self._call(method, url, also, **kwargs)
        if answer.status_code == also:
            return None
        try:
            found = answer.json()
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or needs not in found:
            raise self._bad_answer(f"{method} {url}")
        return found

    def _image(self, found: Any) -> Mapping[str, Any]:
        """What a Glance says of an image, if it can be one.

        :raises TransientProviderError: it can not
        """
        said = isinstance(found, dict) and {**dict.fromkeys(_KINDS), **found}
        if not (said and said["id"] and said["status"] and answers.fits(said, _KINDS)):
            raise self._bad_answer("an image")
        if len(json.dumps(said)) > MOST_SAID:
            raise self._bad_answer(f"an image of which it says more than {MOST_SAID} bytes")
        return said

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """:raises TransientProviderError: an answer is none"""
        try:
            yield
        except _UNREADABLE:
            raise self._bad_answer(what) from None

    def _bad_answer(self, what: str) -> exceptions.TransientProviderError:
        return exceptions.TransientProviderError(
            f"{self._name} answered with something that is not Glance's, or not Keystone's: {what}.",
            code="cloud.bad_answer",
        )

    def _words(self, text: object) -> str:
        """A cloud's own words, without what we told it in confidence."""
        access = getattr(self._session.auth, "auth_ref", None)
        token = getattr(access, "auth_token", None)
        return answers.words(text, [*self._secrets, *([token] if token else [])])

    def _call(
        self, method: str, url: str, also: int | None = None, **kwargs: Any
    ) -> requests.Response:
        """One call, made once: the Target's attempts are the only retries.

        :param also: a status from 400 up that is an answer, not an error
        """
        answer: requests.Response = self._asking(
            f"{method} {url} in",
            lambda: self._images.request(
                url, method, connect_retries=0, status_code_retries=0, raise_exc=False, **kwargs
            ),
        )
        if answer.status_code < 300 or answer.status_code == also:
            return answer
        raise self._error(answer)

    def _asking(self, what: str, call: Any) -> Any:
        try:
            return call()
        except ks_exceptions.HttpError as error:        # Keystone's, while logging in
            raise self._login_error(error.http_status)(
                f"Keystone did not let CIMinG {what} {self._name}: {self._words(error.message)}",
                code="cloud.auth_failed",
                cloud_request_id=self._words(error.request_id) if error.request_id else None,
            ) from None
        except ks_exceptions.CatalogException as error:
            raise exceptions.ProviderError(
                f"The catalog has no usable image endpoint in {self._name}: {self._words(error)}",
                code="cloud.no_endpoint",
            ) from None
        except egress.Refused as error:
            raise exceptions.ProviderError(
                f"CIMinG may not {what} {self._name}: {error.detail}", code=error.code
            ) from None
        except (ks_exceptions.ClientException, sdk_exceptions.SDKException) as error:
            untrusted = isinstance(error, ks_exceptions.SSLError) and "certificate" in str(error).lower()
            if untrusted:
                raise exceptions.ProviderError(
                    f"Could not {what} {self._name}: {self._words(error)}", code="cloud.tls_failed"
                ) from None
            raise exceptions.TransientProviderError(
                f"Could not {what} {self._name}: {self._words(error)}", code="cloud.unreachable"
            ) from None
        except _UNREADABLE as error:    # of keystoneauth, that took the answer for what it should be
            LOG.info("What %s answered can not be read: %s", self._name, type(error).__name__)
            raise self._bad_answer(f"{what} it") from None

    def _login_error(self, status: int) -> type[exceptions.ProviderError]:
        if status in TRANSIENT:
            return exceptions.TransientProviderError
        if self._as_user and status in (401, 403, 404):     # the trust or its user may be gone
            return exceptions.CredentialNeeded
        gone = status in (401, 404)     # 404: an application credential that was deleted
        return exceptions.CredentialRefused if gone else exceptions.ProviderError

    def _error(self, answer: requests.Response) -> exceptions.ProviderError:
        """What Glance said, as an error of ours."""
        said = "that is not where it should be"     # a redirect that leads nowhere
        try:
            sdk_exceptions.raise_from_response(answer)
        except sdk_exceptions.HttpException as error:
            said = error.details or error.message
        except _UNREADABLE:
            said = "and more that can not be read"
        status = f"{answer.status_code} {answer.reason}"
        said = str(said).removeprefix(f"{status}: ")
        refused = answer.status_code == 401
        transient = answer.status_code in TRANSIENT
        kind = exceptions.TransientProviderError if transient else exceptions.ProviderError
        return (self._login_error(401) if refused else kind)(
            f"{self._name}: {self._words(f'{status}: {said}')}",
            code=_CODES.get(answer.status_code, kind.code),
            cloud_request_id=self._words(answer.headers.get("x-openstack-request-id", "")) or None,
        )


def _login(place: Mapping[str, Any], credential: Mapping[str, str]) -> ks_session.Session:
    """A session with another Keystone, that goes nowhere the operator forbids; logs in when first used."""
    given = dict(credential)
    url = _keystone(place["auth_url"])
    if _keystone(given.pop("auth_url", url)) != url:
        raise exceptions.ProviderError(
            f"The credential of Cloud {place['cloud']} is for another Keystone than {url}. Store one that is "
            "for this one, and set credential_ref of the Cloud.",
            code="credential.invalid",
        )
    plugin = PLUGINS[given.pop("auth_type")]
    made = ks_session.Session(plugin(url, **given), timeout=place["timeout"])
    connections.equip(made, outside=True, cacert=place.get("cacert"))
    return made


def _secrets(credential: Mapping[str, str]) -> list[str]:
    named = ("password", "application_credential_secret")
    return [credential[name] for name in named if name in credential]


def _keystone(url: str) -> str:
    """Where version 3 is."""
    return f"{url.rstrip('/').removesuffix('/v3')}/v3"


def _path(image_ref: str) -> str:
    """A ref in a URL: one that a person gave must not lead anywhere else."""
    return urllib.parse.quote(image_ref, safe="")


def _described(image: Mapping[str, Any], region: str) -> base.Description:
    return base.Description(
        image_ref=str(image["id"]),
        name=str(image.get("name") or ""),
        size=image.get("size"),
        disk_format=image.get("disk_format"),
        digests=glance.digests(image),
        properties={
            name: str(value)
            for name, value in image.items()
            if _ELSEWHERE.fullmatch(name) and value is not None
        },
        min_disk=int(image.get("min_disk") or 0),
        min_ram=int(image.get("min_ram") or 0),
        tags=tuple(image.get("tags") or ()),
        unreadable=_unreadable(image, region),
        protected=bool(image.get("protected")),
    )


def _unreadable(image: Mapping[str, Any], region: str) -> str | None:
    which, container = f"Image {image['id']} in {region}", image.get("container_format")
    status = image["status"]
    if status != "active":
        return f"{which} is {status}: {_WAYS_OUT.get(status, 'only an active image has data')}."
    if image["disk_format"] not in FORMATS:
        return f"{which} is of the format {image['disk_format']}, which CIMinG does not know."
    if container not in (None, "bare"):
        return f"{which} is in a container ({container}), not bare."
    return None


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


def _is_word(value: object) -> bool:
    return answers.is_text(value, 255) and str(value).isprintable()


_KINDS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("id", "status", "owner", "disk_format", "container_format"), _is_word),
    **dict.fromkeys(("os_hash_algo", "os_hash_value", "checksum"), _is_word),
    **dict.fromkeys(("visibility", "created_at", "ciming_image"), _is_word),
    "name": lambda value: answers.is_text(value, 255),
    **dict.fromkeys(("size", "virtual_size"), lambda value: answers.is_whole(value, 2**63 - 1)),
    **dict.fromkeys(("min_disk", "min_ram"), lambda value: answers.is_whole(value, 2**31 - 1)),
    "tags": lambda value: isinstance(value, list) and all(answers.is_text(tag, 255) for tag in value),
    **dict.fromkeys(("protected", "os_hidden"), lambda value: isinstance(value, bool)),
}
"""What a Glance says of an image, as far as we use it."""

_WAYS_OUT = {
    "deactivated": "its data can be read again once its operator has reactivated it",
    "queued": "its data was not uploaded yet",
    "saving": "its data is on its way, try again later",
    "importing": "its data is on its way, try again later",
}
# What the guest is and needs, which is so in every cloud. Not who owns it, where it lies or how it was signed
# (that would not hold after a conversion), nor what a service noted.
_ELSEWHERE = re.compile(r"architecture|hypervisor_type|vm_mode|hw_\w+|os_(?!hash_|hidden$|glance_)\w+")

_CODES = {
    401: "cloud.auth_failed",
    403: "cloud.forbidden",
    404: "cloud.not_found",
    413: "cloud.quota_exceeded",
    415: "image.format_not_taken",
}


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
