# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib import parse

from openstack import exceptions, proxy, resource

from cimingclient.sdk import _resuming, _transport, _waiting
from cimingclient.sdk import availability as _availability
from cimingclient.sdk import body as _body
from cimingclient.sdk import cloud as _cloud
from cimingclient.sdk import image as _image
from cimingclient.sdk import job as _job

Credentials = dict[str, dict[str, Any]]

ResourceT = TypeVar("ResourceT", bound=resource.Resource)


class Created(NamedTuple):
    """The answer to who wants something done with an Image: that, and the Job that does it."""

    image: _image.Image
    job: _job.Job


class Changed(NamedTuple):
    """The answer to who changes an Image: that, and the Job that does so in its Clouds, if any."""

    image: _image.Image
    job: _job.Job | None


class Adopted(NamedTuple):
    """The answer to who adopts an image: see `Created`.

    `unseen` are dicts with `cloud, status, error`: Clouds in which it could not be seen whether they have
    the same.
    """

    image: _image.Image
    job: _job.Job
    unseen: list[dict[str, Any]]


class Checked(NamedTuple):
    """Whether nothing is wrong, and what was looked at: dicts with `check, passed, message`.

    Where `passed` of one is None, that can not be told there.
    """

    passed: bool
    checks: list[dict[str, Any]]


