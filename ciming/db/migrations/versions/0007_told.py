# SPDX-License-Identifier: Apache-2.0
"""What was said of an image when it was linked."""

from alembic import op
import sqlalchemy as sa

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("links", sa.Column("told", sa.JSON))
