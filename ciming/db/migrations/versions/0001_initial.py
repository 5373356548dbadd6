# SPDX-License-Identifier: Apache-2.0
"""Images, links, jobs, targets, uploads; indices that TaskFlow's tables lack."""

from typing import Any

from alembic import op
import sqlalchemy as sa

revision = "0001"
down_revision = None

# On MariaDB: all of Unicode, and two names are equal only if all their bytes are.
EXACT: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}


def upgrade() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("disk_format", sa.String(32)),
        sa.Column("size", sa.BigInteger),
        sa.Column("virtual_size", sa.BigInteger),
        sa.Column("digests", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.create_index("ix_images_project_created", "images", ["project_id", "created_at", "id"])
    op.create_table(
        "links",
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), primary_key=True),
        sa.Column("cloud_key", sa.String(255), primary_key=True),
        sa.Column("cloud", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("region", sa.String(255)),
        sa.Column("image_ref", sa.String(1024), nullable=False),
        sa.Column("proof", sa.String(32), nullable=False),
        sa.Column("verified_at", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), nullable=False),
        sa.Column("parent_id", sa.String(36), sa.ForeignKey("jobs.id")),
        sa.Column("request_id", sa.String(64)),
        sa.Column("spec", sa.JSON),
        sa.Column("trust_id", sa.String(64)),
        sa.Column("wanted", sa.String(32), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(36)),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("lock_marker", sa.String(36)),
        sa.Column("marker", sa.String(36), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.create_index("ix_jobs_image_id", "jobs", ["image_id"])
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"])
    op.create_index("ix_jobs_project_created", "jobs", ["project_id", "created_at", "id"])
    op.create_index("ix_jobs_open", "jobs", ["finished_at", "stage"])
    op.create_table(
        "targets",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("cloud_key", sa.String(255), nullable=False),
        sa.Column("cloud", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("region", sa.String(255)),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("step", sa.String(32)),
        sa.Column("bytes_done", sa.BigInteger, nullable=False),
        sa.Column("bytes_total", sa.BigInteger),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("checkpoint", sa.JSON),
        sa.Column("image_ref", sa.String(1024)),
        sa.Column("error", sa.JSON),
        sa.UniqueConstraint("job_id", "cloud_key", name="uq_targets_job_cloud"),
        **EXACT,
    )
    op.create_index("ix_targets_job_id", "targets", ["job_id"])
    op.create_table(
        "uploads",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("size", sa.BigInteger),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String(36)),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("leased_until", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    mutexes = op.create_table(
        "mutexes",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("taken", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.bulk_insert(mutexes, [{"name": "staging", "taken": 0}])
    op.create_index("ix_taskflow_atom_parent", "atomdetails", ["parent_uuid"])
    op.create_index("ix_taskflow_flow_parent", "flowdetails", ["parent_uuid"])
