# SPDX-License-Identifier: Apache-2.0
"""What is said of an Image when it grows old."""

from alembic import op
import sqlalchemy as sa

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("images", sa.Column("hidden", sa.Boolean))
    op.add_column("images", sa.Column("deprecated", sa.Boolean))
