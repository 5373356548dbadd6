# SPDX-License-Identifier: Apache-2.0
"""Registered Clouds, and how to find what is in one."""

from typing import Any

from alembic import op
import sqlalchemy as sa

revision = "0004"
down_revision = "0003"

# On MariaDB: all of Unicode, and two names are equal only if all their bytes are.
EXACT: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}


def upgrade() -> None:
    op.create_table(
        "clouds",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("credential_ref", sa.String(1024)),
        sa.Column("visibility", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.create_index("ix_clouds_project_name", "clouds", ["project_id", "name"])
    op.create_index("ix_clouds_visibility", "clouds", ["visibility"])
    op.create_index("ix_links_cloud_key", "links", ["cloud_key"])
    op.create_index("ix_targets_cloud_key", "targets", ["cloud_key"])
    mutexes = sa.table("mutexes", sa.column("name", sa.String), sa.column("taken", sa.BigInteger))
    op.bulk_insert(mutexes, [{"name": "clouds", "taken": 0}])
