# SPDX-License-Identifier: Apache-2.0
"""In what an image is another in a Cloud."""

from alembic import op
import sqlalchemy as sa

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("targets", sa.Column("remarks", sa.JSON))
