# SPDX-License-Identifier: Apache-2.0
"""Whether what a Cloud says of an image is what is known of it."""

import dataclasses
from typing import Any

import pytest

from ciming.api import judging
from ciming.db import models
from ciming.providers import base

LINKED = 1_800_000_000_000
A, B = "aa" * 64, "bb" * 64
FILE: dict[str, Any] = {"digests": {"sha512": A}, "size": 7}
DISK: dict[str, Any] = {"digests": {"guest": A}, "virtual_size": 1 << 30}


def judged(proof: str, told: dict[str, Any] | None = None, **said: Any) -> tuple[str, list[tuple[Any, ...]]]:
    """Of an Image of 7 bytes and a disk of 1000."""
    image = models.Image(name="demo", size=7, virtual_size=1000, digests={"sha512": A, "guest": A})
    link = models.Link(proof=proof, verified_at=LINKED, told=told, image_ref="one")
    seen = base.Metadata(**{"image_ref": "one", "name": "demo", "status": "active", "state": "ready", **said})
    status, differs = judging.judge(image, link, dataclasses.asdict(seen))
    assert {each.what for each in differs} <= {*judging.KINDS} and status in judging.STATUSES
    return status, [tuple(each) for each in differs]


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ("bytes", FILE),
        ("bytes", {}),                                              # it does not say
        ("bytes", {"digests": {"md5": "cc"}}),                      # nothing to compare
        ("guest", DISK),
        ("guest", {"digests": {"sha512": B}, "size": 9}),           # converted: another file
        ("guest", {"digests": None, "virtual_size": 1 << 30}),      # as AWS says it
        ("asserted", {"digests": {"sha512": B}, "size": 9}),        # a person said so
        ("bytes", {**FILE, "created_at": LINKED + 200_000}),        # its clock is ahead
    ],
)
def test_available(proof: str, said: dict[str, Any]) -> None:
    assert judged(proof, **said) == ("available", [])


@pytest.mark.parametrize(
    ("proof", "said", "differs"),
    [
        ("bytes", {"digests": {"sha512": B}}, ("hash", f"sha512:{A}", f"sha512:{B}")),
        ("bytes", {"size": 8}, ("size", "7", "8")),
        ("guest", {"digests": {"guest": B}}, ("hash", f"guest:{A}", f"guest:{B}")),
        ("guest", {"digests": {}}, ("hash", f"guest:{A}", None)),
        ("guest", {"virtual_size": 999}, ("size", "1000", "999")),
        ("asserted", {"state": "off", "status": "deactivated"}, ("status", None, "deactivated")),
        ("asserted", {"hidden": True}, ("hidden", "false", "true")),
        ("asserted", {"deprecated": True}, ("deprecated", "false", "true")),
    ],
)
def test_drifted(proof: str, said: dict[str, Any], differs: tuple[Any, ...]) -> None:
    assert judged(proof, **said) == ("drifted", [differs])


def test_made_after_it_was_linked() -> None:
    status, ((what, expected, found),) = judged("bytes", **FILE, created_at=LINKED + 400_000)
    assert (status, what) == ("drifted", "replaced")
    assert expected.startswith("created before 2027-01-15") and found.startswith("created 2027-01-15")


def test_what_was_said_when_it_was_linked() -> None:
    told = {"name": "theirs", "min_disk": 1, "min_ram": 2, "visibility": "private", "hidden": True}
    same = {"min_disk": 1, "min_ram": 2, "visibility": "private", "hidden": True}
    for name in ("theirs", "demo"):         # also when all were renamed
        assert judged("bytes", told, name=name, **same) == ("available", [])
    assert judged("bytes", told | {"name": "the\x07irs"}, name="theirs")[0] == "available"
    assert judged("bytes", told, name="x", min_disk=3, min_ram=4, visibility="public") == (
        "drifted",
        [
            ("name", "theirs", "x"),
            ("visibility", "private", "public"),
            ("min_disk", "1", "3"),
            ("min_ram", "2", "4"),
        ],
    )
    assert judged("bytes", None, name="x", min_disk=3) == ("available", [])     # nobody wrote it down


@pytest.mark.parametrize("flag", ["hidden", "deprecated"])
def test_flags(flag: str) -> None:
    """Not where a Cloud has no such thing, or nobody said anything."""
    assert judged("bytes", {flag: True}, **{flag: False}) == ("drifted", [(flag, "true", "false")])
    assert judged("bytes", {flag: False}, **{flag: True}) == ("drifted", [(flag, "false", "true")])
    for told, its in ((True, True), (True, None), (False, False), (None, False), (None, None)):
        assert judged("bytes", {flag: told}, **{flag: its}) == ("available", [])


def test_notes() -> None:
    """Properties and tags that it had; others are added by whoever likes."""
    told = {"tags": ["a", "b"], "properties": {"os_distro": "debian", "os_version": "12", "x": "y" * 300}}
    known = {"os_distro": "debian", "os_version": "12", "x": "y" * 255, "more": "z"}
    assert judged("bytes", told, tags=("b", "a", "c"), properties=known) == ("available", [])
    assert judged("bytes", told, tags=("b",), properties={**known, "os_distro": "fedora", "x": "z"}) == (
        "drifted",
        [
            ("tags", "a", None),
            ("properties", "os_distro=debian", "os_distro=fedora"),
            ("properties", f"x={'y' * 300}", "x=z"),
        ],
    )
    assert judged("bytes", told, tags=("a", "b"), properties={"os_distro": "debian", "x": "y" * 255}) == (
        "drifted", [("properties", "os_version=12", None)]
    )
    many = {f"p{number}": "" for number in range(64)}       # more is not told of one
    assert judged("bytes", told, tags=tuple(map(str, range(128))), properties=many) == ("available", [])


def test_pending() -> None:
    assert judged("bytes", state="pending", digests={"sha512": B}) == ("pending", [])


def test_what_may_have_come_in_its_place() -> None:
    """Not what bore its name before it was linked."""
    link = models.Link(verified_at=LINKED)
    found = [{"created_at": each} for each in (LINKED - 10**9, LINKED - 1000, LINKED + 1000, None)]
    assert judging.successors(link, found) == found[1:]