class Proxy(proxy.Proxy):
    """Version 1 of the API.

    All methods raise `openstack.exceptions.HttpException` for what the service refuses.
    """

    api_version = "1"

    _resource_registry = {"cloud": _cloud.Cloud, "image": _image.Image, "job": _job.Job}

    # Clouds

    def clouds(self, **query: Any) -> Iterator[_cloud.Cloud]:
        """Zones, and registered Clouds that the caller may use.

        :param query: `name`, `provider`, `region`, as for `images`.
        """
        return self._list(_cloud.Cloud, **query)

    def get_cloud(self, cloud: str | _cloud.Cloud) -> _cloud.Cloud:
        """One Cloud by its id."""
        return self._fetch(_cloud.Cloud, cloud)

    def find_cloud(self, name_or_id: str, ignore_missing: bool = True) -> _cloud.Cloud | None:
        """One Cloud by its name or id.

        :raises: `DuplicateResource` when several bear that name; `NotFoundException` when none
            does and `ignore_missing` is False.
        """
        return pick(_cloud.Cloud, name_or_id, self.clouds(), ignore_missing)

    def create_cloud(self, **attrs: Any) -> _cloud.Cloud:
        """Register a Cloud.

        :param attrs: `name`, `provider`, `config`; and what may be left out: `credential_ref` (see
            `store_credential`), `visibility`.
        """
        return self._cloud(self.post, "/clouds", attrs)

    def update_cloud(self, cloud: str | _cloud.Cloud, **attrs: Any) -> _cloud.Cloud:
        """Change a registered Cloud; `note` of the result says what else that has done.

        :param attrs: `name`; `config`: keys to be changed, None removes one; `credential_ref`.
        """
        return self._cloud(self.patch, f"/clouds/{_quoted(resource.Resource._get_id(cloud))}", attrs)

    def check_cloud(self, cloud: str | _cloud.Cloud) -> Checked:
        """Have the service look, as oneself, whether a Cloud can be used: that takes seconds."""
        response = self.post(f"/clouds/{_quoted(resource.Resource._get_id(cloud))}/check", json={})
        exceptions.raise_from_response(response)
        answer = response.json()
        return Checked(answer["passed"], answer["checks"])

    def cloud_images(
        self,
        cloud: str | _cloud.Cloud,
        unseen: Callable[[dict[str, Any]], None] = lambda _cloud: None,
        **query: Any,
    ) -> Iterator[_availability.CloudImage]:
        """What is in a Cloud now, page after page.

        :param unseen: called, on each page, with each other Cloud that was to be looked into and was not
            seen, or not all of it: a dict as of `Adopted`.
        :param query: `name`, `status` (in the Cloud's own word), `tag`, `visibility`, `owner`;
            `hidden=True`: what is hidden, instead of what is not; `untracked=True`: only what is no Image;
            `candidates=True`: look in the other Clouds, too, for what is the same; `limit` (the length of a
            page), `marker` (a ref).
        """
        path = f"/clouds/{_quoted(resource.Resource._get_id(cloud))}/images"
        return self._live(_availability.CloudImage, path, "images", query, unseen)

    def delete_cloud(self, cloud: str | _cloud.Cloud, ignore_missing: bool = True) -> None:
        """Delete a registered Cloud; what is in it, and its secret, stay.

        :raises: `ConflictException` while it has Images, or Jobs work on it.
        """
        cloud_id = _quoted(resource.Resource._get_id(cloud))
        self._delete(_cloud.Cloud, cloud_id, ignore_missing=ignore_missing)

    def _cloud(self, verb: Callable[..., Any], path: str, attrs: dict[str, Any]) -> _cloud.Cloud:
        response = verb(path, json=attrs)
        exceptions.raise_from_response(response)
        return _cloud.Cloud.existing(connection=self._get_connection(), **response.json())

    def store_credential(self, name: str, credential: dict[str, Any]) -> str:
        """Put a credential into Barbican, as oneself; its href is a `credential_ref`.

        The service does not see it at this time, and keeps it at no time.
        """
        secret = {
            "name": name,
            "payload": json.dumps(credential),
            "payload_content_type": "text/plain",
        }
        response = self._barbican.post("/secrets", json=secret, log=False)
        exceptions.raise_from_response(response)
        return str(response.json()["secret_ref"])

    def forget_credential(self, ref: str) -> None:
        """Delete from Barbican what `store_credential` put there."""
        response = self._barbican.delete(f"/secrets/{_quoted(ref.rpartition('/')[2])}")
        exceptions.raise_from_response(response)

    @property
    def _barbican(self) -> proxy.Proxy:
        connection = self._get_connection()
        assert connection is not None       # sdk.add_to put us on one
        manager: proxy.Proxy = connection.key_manager
        return manager

    # Images

    def images(self, **query: Any) -> Iterator[_image.Image]:
        """Images, page after page.

        :param query: filters: `id`, `name`, `tag`, `status`, `disk_format`, `size`, `virtual_size`, `cloud`
            (one that it is linked in), `created_at`, `updated_at`. A value is what it must be, or
            begins with an operator: `neq:`, `in:a,b`, `nin:a,b`, and for sizes and times `gt:`, `gte:`,
            `lt:`, `lte:`; `eq:` goes before a text that looks like one. Of a list all must hold.
            `sort` (`name:asc,created_at:desc`); `limit` (the length of a page), `marker`;
            `all_projects=True`, for administrators.
        """
        return self._list(_image.Image, **query)

    def get_image(self, image: str | _image.Image) -> _image.Image:
        """One Image by its id."""
        return self._fetch(_image.Image, image)

    def find_image(self, name_or_id: str, ignore_missing: bool = True) -> _image.Image | None:
        """One Image by its name or id; errors as for `find_cloud`."""
        if is_uuid(name_or_id):
            with contextlib.suppress(exceptions.NotFoundException):
                return self.get_image(name_or_id)
        return pick(_image.Image, name_or_id, self.images(name=f"eq:{name_or_id}"), ignore_missing)

    def create_image(self, **attrs: Any) -> Created:
        """Create the record, and the Job that waits for the bytes: `upload_image` comes next.

        :param attrs: `name`; `clouds`: names, or `"all"`; and what may be left out:
            `disk_format`, `container_format`, `size` (bytes), `checksum` (`sha256:…`),
            `properties`, `min_disk` (GiB), `min_ram` (MiB), `visibility`, `tags`; `credentials`: by
            the names of Clouds, held in the memory of one engine and not written down.
            With `source`, `{"cloud": …, "image": id or name}`, nothing is uploaded: the Job brings
            what that Cloud has.
        """
        return self._begun(self._say("/images", attrs))

    def sync_image(
        self,
        image: str | _image.Image,
        clouds: list[str] | str,
        credentials: Credentials | None = None,
    ) -> Created:
        """Bring an Image into more Clouds, from one that has it.

        :param clouds: names, or `"all"`.
        :param credentials: as for `create_image`.
        :raises: `ConflictException` when it is there already, or another Job works on it.
        """
        wanted = {"clouds": clouds, **_with(credentials)}
        return self._begun(self._say(f"{_path_of(image)}/clouds", wanted))

    def link_image(
        self,
        image: str | _image.Image,
        cloud: str,
        image_ref: str,
        credentials: Credentials | None = None,
    ) -> Created:
        """Link what a Cloud has to an Image; the Job looks at it there.

        :param image_ref: id or name there.
        :param credentials: as for `create_image`.
        :raises: `ConflictException` when it is linked there already, or another Job works on it.
        """
        link = {"cloud": cloud, "image_ref": image_ref, **_with(credentials)}
        return self._begun(self._say(f"{_path_of(image)}/links", link))

    def unlink_image(self, image: str | _image.Image, cloud: str) -> None:
        """Forget a Link; what is in the Cloud stays as it is."""
        exceptions.raise_from_response(self.delete(f"{_path_of(image)}/links/{_quoted(cloud)}"))

    def update_image(
        self, image: str | _image.Image, credentials: Credentials | None = None, **attrs: Any
    ) -> Changed:
        """Change what is said of an Image: its record at once, what is in its Clouds by a Job.

        What a Cloud can not carry is in the `remarks` of its Target.

        :param credentials: as for `create_image`.
        :param attrs: `name`; `tags`: all that it is to have; `hidden`, `deprecated`: True or False.
        :raises: `ConflictException` when a Job works on it.
        """
        wanted = {**attrs, **_with(credentials)}
        response = self.patch(_path_of(image), json=wanted, log="credentials" not in wanted)
        exceptions.raise_from_response(response)
        answer, conn = response.json(), self._get_connection()
        job = answer["job"] and _job.Job.existing(connection=conn, **answer["job"])
        return Changed(_image.Image.existing(connection=conn, **answer["image"]), job)

    def delete_image(
        self, image: str | _image.Image, clouds: list[str] | None = None, keep_remote: bool = False
    ) -> Created | None:
        """Delete an Image in its Clouds, and then its record; None where there was nothing to wait for.

        :param clouds: only in these; the record stays.
        :param keep_remote: forget only.
        :raises: `ConflictException` when a Job works on it.
        """
        query = [("cloud", cloud) for cloud in clouds or ()]
        if keep_remote:
            query.append(("keep_remote", "true"))
        response = self.delete(_path_of(image), params=query)
        exceptions.raise_from_response(response)
        return None if response.status_code == 204 else self._begun(response)

    def _begun(self, response: Any) -> Created:
        exceptions.raise_from_response(response)
        answer, conn = response.json(), self._get_connection()
        return Created(
            _image.Image.existing(connection=conn, **answer["image"]),
            _job.Job.existing(connection=conn, **answer["job"]),
        )

    def upload_image(
        self,
        image: str | _image.Image,
        data: str | os.PathLike[str] | BinaryIO,
        progress: _body.Progress | None = None,
    ) -> None:
        """Send the bytes in one request, in constant memory.

        :param data: a path, or a binary file from its present position on. What cannot be rewound
            is sent in chunks, and not sent again when the token is refused.
        :param progress: called with the bytes sent and the bytes there are (None: not known).
        :raises: `cimingclient.sdk.exceptions.SourceError` when the bytes cannot be read.
        """
        if isinstance(data, str | os.PathLike):
            with pathlib.Path(data).open("rb") as source:
                return self.upload_image(image, source, progress)
        # Close: a service that refuses before it has read the body hangs up then, and does not
        # go on reading only to keep the connection.
        headers = {"Content-Type": "application/octet-stream", "Connection": "close"}
        self._send(self.put, image, _body.Body(data, progress), headers)
        return None

    def upload_offset(self, image: str | _image.Image) -> _resuming.Offset:
        """The bytes of an Image that the service has (`done`) of those there are (`size`).

        :raises: an `HttpException` with status 410 when the upload has expired or was given up.
        """
        response = self.head(_file_of(image), headers=_resuming.HEADERS)
        exceptions.raise_from_response(response)
        return _offset(response)

    def resume_upload(
        self,
        image: str | _image.Image,
        data: str | os.PathLike[str] | BinaryIO,
        progress: _body.Progress | None = None,
        patience: float = _waiting.PATIENCE,
        *,
        fresh: bool = False,
        size: int | None = None,
    ) -> bool:
        """Send the bytes that the service does not have yet, and go on when the line breaks.

        The size must be known: given at create, or that of `data`. False: the service had all bytes
        before, so nothing was sent, and `data` was not looked at.

        :param data: as for `upload_image`: the whole file, not only its rest. What cannot be
            rewound is read up to the byte to go on from, and sent once.
        :param progress: called with the bytes there are in the service and in all.
        :param patience: seconds in which nothing more arrives, after which to give up.
        :param fresh: nothing was sent yet, so the service need not be asked what it has.
        :param size: bytes that a file had when they were announced (None: as many as it has now).
        :raises: `cimingclient.sdk.exceptions.SourceError` when the bytes cannot be read.
        """
        if isinstance(data, str | os.PathLike):
            with pathlib.Path(data).open("rb") as source:
                return self.resume_upload(image, source, progress, patience, fresh=fresh, size=size)
        start, there = _body.extent(data)
        size = there if there is None or size is None else size
        length = {} if size is None else {"Upload-Length": str(size)}

        def part(done: int) -> _resuming.Offset:
            if size is not None:
                data.seek(start)
            body = _body.Body(data, progress, skip=done, total=size)  # however it grows meanwhile
            response = self._send(
                self.patch, image, body, _resuming.PART | length | {"Upload-Offset": str(done)}
            )
            return _offset(response)

        return _resuming.send(
            lambda: self.upload_offset(image),
            part,
            known=_resuming.Offset(0, size) if fresh else None,
            again=size is not None,
            patience=patience,
        )

    def terminate_upload(self, image: str | _image.Image) -> None:
        """Give an unfinished upload up: what came is removed, the Job ends as `cancelled`."""
        response = self.delete(_file_of(image), headers=_resuming.HEADERS)
        exceptions.raise_from_response(response)

    def _send(
        self,
        verb: Callable[..., Any],
        image: str | _image.Image,
        body: _body.Body,
        headers: dict[str, str],
    ) -> Any:
        _transport.mount(self.session, self.get_endpoint() or "")
        response = verb(
            _file_of(image),
            data=body,
            headers=headers,
            allow_reauth=body.replayable,
            # Not again behind the caller's back: gigabytes, and maybe a pipe.
            connect_retries=0,
            status_code_retries=0,
        )
        exceptions.raise_from_response(response)
        return response

    # What there is now

    def availability(
        self, limit: int = _availability.PAGE, **query: Any
    ) -> Iterator[_availability.Availability]:
        """Where Images are now: Clouds are asked, page after page of Images.

        :param limit: the length of a page.

        :param query: `id`, `name`, `tag`, `disk_format`, `size`, `virtual_size`, `created_at`, `updated_at`,
            `sort` and `marker`, as for `images`; `cloud`, `provider`, `status` and `property`
            (`"architecture=x86_64"`, or a list of such), which cells are wanted; `available_in`,
            `missing_in`: names of Clouds, which Images.
        """
        query = {"limit": limit, **query}
        return self._live(_availability.Availability, "/availability", "availability", query)

    def get_availability(self, image: str | _image.Image, **query: Any) -> _availability.Availability:
        """Where one Image is now.

        :param query: `cloud`, `provider`, `status`, `property`, as for `availability`.
        """
        response = self.get(f"{_path_of(image)}/availability", params=query)
        exceptions.raise_from_response(response)
        return self._existing(_availability.Availability, response.json())

    def _live(
        self,
        kind: type[ResourceT],
        path: str,
        key: str,
        query: dict[str, Any],
        unseen: Callable[[dict[str, Any]], None] = lambda _cloud: None,
    ) -> Iterator[ResourceT]:
        """Page after page; an empty one need not be the last."""
        words = {True: "true", False: "false"}
        given = {name: words[value] if isinstance(value, bool) else value for name, value in query.items()}
        params: Any = given
        while params is not None:
            response = self.get(path, params=params)
            exceptions.raise_from_response(response)
            answer = response.json()
            for each in answer.get("unseen", ()):
                unseen(each)
            for each in answer[key]:
                yield self._existing(kind, each)
            hrefs = [link["href"] for link in answer["links"] if link["rel"] == "next"]
            params = parse.parse_qsl(parse.urlsplit(hrefs[0]).query) if hrefs else None

    def _existing(self, kind: type[ResourceT], answer: dict[str, Any]) -> ResourceT:
        known = answer.get("image_ref") or answer["image"]["id"]
        return kind.existing(connection=self._get_connection(), **{"id": known, **answer})

    def adopt_image(
        self,
        name: str,
        cloud: str,
        image_ref: str,
        *,
        match_digest: bool = False,
        tags: list[str] | None = None,
        credentials: Credentials | None = None,
    ) -> Adopted:
        """Make an Image of what a Cloud has; it stays where it is.

        :param image_ref: id or name there.
        :param match_digest: link what has the same digest in other Clouds, too.
        :param tags: instead of those that it has there.
        :param credentials: as for `create_image`.
        :raises: `ConflictException` when it is an Image already.
        """
        wanted: dict[str, Any] = {"name": name, "clouds": [], "match_digest": match_digest}
        wanted["source"] = {"cloud": cloud, "image": image_ref}
        if tags is not None:
            wanted["tags"] = tags
        response = self._say("/images", {**wanted, **_with(credentials)})
        begun = self._begun(response)
        return Adopted(begun.image, begun.job, response.json().get("unseen", []))

    # Zones

    def plan_zone_sync(self, source: str, targets: list[str], **wanted: Any) -> dict[str, Any]:
        """What `sync_zones` would do now: `request, entries, summary, digest`.

        An entry has `symbol` (`+` create, `=` same, `~` metadata differs, `*` content differs, `-` only in
        the target, `!` can not be brought), `zone`, `image`, `there`, `name`, `owner`, `size`, `digest`,
        `differs`, `why`, `proof`, `carry` and `state`.

        :param source: the zone that has what is wanted.
        :param targets: the zones that are to have it, too.
        :param wanted: as for `sync_zones`.
        """
        body = {"from": source, "to": targets, **wanted, "dry_run": True}
        response = self.post("/zone-syncs", json=body)
        exceptions.raise_from_response(response)
        return dict(response.json())

    def sync_zones(self, source: str, targets: list[str], **wanted: Any) -> _job.Job:
        """Bring zones in line with another, by a Job that has a part for each image (`jobs(parent=…)`).

        :param source: the zone that has what is wanted.
        :param targets: the zones that are to have it, too.
        :param wanted: what may be left out: `filters` (`owner`, `visibility`, `name`, `tag`, `status`: lists;
            `property`: a dict; `newer_than`, `size_below`), `replace`, `prune`, `max_delete`, `members`,
            `map_project` (a dict), `when_busy` (`refuse` or `wait`).
        :raises: `ConflictException` while another sync of these zones runs, unless that is to be waited for.
        """
        return self._sync_zones({"from": source, "to": targets, **wanted})

    def apply_zone_plan(self, plan: dict[str, Any], when_busy: str = "refuse") -> _job.Job:
        """Do just what a plan of `plan_zone_sync` says.

        :raises: `ConflictException` when the zones have changed since.
        """
        return self._sync_zones({"plan": plan, "when_busy": when_busy})

    def _sync_zones(self, body: dict[str, Any]) -> _job.Job:
        response = self.post("/zone-syncs", json=body)
        exceptions.raise_from_response(response)
        return _job.Job.existing(connection=self._get_connection(), **response.json()["job"])

    # Jobs

    def jobs(self, **query: Any) -> Iterator[_job.Job]:
        """Jobs, page after page.

        :param query: filters as for `images`: `id`, `status`, `kind`, `image_id`, `parent`,
            `request_id`, `cloud` (one that has a Target), `created_at`, `started_at`, `finished_at`;
            `sort`; `limit` (the length of a page), `marker`; `all_projects=True`, for administrators.
        """
        return self._list(_job.Job, **query)

    def get_job(self, job: str | _job.Job) -> _job.Job:
        """One Job by its id."""
        return self._fetch(_job.Job, job)

    def cancel_job(self, job: str | _job.Job) -> _job.Job:
        """Cancel a Job: what is not finished is undone, what is finished stays. It ends a little later.

        :raises: `ConflictException` when it has ended.
        """
        return self._act(job, "cancel")

    def retry_job(self, job: str | _job.Job, credentials: Credentials | None = None) -> _job.Job:
        """Try the Targets of a Job again that failed, with the data that the service has kept.

        :param credentials: as for `create_image`; those that were given before are not kept.
        :raises: `ConflictException` when it has not ended, or there is nothing to retry, or to retry with.
        """
        return self._act(job, "retry", credentials)

    def resume_job(self, job: str | _job.Job, credentials: Credentials | None = None) -> _job.Job:
        """Have a Job go on that waits for credentials (`waiting-credentials`), as oneself from now on.

        :param credentials: as for `retry_job`.
        :raises: `ConflictException` when it does not wait.
        """
        return self._act(job, "resume", credentials)

    def _say(self, path: str, body: dict[str, Any]) -> Any:
        """POST; what holds credentials is in no log, of whatever level."""
        return self.post(path, json=body, log="credentials" not in body)

    def _act(
        self, job: str | _job.Job, action: str, credentials: Credentials | None = None
    ) -> _job.Job:
        job_id = _quoted(resource.Resource._get_id(job))
        response = self._say(f"/jobs/{job_id}/{action}", _with(credentials))
        exceptions.raise_from_response(response)
        return _job.Job.existing(connection=self._get_connection(), **response.json())

    def wait_for_job(
        self,
        job: str | _job.Job,
        progress: Callable[[_job.Job], None] | None = None,
        interval: float = 2.0,
        timeout: float | None = None,
    ) -> _job.Job:
        """Wait until a Job ends, or needs credentials (`waiting-credentials`).

        A service that does not answer for a while is waited for as well.

        :param progress: called with the Job each time the service was asked.
        :param interval: the longest pause between two questions, in seconds.
        :param timeout: seconds after which to give up; None: never. One answer may take a minute more.
        :raises: `openstack.exceptions.ResourceTimeout`. The Job goes on.
        """
        job_id = resource.Resource._get_id(job)
        return _waiting.wait(lambda: self._polled(job_id), progress, interval, timeout)

    def _polled(self, job_id: str) -> _job.Job:
        """A Job, or an error soon: who asks this asks again."""
        once = {"timeout": _waiting.ANSWER, "connect_retries": 0, "skip_cache": True}
        response = self.get(f"/jobs/{_quoted(job_id)}", **once)
        exceptions.raise_from_response(response)
        return _job.Job.existing(connection=self._get_connection(), **response.json())

    def _fetch(self, kind: type[ResourceT], value: str | ResourceT) -> ResourceT:
        if isinstance(value, str):
            value = _quoted(value)
        return self._get(kind, value, skip_cache=True)


