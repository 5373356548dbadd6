# SPDX-License-Identifier: Apache-2.0
"""The rows. Times are integer milliseconds since the epoch, sizes are bytes."""

import time
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column

from ciming.db import status


def new_id() -> str:
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Is it written as the ids of rows are?"""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


Id = sa.String(36)
Keystone = sa.String(64)
Name = sa.String(255)
Word = sa.String(32)


class Base(orm.DeclarativeBase):
    type_annotation_map = {
        int: sa.BigInteger,
        dict[str, Any]: sa.JSON(none_as_null=True),
        list[str]: sa.JSON(none_as_null=True),
        list[Any]: sa.JSON(none_as_null=True),
    }


class Image(Base):
    """One logical image across clouds."""

    __tablename__ = "images"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Keystone)
    user_id: Mapped[str] = mapped_column(Keystone)
    name: Mapped[str] = mapped_column(Name)
    status: Mapped[str] = mapped_column(Word)       # derived: status.image_status
    disk_format: Mapped[str | None] = mapped_column(Word)
    size: Mapped[int | None]
    virtual_size: Mapped[int | None]
    digests: Mapped[dict[str, Any]] = mapped_column(default=dict)   # sha256, sha512, guest: hex
    tags: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[int] = mapped_column(default=now)
    updated_at: Mapped[int] = mapped_column(default=now, onupdate=now)
    deleted_at: Mapped[int | None]                  # its Jobs are still to be seen
    hidden: Mapped[bool | None]                     # what was said of it last; None: nothing
    deprecated: Mapped[bool | None]                 # likewise

    links: Mapped[list["Link"]] = orm.relationship(order_by="Link.cloud", lazy="selectin")

    __table_args__ = (sa.Index("ix_images_project_created", "project_id", "created_at", "id"),)


class Link(Base):
    """An Image's identity in one Cloud."""

    __tablename__ = "links"

    image_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("images.id"), primary_key=True)
    cloud_key: Mapped[str] = mapped_column(Name, primary_key=True)
    cloud: Mapped[str] = mapped_column(Name)
    provider: Mapped[str] = mapped_column(Word)
    region: Mapped[str | None] = mapped_column(Name)
    image_ref: Mapped[str] = mapped_column(sa.String(1024))
    proof: Mapped[str] = mapped_column(Word)        # bytes, guest, asserted
    verified_at: Mapped[int]
    # What its Cloud was told of it, or said, when it was linked: what is another now was changed since.
    told: Mapped[dict[str, Any] | None]

    __table_args__ = (sa.Index("ix_links_cloud_key", "cloud_key"),)


class Cloud(Base):
    """A registered place where images can live; zones have no row."""

    __tablename__ = "clouds"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Keystone)
    name: Mapped[str] = mapped_column(Name)
    provider: Mapped[str] = mapped_column(Word)
    config: Mapped[dict[str, Any]]                  # what the provider's schema took
    credential_ref: Mapped[str | None] = mapped_column(sa.String(1024))     # href of a Barbican secret
    visibility: Mapped[str] = mapped_column(Word)   # private, public
    created_at: Mapped[int] = mapped_column(default=now)
    updated_at: Mapped[int] = mapped_column(default=now, onupdate=now)

    __table_args__ = (
        sa.Index("ix_clouds_project_name", "project_id", "name"),
        sa.Index("ix_clouds_visibility", "visibility"),
    )


