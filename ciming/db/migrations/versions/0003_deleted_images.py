# SPDX-License-Identifier: Apache-2.0
"""Images that were deleted: their records stay as long as their Jobs."""

from alembic import op
import sqlalchemy as sa

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("images", sa.Column("deleted_at", sa.BigInteger))
