# SPDX-License-Identifier: Apache-2.0
"""TaskFlow's persistence, fenced: what a flow writes is written only while the Job is ours.

The stock backend builds its Table objects anew for each connection, which defeats SQLAlchemy's cache of
compiled statements; these share one set. And it writes each state of a flow and of its atoms, most of which
the next engine needs not know: what ran is executed again, as what had not begun.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from taskflow import exceptions as tf_exceptions
from taskflow import states
from taskflow.persistence import models as tf_models
from taskflow.persistence.backends import impl_sqlalchemy
from taskflow.persistence.backends.sqlalchemy import tables

from ciming import points
from ciming.db import session as db
from ciming.db import work

_METADATA = sa.MetaData()
_TABLES = tables.fetch(_METADATA)
_ON_THE_WAY = (states.RESUMING, states.SUSPENDED, states.RUNNING)


class _FencedEngine:
    """What the backend's connection needs of an engine, each transaction opened by the fence."""

    def __init__(self, claim: work.Claim) -> None:
        self._claim = claim
        self.url = db.engine().url

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        with work.interrupting(), db.turn(), db.writing_engine().begin() as connection:
            work.fence(connection, self._claim)
            yield connection

    @contextlib.contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        with work.interrupting(), db.engine().connect() as connection:
            yield connection


class _Connection(impl_sqlalchemy.Connection):  # type: ignore[misc]  # TaskFlow is untyped
    def __init__(self, backend: impl_sqlalchemy.SQLAlchemyBackend) -> None:
        self._backend = backend
        self._engine = backend.engine
        self._metadata = _METADATA
        self._tables = _TABLES
        self._converter = impl_sqlalchemy._Alchemist(_TABLES)
        self._written: dict[str, int] = {}      # of each flow, how many atoms

    def update_atom_details(self, atom_detail: tf_models.AtomDetail) -> tf_models.AtomDetail:
        if atom_detail.state == states.RUNNING:
            return atom_detail
        return super().update_atom_details(atom_detail)

    def update_flow_details(self, flow_detail: tf_models.FlowDetail) -> tf_models.FlowDetail:
        known = self._written.get(flow_detail.uuid) == len(flow_detail)
        if known and flow_detail.state in _ON_THE_WAY:
            return flow_detail
        self._written[flow_detail.uuid] = len(flow_detail)
        return super().update_flow_details(flow_detail)

    def close(self) -> None:
        """Nothing is held between transactions."""


class FencedBackend(impl_sqlalchemy.SQLAlchemyBackend):  # type: ignore[misc]
    """A backend for the flows of one claimed Job."""

    def __init__(self, claim: work.Claim) -> None:
        super().__init__({}, engine=_FencedEngine(claim))
        self._connection = _Connection(self)

    def get_connection(self) -> Any:
        return self._connection


@points.mutation
def forget(claim: work.Claim) -> None:
    """Drop the LogBook of a claimed Job, if there is one."""
    with contextlib.suppress(tf_exceptions.NotFound):
        FencedBackend(claim).get_connection().destroy_logbook(claim.job_id)
