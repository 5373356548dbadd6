# SPDX-License-Identifier: Apache-2.0
"""How much of the room that a Job has is taken by what its image was converted to."""

from alembic import op
import sqlalchemy as sa

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("uploads", sa.Column("converted", sa.BigInteger, nullable=False, server_default="0"))
