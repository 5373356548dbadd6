# SPDX-License-Identifier: Apache-2.0
"""What a plan says of two zones: which image is which, what differs, and what can not be."""

import dataclasses
from collections.abc import Collection
from typing import Any

import pytest

from ciming.engine import comparing
from ciming.providers import base

ONE = base.Surveyed(
    image_ref="id-1",
    name="debian",
    owner="studio",
    status="active",
    size=1000,
    digest="sha512:aa",
    md5="cc",
    created_at="2026-03-01T00:00:00Z",
    tags=("golden",),
    properties={"os_distro": "debian", "note": "here"},
)
RULES = comparing.Rules(properties=("os_*",))
Entries = list[dict[str, Any]]


def like(image: base.Surveyed = ONE, **changes: Any) -> base.Surveyed:
    return dataclasses.replace(image, **changes)


def compared(
    source: list[base.Surveyed],
    target: list[base.Surveyed],
    rules: comparing.Rules = RULES,
    proven: Collection[tuple[str, str]] = (),
) -> Entries:
    return list(comparing.compare(source, target, "zone-b", rules, proven))


def told(entries: Entries) -> list[tuple[Any, ...]]:
    return [(entry["symbol"], entry["image"], entry["there"]) for entry in entries]


OTHER = "sha512:bb"
ELSEWHERE = like(image_ref="id-2")


@pytest.mark.parametrize(
    ("there", "symbol", "differs"),
    [
        ([], "+", []),
        ([ONE], "=", []),
        ([ELSEWHERE], "=", []),                                         # by name, owner and hash
        ([like(ELSEWHERE, name="other", mark="id-1")], "~", ["name"]),  # by our mark and hash
        ([like(name="other")], "~", ["name"]),
        ([like(tags=(), min_disk=3)], "~", ["tags", "min_disk"]),
        ([like(properties={"os_distro": "fedora", "os_version": "1"})], "~",
         ["properties.os_distro", "properties.os_version"]),
        ([like(properties={"os_distro": "debian", "note": "there"})], "=", []),     # is not carried
        ([like(hidden=True, protected=True)], "~", ["protected", "hidden"]),
        ([like(digest=OTHER)], "*", []),
        ([like(ELSEWHERE, digest=OTHER)], "*", []),                     # by name and owner only
        ([like(ELSEWHERE, digest=OTHER, mark="id-1", name="x")], "+", []),      # a snapshot keeps our mark
        ([like(digest=None)], "*", []),
        ([like(size=999)], "*", []),
        ([like(ELSEWHERE, digest=OTHER, hidden=True)], "+", []),        # it was replaced before
    ],
)
def test_what_is_said_of_one(there: list[base.Surveyed], symbol: str, differs: list[str]) -> None:
    [entry, *_] = [each for each in compared([ONE], there) if each["image"]]
    assert (entry["symbol"], entry["differs"]) == (symbol, differs)
    assert (entry["carry"] is not None) == (symbol in "+~*")
    assert entry["proof"] == ("bytes" if symbol in "=~" else None)


def test_the_same_content_is_found_before_the_same_id() -> None:
    """As after a replace, when the old one has the id, and the new one another."""
    old, new = like(digest=OTHER, hidden=True), ELSEWHERE
    assert told(compared([ONE], [old, new])) == [("=", "id-1", "id-2"), ("-", None, "id-1")]


def test_what_was_converted_is_the_same_where_that_was_proven() -> None:
    raw = like(ELSEWHERE, digest=OTHER, size=4000)
    [entry] = compared([ONE], [raw], proven=[("id-1", "id-2")])
    assert (entry["symbol"], entry["proof"]) == ("=", "guest")