class Job(Base):
    """What a user asked for. `owner` and `generation` say which engine may write it."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    project_id: Mapped[str] = mapped_column(Keystone)
    user_id: Mapped[str] = mapped_column(Keystone)
    kind: Mapped[str] = mapped_column(Word)
    # None where it is about zones, and its children are about Images.
    image_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("images.id"), index=True, nullable=True)
    parent_id: Mapped[str | None] = mapped_column(Id, sa.ForeignKey("jobs.id"), index=True)
    request_id: Mapped[str | None] = mapped_column(Keystone)
    # What was asked for, and once it is known what its source is (`found`); dropped when the Job is purged.
    spec: Mapped[dict[str, Any] | None]
    trust_id: Mapped[str | None] = mapped_column(Keystone)
    wanted: Mapped[str] = mapped_column(Word, default="run")        # run, cancel
    stage: Mapped[str] = mapped_column(Word)        # uploading, staging, staged, failed
    error: Mapped[dict[str, Any] | None]            # of the stage: {code, message}
    status: Mapped[str] = mapped_column(Word)       # derived: status.job_status
    owner: Mapped[str | None] = mapped_column(Id)
    generation: Mapped[int] = mapped_column(default=0)
    lock_marker: Mapped[str | None] = mapped_column(Id)     # where the owner's lock is to be found
    marker: Mapped[str] = mapped_column(Id)         # of the staging area that holds its bytes
    waiting_since: Mapped[int | None]               # for a credential of the user's
    created_at: Mapped[int] = mapped_column(default=now)
    started_at: Mapped[int | None]
    finished_at: Mapped[int | None]
    begun: Mapped[list[Any] | None]         # beside its Targets: when, and in which Clouds: [ms, keys] each
    updated_at: Mapped[int] = mapped_column(default=now, onupdate=now)
    report: Mapped[dict[str, Any] | None]           # of a sync of zones: how far it is, see engine.zone_sync

    image: Mapped[Image] = orm.relationship(lazy="joined")
    upload: Mapped["Upload | None"] = orm.relationship(lazy="joined", passive_deletes="all")
    targets: Mapped[list["Target"]] = orm.relationship(order_by="Target.cloud", lazy="selectin")

    @property
    def source(self) -> dict[str, Any]:
        """The image in a Cloud that its bytes come from, as engine.locating found it; nothing before that."""
        found: dict[str, Any] = (self.spec or {}).get("found", {})
        return found

    @property
    def file(self) -> dict[str, Any]:
        """What is known of its bytes: size, disk_format, virtual_size, digests.

        Those of the Image are what came first; a Cloud may have only another file of the same disk.
        """
        source = self.source
        if source.get("converted"):
            looked_at = source.get("file", {"disk_format": None, "virtual_size": None, "digests": {}})
            return {"size": source["size"], **looked_at}
        names = ("size", "disk_format", "virtual_size", "digests")
        return {name: getattr(self.image, name) for name in names}

    @property
    def progress(self) -> dict[str, int | None]:
        """Bytes received and sent to the Targets, of those that will be; of a sync of zones, Images too."""
        if self.kind == "zone-sync":
            return {"bytes_done": 0, "bytes_total": None, **(self.report or {}).get("progress", {})}
        if self.kind not in status.MOVING:
            return {"bytes_done": 0, "bytes_total": 0}
        whole = self.image.size
        if self.kind == "sync" and self.stage == "staging":     # as long as no Cloud has needed them
            whole = 0
        received = self.upload.offset if self.upload else whole or 0
        size = self.upload.size if self.upload else whole
        return {
            "bytes_done": received + sum(target.bytes_done for target in self.targets),
            "bytes_total": None if size is None else size + sum(self._parts(size)),
        }

    def _parts(self, size: int) -> list[int]:
        """What each Target will get: the image, or what that is converted to there."""
        return [size if target.bytes_total is None else target.bytes_total for target in self.targets]

    __table_args__ = (
        sa.Index("ix_jobs_project_created", "project_id", "created_at", "id"),
        sa.Index("ix_jobs_open", "finished_at", "stage"),
    )


class Target(Base):
    """One (Job, Cloud) pair."""

    __tablename__ = "targets"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id"), index=True)
    cloud_key: Mapped[str] = mapped_column(Name)    # stays when a Cloud is renamed
    cloud: Mapped[str] = mapped_column(Name)
    provider: Mapped[str] = mapped_column(Word)
    region: Mapped[str | None] = mapped_column(Name)
    status: Mapped[str] = mapped_column(Word, default="waiting")
    step: Mapped[str | None] = mapped_column(Word)
    bytes_done: Mapped[int] = mapped_column(default=0)
    bytes_total: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0)
    checkpoint: Mapped[dict[str, Any] | None]
    image_ref: Mapped[str | None] = mapped_column(sa.String(1024))
    error: Mapped[dict[str, Any] | None]            # {code, message, cloud_request_id}
    remarks: Mapped[list[str] | None]               # in what the image is another there

    __table_args__ = (
        sa.UniqueConstraint("job_id", "cloud_key", name="uq_targets_job_cloud"),
        sa.Index("ix_targets_cloud_key", "cloud_key"),
    )


class ZoneEntry(Base):
    """What a running sync of zones has to do: an entry of its plan. Deleted when it ends."""

    __tablename__ = "zone_entries"

    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)     # the order of the work
    symbol: Mapped[str] = mapped_column(Word)
    zone: Mapped[str] = mapped_column(Name)
    image_ref: Mapped[str | None] = mapped_column(sa.String(1024))      # in the source, where it is there
    size: Mapped[int]
    said: Mapped[dict[str, Any]]                    # see zone_plans.Entry
    child_id: Mapped[str | None] = mapped_column(Id, sa.ForeignKey("jobs.id"))
    status: Mapped[str] = mapped_column(Word, default="waiting")    # waiting, given (to a child), an end
    error: Mapped[dict[str, Any] | None]            # {code, message}

    __table_args__ = (sa.Index("ix_zone_entries_child", "child_id"),)


class ZoneLock(Base):
    """Two zones that one sync of a scope brings in line; `first` sorts before `second`."""

    __tablename__ = "zone_locks"

    scope: Mapped[str] = mapped_column(Keystone, primary_key=True)      # a project; "" is all of them
    first: Mapped[str] = mapped_column(Name, primary_key=True)
    second: Mapped[str] = mapped_column(Name, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id"), index=True)


class PendingTrust(Base):
    """A trust that Keystone may have and no Job names, or an old one of a Job that has another now."""

    __tablename__ = "pending_trusts"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    trustor_user_id: Mapped[str] = mapped_column(Keystone)
    project_id: Mapped[str] = mapped_column(Keystone)
    expires_at: Mapped[int] = mapped_column(default=0)      # whole seconds: more Keystone does not show
    trust_id: Mapped[str | None] = mapped_column(Keystone)  # known, and to be deleted
    doomed: Mapped[bool] = mapped_column(default=False)     # no Job may come to name it
    created_at: Mapped[int] = mapped_column(default=now)

    __table_args__ = (sa.Index("ix_pending_trusts_created", "created_at"),)


class Mutex(Base):
    """A row to be updated by who must be the only one to do something until the end of a transaction."""

    __tablename__ = "mutexes"

    name: Mapped[str] = mapped_column(Word, primary_key=True)       # migrations wrote: staging, clouds, zones
    taken: Mapped[int] = mapped_column(default=0)


class Upload(Base):
    """The bytes of one Job on their way in. Followers trust `offset`, not the file's length."""

    __tablename__ = "uploads"

    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id"), primary_key=True)
    size: Mapped[int | None]                        # announced at create
    reserved: Mapped[int] = mapped_column(default=0)    # room that it has in the staging area
    offset: Mapped[int] = mapped_column(default=0)      # bytes that are on disk
    complete: Mapped[bool] = mapped_column(default=False)
    owner: Mapped[str | None] = mapped_column(Id)
    generation: Mapped[int] = mapped_column(default=0)
    leased_until: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[int] = mapped_column(index=True)
    converted: Mapped[int] = mapped_column(default=0, server_default="0")   # bytes on disk, beside those
