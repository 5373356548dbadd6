# SPDX-License-Identifier: Apache-2.0
"""Lists of Images and Jobs: filtered, in any order, page by page."""

import json
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm

from ciming import exceptions
from ciming.db import models
from ciming.db import session as db

Row = TypeVar("Row", models.Image, models.Job)
Clause = sa.ColumnElement[bool]


class Condition(NamedTuple):
    """`operator`: in, nin (not in), gt, gte, lt, lte; those but the first two have one value."""

    column: str
    operator: str
    values: Sequence[Any]


class Order(NamedTuple):
    """What is not known counts as larger than all that is."""

    column: str
    descending: bool = False


class Page(NamedTuple):
    """Which rows: those that meet all conditions, in this order, after the marker's row."""

    limit: int
    marker: str | None = None
    conditions: Sequence[Condition] = ()
    order: Sequence[Order] = (Order("created_at", descending=True),)


COMPARISONS: dict[str, Callable[[Any, Any], Clause]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
PLAINER = (("\\\\", "\\s"), ('\\"', "\\q"), ('", "', '"\n"'))
"""What to write for what in a list in JSON, in this order: then quotes are around its members only."""
CLOUDS: dict[type[models.Base], Callable[[Sequence[str]], Clause]] = {
    models.Image: lambda names: models.Image.links.any(models.Link.cloud.in_(names)),
    models.Job: lambda names: models.Job.targets.any(models.Target.cloud.in_(names)),
}
"""An Image is linked in one of these Clouds; a Job has a Target there."""


def images(project_id: str | None, page: Page) -> Sequence[models.Image]:
    """Images of a project; None: of all."""
    return _rows(models.Image, project_id, page)


def jobs(project_id: str | None, page: Page) -> Sequence[models.Job]:
    """Jobs of a project; None: of all."""
    return _rows(models.Job, project_id, page)


def _rows(model: type[Row], project_id: str | None, page: Page) -> Sequence[Row]:
    order = list(page.order)
    if "id" not in {key.column for key in order}:       # what makes any order a total one
        order.append(Order("id", order[-1].descending))
    query = sa.select(model).limit(page.limit)
    if model is models.Image:
        query = query.where(models.Image.deleted_at.is_(None))
    if project_id is not None:
        query = query.where(model.project_id == project_id)
    for condition in page.conditions:
        query = query.where(_meets(model, condition))
    for key in order:
        query = query.order_by(*_sorted(model, key))
    with db.reader() as session:
        if page.marker is not None:
            last = _marked(session, model, project_id, page.marker)
            query = query.where(_after(model, order, last))
        return session.scalars(query).all()


def _marked(session: orm.Session, model: type[Row], project_id: str | None, marker: str) -> Row:
    row = session.get(model, marker)
    if row is None or project_id not in (None, row.project_id):
        raise exceptions.InvalidRequest(f"The marker {marker} was not found.", field="marker")
    return row


def _column(model: type[Row], name: str) -> sa.ColumnElement[Any]:
    found: sa.ColumnElement[Any] = getattr(model, name)
    return found


def _meets(model: type[Row], condition: Condition) -> Clause:
    name, how, values = condition
    if name in ("cloud", "tag"):
        found = CLOUDS[model](values) if name == "cloud" else _tagged(values)
        return sa.not_(found) if how == "nin" else found
    column = _column(model, name)
    if how == "in":
        return column.in_(values)
    if how == "nin":        # SQL says neither yes nor no for what is not known
        return sa.or_(column.not_in(values), column.is_(None))
    return COMPARISONS[how](column, *values)


def _tagged(tags: Sequence[str]) -> Clause:
    """Has an Image one of these? LIKE does not tell cases apart everywhere; to take a word out does."""
    text: sa.ColumnElement[str] = sa.cast(models.Image.tags, sa.Text)
    for old, new in PLAINER:
        text = sa.func.replace(text, old, new)
    return sa.or_(*(sa.func.replace(text, _plain(tag), "") != text for tag in tags))


def _plain(tag: str) -> str:
    """As it stands in that list: no quotes but those around it."""
    said = json.dumps(tag)[1:-1]
    for old, new in PLAINER:
        said = said.replace(old, new)
    return f'"{said}"'


def _sorted(model: type[Row], key: Order) -> list[sa.ColumnElement[Any]]:
    """Databases disagree on where NULL goes: say it."""
    column = _column(model, key.column)
    by: list[sa.ColumnElement[Any]] = [column.desc() if key.descending else column.asc()]
    if _nullable(model, key):
        unknown = sa.case((column.is_(None), 1), else_=0)
        by.insert(0, unknown.desc() if key.descending else unknown.asc())
    return by


def _nullable(model: type[Row], key: Order) -> bool:
    return bool(model.__table__.c[key.column].nullable)


def _after(model: type[Row], order: Sequence[Order], last: Row) -> Clause:
    """The rows behind one: equal in some first keys, and behind it in the next."""
    alternatives: list[Clause] = []
    equal: list[Clause] = []
    for key in order:
        column, value = _column(model, key.column), getattr(last, key.column)
        alternatives.append(sa.and_(*equal, _behind(model, key, value)))
        equal.append(column.is_(None) if value is None else column == value)
    first = order[0]
    if _nullable(model, first):
        return sa.or_(*alternatives)
    # Says nothing new, but lets the database begin at the right place of an index.
    bound = COMPARISONS["lte" if first.descending else "gte"]
    column, value = _column(model, first.column), getattr(last, first.column)
    return sa.and_(bound(column, value), sa.or_(*alternatives))


def _behind(model: type[Row], key: Order, value: Any) -> Clause:
    column = _column(model, key.column)
    if value is None:
        return column.is_not(None) if key.descending else sa.false()
    if key.descending:
        return COMPARISONS["lt"](column, value)
    larger = COMPARISONS["gt"](column, value)
    return sa.or_(larger, column.is_(None)) if _nullable(model, key) else larger
