# SPDX-License-Identifier: Apache-2.0
"""Lists against what plain Python makes of the same rows."""

import itertools
import operator
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ciming import exceptions
from ciming.db import lists, models, session, tracked

ALL = "CIMING_TEST_ALL" in os.environ
PROJECTS = ("studio", "garage")
ROWS = 24
KEYS = ("id", "name", "status", "disk_format", "size", "virtual_size", "created_at", "updated_at")
PAGES = (5, ROWS)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


@pytest.fixture
def rows(database: str) -> list[models.Image]:
    """Images that are alike in much, of two projects; several values are not known."""
    luck = random.Random(3)
    made = [
        models.Image(
            id=models.new_id(),
            project_id=luck.choice(PROJECTS),
            user_id="alice",
            name=luck.choice(("a", "b", "c,d", 'e"f', "%", "_")),
            status=luck.choice(("active", "error")),
            disk_format=luck.choice((None, "raw", "qcow2")),
            size=luck.choice((None, 0, 1, 2**40)),
            virtual_size=luck.choice((None, 5)),
            created_at=luck.randrange(5),
            updated_at=luck.randrange(3),
            links=[
                models.Link(
                    cloud_key=zone,
                    cloud=zone,
                    provider="openstack",
                    image_ref="x",
                    proof="bytes",
                    verified_at=1,
                )
                for zone in ("zone-a", "zone-b")
                if luck.random() < 0.5
            ],
        )
        for _ in range(ROWS)
    ]
    with session.writer() as writer:
        writer.add_all(made)
    return made


def walk(project: str | None, page: lists.Page) -> Iterator[models.Image]:
    """Everything, page by page."""
    while found := lists.images(project, page):
        assert len(found) <= page.limit
        yield from found
        page = page._replace(marker=found[-1].id)


def expected(
    rows: Sequence[models.Image], order: Sequence[lists.Order], meets: Callable[[models.Image], bool]
) -> list[str]:
    """The ids, by a stable sort for each key from the last to the first; unknown is largest."""
    found = sorted(filter(meets, rows), key=lambda row: row.id, reverse=order[-1].descending)
    for key in reversed(order):
        found.sort(
            key=lambda row, name=key.column: _known_first(getattr(row, name)),  # type: ignore[misc]
            reverse=key.descending,
        )
    return [row.id for row in found]


def _known_first(value: Any) -> tuple[bool, Any]:
    return value is None, value


def orders() -> Iterator[tuple[lists.Order, ...]]:
    every = [lists.Order(key, descending) for key in KEYS for descending in (False, True)]
    yield from ((key,) for key in every)
    pairs = [pair for pair in itertools.permutations(every, 2) if pair[0].column != pair[1].column]
    yield from random.Random(5).sample(pairs, 20 if ALL else 4)


@pytest.mark.parametrize("project", [*PROJECTS, None])
def test_every_order_in_pages_of_every_length(rows: list[models.Image], project: str | None) -> None:
    for order in orders():
        wanted = expected(rows, order, lambda row: project in (None, row.project_id))
        for limit in PAGES:
            found = [row.id for row in walk(project, lists.Page(limit, order=order))]
            assert found == wanted, (order, limit)


def one_condition(condition: lists.Condition) -> Callable[[models.Image], bool]:
    name, how, values = condition

    def meets(row: models.Image) -> bool:
        if name == "cloud":
            return bool({link.cloud for link in row.links} & set(values)) == (how == "in")
        value = getattr(row, name)
        if how in ("in", "nin"):
            return (value in values) == (how == "in")
        return value is not None and COMPARE[how](value, *values)

    return meets


CONDITIONS = [
    lists.Condition("name", "in", ["a", "c,d"]),
    lists.Condition("name", "in", ["%"]),
    lists.Condition("name", "nin", ["_", 'e"f']),
    lists.Condition("disk_format", "in", ["raw"]),
    lists.Condition("disk_format", "nin", ["raw"]),
    lists.Condition("size", "nin", [0, 1]),
    lists.Condition("cloud", "in", ["zone-a"]),
    lists.Condition("cloud", "nin", ["zone-a", "zone-b"]),
    *(lists.Condition("size", how, [1]) for how in COMPARE),
    *(lists.Condition("created_at", how, [2]) for how in COMPARE),
]