@pytest.mark.parametrize(
    "there",
    [
        ONE,
        like(digest=OTHER),
        like(ELSEWHERE, mark="id-1"),
        ELSEWHERE,
        like(ELSEWHERE, digest=OTHER),
    ],
)
def test_what_is_anothers_is_not_taken_for_it(there: base.Surveyed) -> None:
    """Whatever id, mark, name and bytes it has, and though it was proven to have come from here."""
    theirs = like(there, owner="garage")
    first, second = compared([ONE], [theirs], proven=[("id-1", theirs.image_ref)])
    assert (first["symbol"], first["there"]) == ("+", None)
    assert (second["symbol"], bool(second["why"])) == ("-", True)


def test_of_several_that_were_proven_the_owners_is_the_one() -> None:
    """Another project has brought it there for itself."""
    raw = like(ELSEWHERE, digest=OTHER, size=4000)
    theirs = like(raw, image_ref="id-0", owner="garage")
    for proven in ([("id-1", "id-0"), ("id-1", "id-2")], [("id-1", "id-2"), ("id-1", "id-0")]):
        entries = compared([ONE], [theirs, raw], proven=proven)
        assert told(entries) == [("=", "id-1", "id-2"), ("-", None, "id-0")]


def test_of_several_that_were_proven_the_one_of_its_id_is_the_one() -> None:
    """And not what it was brought as besides, by whose id nobody boots; nor is it taken for another."""
    twin, copy = like(ELSEWHERE, name="twin"), like(image_ref="id-0")
    proven = [("id-1", "id-0"), ("id-1", "id-1"), ("id-1", "id-2"), ("id-2", "id-2"), ("id-2", "id-0")]
    assert told(compared([ONE], [ONE, copy], proven=proven)) == [("=", "id-1", "id-1"), ("-", None, "id-0")]
    assert told(compared([ONE, twin], [ONE, copy, twin], proven=proven)) == [
        ("=", "id-1", "id-1"), ("=", "id-2", "id-2"), ("-", None, "id-0")
    ]
    proven = [("id-1", "id-2"), ("id-2", "id-2")]
    assert told(compared([ONE, twin], [twin, copy], proven=proven)) == [
        ("=", "id-1", "id-0"), ("=", "id-2", "id-2")
    ]


def test_two_of_one_name_are_told_apart_by_their_hashes() -> None:
    second = like(image_ref="id-3", digest=OTHER)
    there = [like(image_ref="id-8", digest=OTHER), like(image_ref="id-9")]
    assert told(compared([ONE, second], there)) == [("=", "id-1", "id-9"), ("=", "id-3", "id-8")]


def test_two_of_one_name_that_are_neither_are_left_to_people() -> None:
    there = [like(image_ref="id-8", digest="sha512:cc"), like(image_ref="id-9", digest="sha512:dd")]
    first, second, third = compared([ONE], there)
    assert (first["symbol"], "Several" in first["why"]) == ("!", True)
    assert told([second, third]) == [("-", None, "id-8"), ("-", None, "id-9")]


def test_what_is_hidden_here_is_no_other_by_its_name() -> None:
    """One that is retired is not to take the place of one that is used there, or to make it ambiguous."""
    retired = like(hidden=True)
    live = like(ELSEWHERE, digest=OTHER)
    assert told(compared([retired], [live])) == [("+", "id-1", None), ("-", None, "id-2")]
    newer = like(image_ref="id-3", digest="sha512:cc")
    assert told(compared([retired, newer], [live])) == [("+", "id-1", None), ("*", "id-3", "id-2")]
    assert told(compared([retired], [like(ELSEWHERE)])) == [("~", "id-1", "id-2")]     # of the same bytes


@pytest.mark.parametrize(
    ("image", "there", "why"),
    [
        (like(unreadable="It is queued."), [], "It is queued."),
        (like(size=0), [], "It has 0 bytes"),
        (like(size=2000), [], "it may have 1 to 1500"),
        (like(visibility="public"), [], "only an operator"),
        (like(visibility="public"), [ONE], "only an operator"),
        (ONE, [like(status="saving", digest=None)], "is saving"),
        (like(owner=""), [], "no owner"),
        (like(owner=""), [like(owner="", digest=OTHER)], "no owner"),
    ],
)
def test_what_can_not_be(image: base.Surveyed, there: list[base.Surveyed], why: str) -> None:
    [entry] = compared([image], there, dataclasses.replace(RULES, largest=1500))
    assert (entry["symbol"], entry["carry"]) == ("!", None) and why in entry["why"]


