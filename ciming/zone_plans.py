# SPDX-License-Identifier: Apache-2.0
"""What a plan to bring zones in line is: a document that people keep, and that tells when it was edited."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

CREATE, SAME, METADATA, CONTENT, ONLY_THERE, CANNOT = "+", "=", "~", "*", "-", "!"
SYMBOLS = {
    CREATE: "create",
    SAME: "same",
    METADATA: "metadata differs",
    CONTENT: "content differs",
    ONLY_THERE: "only in the target",
    CANNOT: "can not be brought",
}
"""What each means, in the order in which a summary has them."""
KEY = ("zone", "image", "there")
"""By which an entry is known in another plan."""
SHOWN = 5       # entries that an error names

Entry = dict[str, Any]
"""One image of the source in one target, or one that only the target has.

`symbol`; `zone`, the target; `image` and `there`, its ids in source and target, or None; `name`, `owner`,
`size` (bytes) and `digest` (`algorithm:hex`) of what the source has, or of what only the target has;
`differs`, names of metadata; `why`, or None; `proof` of a pair; `carry`, what the image there is to have;
`state`, SHA-256 (hex) of what it is like now, where it may be changed or deleted.
"""


def made(request: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, Any]:
    """The plan of a request: `request, entries, summary, digest`."""
    listed = list(entries)
    counts = Counter(entry["symbol"] for entry in listed)
    plan = {
        "request": dict(request),
        "entries": listed,
        "summary": {symbol: counts[symbol] for symbol in SYMBOLS},
    }
    return {**plan, "digest": digest(plan)}


def digest(plan: Mapping[str, Any]) -> str:
    """SHA-256 over what a plan says, but for its own digest: hex."""
    said = {name: value for name, value in plan.items() if name != "digest"}
    # Why a zone could not be read is said in other words each time.
    said["entries"] = [{**each, "why": None} if is_unread(each) else each for each in plan["entries"]]
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()     # JSON may have half a pair


def is_unread(entry: Mapping[str, Any]) -> bool:
    """Is it of a whole target, which could not be read?"""
    return (entry.get("symbol"), entry.get("image"), entry.get("there")) == (CANNOT, None, None)


def is_whole(plan: Mapping[str, Any]) -> bool:
    """Is a plan as it was made?"""
    return plan.get("digest") == digest(plan)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is otherwise now, in a line for a person."""
    old, new = (
        {tuple(str(entry.get(name)) for name in KEY): entry for entry in plan["entries"]}
        for plan in (before, after)
    )
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    told = [_told(old.get(key), new.get(key)) for key in keys[:SHOWN]]
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{', '.join(told)}{more}"


def _told(before: Entry | None, after: Entry | None) -> str:
    entry = after or before or {}
    was, now = (each.get("symbol") if each else "nothing" for each in (before, after))
    how = f"{was} to {now}" if was != now else f"other {', '.join(_others(before or {}, after or {}))}"
    return f"{str(entry.get('name'))[:64]!r} in {str(entry.get('zone'))[:64]}: {how}"


def _others(before: Entry, after: Entry) -> list[str]:
    return [name for name in after if before.get(name) != after[name]]


def acts(entry: Entry, request: Mapping[str, Any]) -> bool:
    """Is anything done for an entry?"""
    symbol = entry["symbol"]
    return (
        symbol in (CREATE, METADATA)
        or (symbol == CONTENT and bool(request["replace"]))
        or (symbol == ONLY_THERE and bool(request["prune"]) and not entry["why"])
    )
