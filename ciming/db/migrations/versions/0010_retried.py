# SPDX-License-Identifier: Apache-2.0
"""When a Job was begun again, which counts as often as the first time."""

from alembic import op
import sqlalchemy as sa

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retried", sa.JSON))