def test_what_nobody_owns_stays_so_or_is_given_to_somebody() -> None:
    nobodys = like(owner="")
    assert told(compared([nobodys], [nobodys])) == [("=", "id-1", "id-1")]
    assert told(compared([nobodys], [like(nobodys, tags=())])) == [("~", "id-1", "id-1")]
    [entry] = compared([nobodys], [], dataclasses.replace(RULES, map_project={"": "lab"}))
    assert (entry["symbol"], entry["carry"]["owner"]) == ("+", "lab")


def test_an_operator_publishes() -> None:
    [entry] = compared([like(visibility="public")], [], dataclasses.replace(RULES, everything=True))
    assert (entry["symbol"], entry["carry"]["visibility"]) == ("+", "public")


def test_owners_are_mapped() -> None:
    rules = dataclasses.replace(RULES, map_project={"studio": "lab"}, filters={"owner": ["studio"]})
    theirs = like(ELSEWHERE, owner="lab")
    another = like(image_ref="id-3", owner="lab", name="x", digest=OTHER)
    assert told(compared([ONE], [theirs, another], rules)) == [
        ("=", "id-1", "id-2"),
        ("-", None, "id-3"),
    ]
    [entry] = compared([ONE], [], rules)
    assert (entry["owner"], entry["carry"]["owner"]) == ("studio", "lab")


@pytest.mark.parametrize("named", [None, ["studio"], ["studio", "lab"], ["lab"]])
@pytest.mark.parametrize("has_some", [False, True])
def test_who_is_given_images_keeps_what_they_have(named: list[str] | None, has_some: bool) -> None:
    """Unless they have images here that stay theirs, by which theirs there are judged."""
    rules = dataclasses.replace(
        RULES, map_project={"studio": "lab"}, filters={"owner": named} if named else {}
    )
    theirs = like(image_ref="id-3", owner="lab", name="x", digest=OTHER)
    givers = like(image_ref="id-4", name="y", digest="x:4")
    here = [ONE, *([like(image_ref="id-5", owner="lab", name="z", digest="x:5")] if has_some else ())]
    entries = compared(here, [theirs, givers], rules)
    why = {each["there"]: each["why"] for each in entries if each["symbol"] == "-"}
    judged = has_some and named != ["studio"]
    assert why.pop("id-3") is None if judged else "stays theirs" in why.pop("id-3")
    assert all(each and "left alone" in each for each in why.values())      # of who gives theirs away


