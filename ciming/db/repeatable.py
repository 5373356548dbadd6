# SPDX-License-Identifier: Apache-2.0
"""A migration that was interrupted can be done again on MariaDB, too, where each statement stays at once.

PostgreSQL and SQLite undo one that did not come to its end. To import this is enough: alembic then speaks so
to MariaDB, TaskFlow's migrations included. What a migration writes otherwise than by INSERT of rows with a
key, it has to be able to write twice.
"""

from typing import Any

import sqlalchemy as sa
from alembic.ddl import base, mysql
from oslo_db import exception as oslo_db_exception
from oslo_log import log
from sqlalchemy import schema

LOG = log.getLogger(__name__)
DONE: dict[type, tuple[int, str]] = {
    schema.CreateTable: (1050, ""),
    base.RenameTable: (1146, ""),       # there is none of the old name
    base.AddColumn: (1060, ""),
    base.DropColumn: (1091, ""),
    schema.CreateIndex: (1061, ""),
    schema.DropIndex: (1091, ""),
    schema.AddConstraint: (1005, "errno: 121"),     # others are that it can not be made
    sa.Insert: (1062, ""),
}
"""Number of the error, and words in it, by which MariaDB says that a statement was executed before."""


class Repeatable(mysql.MySQLImpl):
    """How alembic speaks to MariaDB: what was done before is left as it is."""

    __dialect__ = "mysql"

    def _exec(self, construct: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return super()._exec(construct, *arguments, **named)
        except (sa.exc.DBAPIError, oslo_db_exception.DBError) as error:
            said = getattr(getattr(error, "inner_exception", error), "orig", None)
            if not (_was_done(construct, said) and self._is_ours(construct)):
                raise
        LOG.warning("An upgrade was interrupted before, and goes on: %s", said)
        return None

    def _is_ours(self, construct: Any) -> bool:
        """Or somebody else has a table of this name."""
        if not isinstance(construct, schema.CreateTable):
            return True
        assert self.connection is not None
        there = sa.inspect(self.connection).get_columns(construct.element.name)
        return {column["name"] for column in there} == set(construct.element.columns.keys())


def _was_done(construct: Any, said: object) -> bool:
    number, words = DONE.get(type(construct), (None, ""))
    return number is not None and getattr(said, "args", ())[:1] == (number,) and words in str(said)
