# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from ciming import zone_plans

REQUEST = {"from": "zone-a", "to": ["zone-b"], "replace": False, "prune": False}
ENTRY: dict[str, Any] = {
    "symbol": "+", "zone": "zone-b", "image": "id-1", "there": None, "name": "Größe", "size": 1, "why": None
}


def test_a_plan_knows_when_it_was_edited() -> None:
    plan = zone_plans.made(REQUEST, [ENTRY])
    assert zone_plans.is_whole(plan)
    assert plan["summary"] == {"+": 1, "=": 0, "~": 0, "*": 0, "-": 0, "!": 0}
    assert plan["digest"] == zone_plans.made(dict(reversed(REQUEST.items())), [ENTRY])["digest"]
    for changed in (
        {**plan, "request": {**REQUEST, "prune": True}},
        {**plan, "entries": []},
        {**plan, "entries": [{**ENTRY, "size": 2}]},
        {**plan, "digest": "0"},
        {name: value for name, value in plan.items() if name != "digest"},
    ):
        assert not zone_plans.is_whole(changed)


def test_what_has_changed_is_told() -> None:
    before = zone_plans.made(REQUEST, [ENTRY])
    assert zone_plans.changes(before, zone_plans.made(REQUEST, [])) == "'Größe' in zone-b: + to nothing"
    other = zone_plans.made(REQUEST, [{**ENTRY, "size": 2}])
    assert zone_plans.changes(before, other) == "'Größe' in zone-b: other size"
    many = zone_plans.made(REQUEST, [{**ENTRY, "image": f"id-{n}"} for n in range(2, 9)])
    assert zone_plans.changes(before, many).endswith("and 3 more")
    assert zone_plans.changes({"entries": [{"x": 1}]}, {"entries": []})     # what somebody made up


@pytest.mark.parametrize(
    ("symbol", "said", "acts"),
    [
        ("+", {}, True), ("~", {}, True), ("=", {}, False), ("!", {}, False),
        ("*", {}, False), ("*", {"replace": True}, True),
        ("-", {}, False), ("-", {"prune": True}, True),
    ],
)
def test_what_is_done(symbol: str, said: dict[str, bool], acts: bool) -> None:
    assert zone_plans.acts({**ENTRY, "symbol": symbol}, REQUEST | said) is acts
    if symbol == "-":
        assert not zone_plans.acts({**ENTRY, "symbol": symbol, "why": "It is protected."}, REQUEST | said)