CHANGES: list[dict[str, Any]] = [
    {"properties": {"os_distro": "fedora"}},
    {"tags": ("other",)},
    {"visibility": "public"},
    {"hidden": True},
    {"min_ram": 5},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_is_about_what_is_there_now(change: dict[str, Any]) -> None:
    """It says in which way that differs, and is another one when that has changed to a third."""
    for there in (like(min_disk=7), like(ELSEWHERE, digest=OTHER), like(ELSEWHERE, name="x", digest=OTHER)):
        before = compared([ONE], [there])
        assert compared([ONE], [there]) == before
        after = compared([ONE], [like(there, **change)])
        assert [each.get("state") for each in before if each["there"]] != [
            each.get("state") for each in after if each["there"]
        ]


def test_of_what_is_left_as_it_is_a_plan_says_no_state() -> None:
    """Whatever becomes of it."""
    theirs = like(image_ref="id-8", name="b", digest=OTHER, owner="lab")
    for there in ([], [ONE], [like(status="saving", digest=None)], [theirs]):
        assert {each["state"] for each in compared([ONE], there)} == {None}
    noted = like(ELSEWHERE, name="x", digest=OTHER, properties={"note": "of mine"})
    [_, left], [_, now] = (compared([ONE], [each]) for each in (noted, like(noted, properties={})))
    assert left["state"] != now["state"]        # all that is deleted with it counts


def test_what_is_only_there_and_is_to_stay() -> None:
    there = [
        like(image_ref="id-7", name="a", digest=OTHER, protected=True),
        like(image_ref="id-8", name="b", digest=OTHER, owner="lab"),
        like(image_ref="id-8a", name="c", digest=OTHER, hidden=True),
        like(image_ref="id-8b", name="d", digest=None, status="saving"),
        like(image_ref="id-8c", name="e", digest=OTHER),
        like(image_ref="id-9", name="f", digest=OTHER),
    ]
    entries = comparing.compare([ONE], there, "zone-b", RULES, used=["id-8c"])
    why = {entry["there"]: entry["why"] for entry in entries if entry["symbol"] == "-"}
    assert sorted(each for each, said in why.items() if said) == ["id-7", "id-8", "id-8a", "id-8b", "id-8c"]
    assert why["id-9"] is None


@pytest.mark.parametrize(
    ("filters", "met"),
    [
        ({"name": ["deb*", "x"]}, True),
        ({"name": ["DEB*"]}, False),
        ({"owner": ["studio", "lab"]}, True),
        ({"owner": ["lab"]}, False),
        ({"visibility": ["private"]}, True),
        ({"visibility": ["public"]}, False),
        ({"tag": ["golden"]}, True),
        ({"tag": ["golden", "x"]}, False),
        ({"property": {"os_distro": "debian", "note": "here"}}, True),
        ({"property": {"os_distro": "fedora"}}, False),
        ({"status": ["active"]}, True),
        ({"status": ["queued"]}, False),
        ({"newer_than": "2026-03-01T00:00:00Z"}, True),
        ({"newer_than": "2026-03-01T00:00:01Z"}, False),
        ({"size_below": 1001}, True),
        ({"size_below": 1000}, False),
        ({"name": ["deb*"], "size_below": 1000}, False),
    ],
)
def test_filters(filters: dict[str, Any], met: bool) -> None:
    assert comparing.wants(filters, ONE) is met
    there = like(ELSEWHERE, name="debian-old", digest=OTHER)
    entries = compared([ONE], [there], dataclasses.replace(RULES, filters=filters))
    assert bool([entry for entry in entries if entry["image"]]) is met


def test_what_is_left_out_is_not_taken_for_something_that_only_the_target_has() -> None:
    assert compared([ONE], [ONE], dataclasses.replace(RULES, filters={"size_below": 10})) == []


def test_smallest_first() -> None:
    images = [like(image_ref=f"id-{n}", name=f"{n}", size=n, digest=f"x:{n}") for n in (30, 10, 20)]
    assert [entry["size"] for entry in compared(images, [])] == [10, 20, 30]


def test_thousands_take_no_time() -> None:
    here = [like(image_ref=f"{n}", name=f"{n}", digest=f"x:{n}") for n in range(5000)]
    there = [like(image, image_ref=f"there-{image.image_ref}") for image in here[:4000]]
    entries = compared(here, there)
    assert [entry["symbol"] for entry in entries].count("=") == 4000


def test_zones_that_hash_in_different_ways() -> None:
    """One that is older than its sha512 is known by its MD5; what has no hash in common may be the same."""
    older = like(digest="md5:cc", md5="cc")
    assert told(compared([older], [ONE])) == [("=", "id-1", "id-1")]
    assert told(compared([ONE], [like(digest="sha256:dd")])) == [("=", "id-1", "id-1")]
    assert told(compared([older], [like(md5="ee")])) == [("*", "id-1", "id-1")]
    (entry,) = compared([ONE], [like(digest="sha256:dd", md5=None)])
    assert (entry["symbol"], "hash in different ways" in entry["why"]) == ("!", True)
    (entry,) = compared([ONE], [like(digest="sha256:dd", md5=None, size=999)])
    assert entry["symbol"] == "*"
