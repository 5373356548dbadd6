# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait for a credential."""

from alembic import op
import sqlalchemy as sa

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("waiting_since", sa.BigInteger))