def pick(
    kind: type[ResourceT], name_or_id: str, found: Iterator[ResourceT], ignore_missing: bool
) -> ResourceT | None:
    """The one that is meant; an id goes before a name. Errors as for `Proxy.find_cloud`."""
    matches = [each for each in found if name_or_id in (each.id, each.name)]
    matches = [each for each in matches if each.id == name_or_id] or matches
    if len(matches) > 1:
        ids = ", ".join(each.id for each in matches)
        raise exceptions.DuplicateResource(
            f"More than one {kind.__name__} has the name '{name_or_id}', give an id: {ids}"
        )
    if not matches and not ignore_missing:
        raise exceptions.NotFoundException(f"No {kind.__name__} found for {name_or_id}")
    return matches[0] if matches else None


def _with(credentials: Credentials | None) -> dict[str, Any]:
    return {"credentials": credentials} if credentials else {}


def _file_of(image: str | _image.Image) -> str:
    return f"{_path_of(image)}/file"


def _path_of(image: str | _image.Image) -> str:
    return f"/images/{_quoted(resource.Resource._get_id(image))}"


def _offset(response: Any) -> _resuming.Offset:
    size = response.headers.get("Upload-Length")
    return _resuming.Offset(int(response.headers["Upload-Offset"]), None if size is None else int(size))


def _quoted(value: str) -> str:
    return parse.quote(value, safe="")


def is_uuid(text: str) -> bool:
    """Whether it can be an id of the service's own making."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
