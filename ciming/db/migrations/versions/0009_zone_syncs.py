# SPDX-License-Identifier: Apache-2.0
"""Syncs of zones: Jobs that have no Image of their own, what they have planned, and which zones they hold."""

from typing import Any

from alembic import op
import sqlalchemy as sa

revision = "0009"
down_revision = "0008"

# On MariaDB: all of Unicode, and two names are equal only if all their bytes are.
EXACT: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("image_id", existing_type=sa.String(36), nullable=True)
        jobs.add_column(sa.Column("report", sa.JSON))
    op.create_table(
        "zone_entries",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("symbol", sa.String(32), nullable=False),
        sa.Column("zone", sa.String(255), nullable=False),
        sa.Column("image_ref", sa.String(1024)),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("said", sa.JSON, nullable=False),
        sa.Column("child_id", sa.String(36), sa.ForeignKey("jobs.id")),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("error", sa.JSON),
        **EXACT,
    )
    op.create_index("ix_zone_entries_child", "zone_entries", ["child_id"])
    op.create_table(
        "zone_locks",
        sa.Column("scope", sa.String(64), primary_key=True),
        sa.Column("first", sa.String(255), primary_key=True),
        sa.Column("second", sa.String(255), primary_key=True),
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
        **EXACT,
    )
    op.create_index("ix_zone_locks_job_id", "zone_locks", ["job_id"])
    mutexes = sa.table("mutexes", sa.column("name", sa.String), sa.column("taken", sa.BigInteger))
    op.bulk_insert(mutexes, [{"name": "zones", "taken": 0}])
