# SPDX-License-Identifier: Apache-2.0
"""What alembic runs; the connection comes from ciming.db.session.upgrade()."""

from alembic import context

from ciming.db import models, session

context.configure(
    connection=context.config.attributes.get("connection") or session.engine().connect(),
    target_metadata=models.Base.metadata,
    version_table=session.VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
