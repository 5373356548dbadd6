# SPDX-License-Identifier: Apache-2.0
"""What the query of a list means, and how it is refused."""

import re
import string
from typing import Any

import marshmallow as ma
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciming.api import filters, queries
from ciming.db import lists

QUERIES = (queries.ImageQuery, queries.JobQuery, queries.CloudQuery)
ID = "0f0e0d0c-0b0a-4909-8807-060504030201"


def images(**query: Any) -> Any:
    return queries.ImageQuery().load(query, unknown=ma.RAISE)


@pytest.mark.parametrize(
    ("name", "text", "meaning"),
    [
        ("name", "web", ("in", ["web"])),
        ("name", "eq:web", ("in", ["web"])),
        ("name", "neq:web", ("nin", ["web"])),
        ("name", "in:web,db", ("in", ["web", "db"])),
        ("name", "nin:web,db", ("nin", ["web", "db"])),
        ("name", 'in:"a,b",c', ("in", ["a,b", "c"])),
        ("name", r'in:"say \"a\"",c', ("in", ['say "a"', "c"])),
        ("name", "ubuntu:24.04", ("in", ["ubuntu:24.04"])),      # no operator of ours
        ("name", "eq:in:a,b", ("in", ["in:a,b"])),
        ("name", "a,b", ("in", ["a,b"])),
        ("name", "in:a\nb,c d", ("in", ["a\nb", "c d"])),
        ("name", "eq: ", ("in", [" "])),
        ("name", "eq:ä\n", ("in", ["ä\n"])),
        ("status", "in:active,error", ("in", ["active", "error"])),
        ("size", "gte:1048576", ("gte", [1048576])),
        ("size", "5", ("in", [5])),
        ("id", ID.upper(), ("in", [ID])),
        ("created_at", "lt:1970-01-01T00:00:01Z", ("lt", [1000])),
        ("created_at", "gt:1970-01-01T00:00:01.002", ("gt", [1002])),
        ("created_at", "1970-01-01T01:00:00+01:00", ("in", [0])),
        ("created_at", "gte:2038-01-19T03:14:08.123Z", ("gte", [2**31 * 1000 + 123])),
        ("created_at", "lte:1970-01-02", ("lte", [86_400_000])),
    ],
)
def test_meaning(name: str, text: str, meaning: tuple[str, list[Any]]) -> None:
    assert images(**{name: [text]}) == {name: [meaning]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("name", ""),
        ("name", "in:"),
        ("name", "in:a,"),
        ("name", "in:a,,b"),
        ("name", 'in:"a'),
        ("name", 'in:"a"b'),
        ("name", "gt:a"),
        ("name", "lte:a"),
        ("name", "n" * 256),
        ("name", "a\0"),
        ("name", "in:" + ",".join(["a"] * 51)),
        ("status", "fine"),
        ("status", "in:active,fine"),
        ("status", "gte:active"),
        ("size", "-1"),
        ("size", "1.5"),
        ("size", "gte:"),
        ("size", "ge:5"),
        ("size", "\u0661"),
        ("size", "9223372036854775808"),
        ("size", "1_000"),
        ("id", "x"),
        ("id", "gt:" + ID),
        ("created_at", "yesterday"),
        ("created_at", "gt:2026-02-30T00:00:00Z"),
        ("created_at", "like:2026-02-03"),
        ("created_at", "12"),
    ],
)
def test_refusal_names_the_field(name: str, text: str) -> None:
    with pytest.raises(ma.ValidationError) as caught:
        images(**{name: [text]})
    [message] = caught.value.messages_dict[name]
    assert message[-1] in ".?" and len(message) < 400


def test_conditions_add_up() -> None:
    assert images(size=["gte:1", "lt:5"]) == {"size": [("gte", [1]), ("lt", [5])]}
    with pytest.raises(ma.ValidationError):
        images(size=["gte:1", "x"])
    with pytest.raises(ma.ValidationError):
        images(size=["1"] * 5)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("name", [("name", False)]),
        ("name:asc", [("name", False)]),
        ("size:desc,name", [("size", True), ("name", False)]),
        ("name,name:desc", [("name", False)]),
    ],
)
def test_sort(text: str, order: list[tuple[str, bool]]) -> None:
    assert images(sort=text) == {"sort": [lists.Order(*key) for key in order]}


@pytest.mark.parametrize("text", ["", "color", "name:", "name:up", "name,", ":asc", "name desc", "NAME"])
def test_bad_sort(text: str) -> None:
    with pytest.raises(ma.ValidationError) as caught:
        images(sort=text)
    assert set(caught.value.messages_dict) == {"sort"}


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", " 1", "+1", "1_0", "", "\u0663"])
def test_bad_limit(text: str) -> None:
    with pytest.raises(ma.ValidationError):
        images(limit=text)


@given(st.lists(st.text(string.printable + "äß€", min_size=1, max_size=20), min_size=1, max_size=5))
def test_any_text_can_be_quoted(values: list[str]) -> None:
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    assert images(name=["in:" + ",".join(quoted)]) == {"name": [("in", values)]}


@given(st.text(max_size=40), st.sampled_from(sorted(queries.ImageQuery().fields)))
def test_anything_else_is_understood_or_refused(text: str, name: str) -> None:
    is_filter = isinstance(queries.ImageQuery().fields[name], filters.Filter)
    try:
        images(**{name: [text] if is_filter else text})
    except ma.ValidationError as error:
        assert set(error.messages_dict) == {name}


@pytest.mark.parametrize("query", QUERIES)
def test_a_filter_is_described_as_it_works(query: type[ma.Schema]) -> None:
    """The pattern in the document takes what the code takes, in its usual spelling."""
    examples = {filters.A_UUID: ID, filters.A_TIME: "2026-03-01T12:00:00.000Z", filters.A_NUMBER: "7"}
    for field in query().fields.values():
        if isinstance(field, filters.Filter) and field.kind.pattern:
            pattern = re.compile(field.metadata["items"]["pattern"])
            one = examples.get(field.kind.pattern) or field.kind.pattern.strip("()").split("|")[0]
            for operator in ("", *(f"{each}:" for each in field.kind.operators)):
                assert pattern.search(operator + one), (pattern, operator)
                assert field.deserialize([operator + one])
            assert not pattern.search("like:" + one)
            assert not pattern.search(one + "!")
