# SPDX-License-Identifier: Apache-2.0
"""When a Job began to work where, beside when it was made: where it is read from, and again."""

from alembic import op
import sqlalchemy as sa

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("begun", sa.JSON))
