# SPDX-License-Identifier: Apache-2.0
"""Trusts that Keystone may have and no Job names."""

from typing import Any

from alembic import op
import sqlalchemy as sa

revision = "0002"
down_revision = "0001"

# On MariaDB: all of Unicode, and two names are equal only if all their bytes are.
EXACT: dict[str, Any] = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}


def upgrade() -> None:
    op.create_table(
        "pending_trusts",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("trustor_user_id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("trust_id", sa.String(64)),
        sa.Column("doomed", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        **EXACT,
    )
    op.create_index("ix_pending_trusts_created", "pending_trusts", ["created_at"])