PAIRS = list(itertools.combinations(CONDITIONS, 2))


@pytest.mark.parametrize(
    "some", PAIRS if ALL else random.Random(7).sample(PAIRS, 30)
)
def test_all_conditions_hold(rows: list[models.Image], some: tuple[lists.Condition, ...]) -> None:
    order = (lists.Order("size", descending=True), lists.Order("name"))
    for conditions in (some[:1], some):
        left = rows
        for condition in conditions:
            left = list(filter(one_condition(condition), left))
        wanted = expected(left, order, lambda _row: True)
        page = lists.Page(5, conditions=conditions, order=order)
        assert [row.id for row in walk(None, page)] == wanted


def test_some_of_each_are_found_and_some_are_not(rows: list[models.Image]) -> None:
    """Or the test above says nothing."""
    for condition in CONDITIONS:
        assert 0 < len(list(filter(one_condition(condition), rows))) < ROWS, condition


def test_a_marker_has_to_be_ones_own(rows: list[models.Image]) -> None:
    foreign = next(row for row in rows if row.project_id == "garage")
    for marker in (foreign.id, models.new_id()):
        with pytest.raises(exceptions.InvalidRequest) as caught:
            lists.images("studio", lists.Page(5, marker=marker))
        assert caught.value.field == "marker"


def test_a_marker_need_not_meet_the_conditions(rows: list[models.Image]) -> None:
    marker = next(row for row in rows if row.status == "error")
    page = lists.Page(ROWS, marker.id, [lists.Condition("status", "in", ["active"])], (lists.Order("id"),))
    found = [row.id for row in lists.images(None, page)]
    assert found == sorted(row.id for row in rows if row.status == "active" and row.id > marker.id)


@pytest.mark.parametrize(
    "tag", ["golden", "Golden", 'a"b', "a\\b", "größe", "%", "gold", "a, b", "b", ", ", "\\", "\n"]
)
@pytest.mark.parametrize("how", ["in", "nin"])
def test_by_tag(rows: list[models.Image], tag: str, how: str) -> None:
    """A whole tag, in its own case, whatever is in it."""
    with session.writer() as writer:
        some: list[list[str]] = [["golden"], [], ["Golden", 'a"b'], ["a\\b", "größe"], ["%", "a, b", "\\"]]
        for row, tags in zip(rows, itertools.cycle(some), strict=False):
            writer.get_one(models.Image, row.id).tags = row.tags = tags
    page = lists.Page(ROWS, None, [lists.Condition("tag", how, [tag])])
    found = {image.id for image in walk(None, page)}
    assert found == {row.id for row in rows if (tag in row.tags) == (how == "in")}


def test_what_is_tracked(rows: list[models.Image]) -> None:
    """By what it is in a Cloud, and by its digests; of one's own project only."""
    one, other = (next(row for row in rows if row.project_id == project) for project in PROJECTS)
    with session.writer() as writer:
        for row in (one, other):
            known = writer.get_one(models.Image, row.id)
            known.digests = {"sha512": "ab", "guest": None}
            link = models.Link(cloud_key="zone-c", cloud="zone-c", provider="openstack", proof="bytes")
            link.image_ref, link.verified_at = f"ref {row.id}", 1
            known.links.append(link)
    refs = [f"ref {row.id}" for row in (one, other)] + [f"x {number}" for number in range(1200)]
    mine = tracked.Tracked(one.id, one.name)
    assert tracked.linked(PROJECTS[0], "zone-c", refs) == {refs[0]: mine}
    assert tracked.linked(PROJECTS[0], "zone-a", refs) == {}
    assert tracked.with_digests(PROJECTS[0], ["ab", "cd"]) == {"ab": [mine]}
    assert tracked.with_digests(PROJECTS[0], []) == {} == tracked.with_digests("nobody", ["ab"])
    assert tracked.coming([one.id]) == []
