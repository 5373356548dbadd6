# SPDX-License-Identifier: Apache-2.0
"""What one zone has against what another has: pure functions, from two lists to the entries of a plan."""

import fnmatch
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ciming.providers import base
from ciming.zone_plans import CANNOT, CONTENT, CREATE, METADATA, ONLY_THERE, SAME, Entry

COMING = ("queued", "saving", "uploading", "importing")     # statuses of an image that is not whole yet
LONGEST = 500       # characters of a reason
ALL = ("*",)        # globs of names


@dataclass(frozen=True)
class Rules:
    """What of a request decides about entries.

    :param everything: images of all projects may be read and made
    :param seen_of: the only project of which the source surely shows all images; None: it does of all
    :param properties: globs of the names that are carried
    :param largest: bytes that an image may have
    """

    filters: Mapping[str, Any] = field(default_factory=dict)
    map_project: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False
    seen_of: str | None = None
    properties: Sequence[str] = ALL
    largest: int = 2**63 - 1

    def owner_there(self, image: base.Surveyed) -> str:
        """Whose the image is to be in the target."""
        return self.map_project.get(image.owner, image.owner)

    def carried(self, image: base.Surveyed) -> dict[str, Any]:
        """What an image in the target is to have."""
        return {**carried(image, self.properties), "owner": self.owner_there(image)}


def carried(image: base.Surveyed, properties: Sequence[str]) -> dict[str, Any]:
    """What of an image a sync carries, and compares."""
    found = {
        "name": image.name,
        "owner": image.owner,
        "visibility": image.visibility,
        "tags": sorted(image.tags),
        "protected": image.protected,
        "hidden": image.hidden,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "properties": {
            name: value
            for name, value in sorted(image.properties.items())
            if any(fnmatch.fnmatchcase(name, each) for each in properties)
        },
    }
    return found if image.members is None else {**found, "members": sorted(image.members)}


def compare(
    source: Iterable[base.Surveyed],
    target: Iterable[base.Surveyed],
    zone: str,
    rules: Rules,
    proven: Collection[tuple[str, str]] = (),
    used: Collection[str] = (),
) -> Iterator[Entry]:
    """The entries of one target, the smallest images first.

    :param proven: refs of images here and there that were proven to be one disk
    :param used: refs of images there that are not for who asks to take away
    """
    sources = sorted(source, key=lambda image: (image.size or 0, image.image_ref))
    pairs = _Pairs(sources, target, rules, proven)
    for image in sources:
        if wants(rules.filters, image):
            yield _entry(image, pairs, zone, rules)
    # Who has nothing of what is asked for may be named by mistake: what they have there is left alone. So is
    # what was theirs before they were given images of others.
    named = rules.filters.get("owner")
    owners = {
        image.owner
        for image in sources
        if rules.owner_there(image) == image.owner and (named is None or image.owner in named)
    }
    for there in pairs.left:
        if wants(_mapped(rules), there):
            yield _only_there(there, zone, owners, rules, used)


def wants(filters: Mapping[str, Any], image: base.Surveyed) -> bool:
    """Does an image meet all filters?"""
    return all(_MEETS[name](wanted, image) for name, wanted in filters.items())


_MEETS: Mapping[str, Callable[[Any, base.Surveyed], bool]] = {
    "owner": lambda wanted, image: image.owner in wanted,
    "visibility": lambda wanted, image: image.visibility in wanted,
    "name": lambda wanted, image: any(fnmatch.fnmatchcase(image.name, glob) for glob in wanted),
    "tag": lambda wanted, image: set(wanted) <= set(image.tags),
    "property": lambda wanted, image: wanted.items() <= image.properties.items(),
    "status": lambda wanted, image: image.status in wanted,
    "newer_than": lambda wanted, image: image.created_at >= wanted,
    "size_below": lambda wanted, image: (image.size or 0) < wanted,
}


def _mapped(rules: Rules) -> dict[str, Any]:
    """The filters for what is in the target."""
    if "owner" not in rules.filters:
        return dict(rules.filters)
    owners = [rules.map_project.get(owner, owner) for owner in rules.filters["owner"]]
    return {**rules.filters, "owner": owners}


class _Pairs:
    """Which image there is which of the source: the surest signs first, and each image once.

    Both have one owner: ids, names and marks are for anyone to choose, and nobody's image is to become
    another's.
    """

    def __init__(
        self,
        sources: Sequence[base.Surveyed],
        target: Iterable[base.Surveyed],
        rules: Rules,
        proven: Collection[tuple[str, str]],
    ) -> None:
        self._left = {
            image.image_ref: image
            for image in sorted(target, key=lambda each: (each.hidden, each.created_at, each.image_ref))
        }
        self._of: dict[str, base.Surveyed] = {}
        self.ambiguous: set[str] = set()
        self._owner = rules.owner_there
        self._proven = frozenset(proven)
        proven_there: dict[str, list[str]] = defaultdict(list)
        for image_ref, there in sorted(self._proven):
            proven_there[image_ref].append(there)
        # That of the same id before what was made of it besides: it is the one that others know.
        same_id = [one for one in sources if (one.image_ref, one.image_ref) in self._proven]
        self._pair(same_id, lambda one: [one.image_ref], lambda one: [one.image_ref])
        self._pair(sources, lambda one: proven_there[one.image_ref], lambda one: [one.image_ref])
        self._pair(sources, lambda one: [(one.image_ref, one.digest)], _marked)
        self._pair(sources, lambda one: [(one.name, one.digest)], lambda one: [(one.name, one.digest)])
        self._pair(sources, lambda one: [one.image_ref], lambda one: [one.image_ref])
        self._pair_by_name(sources)

    @property
    def left(self) -> list[base.Surveyed]:
        """What only the target has."""
        return sorted(self._left.values(), key=lambda image: (image.size or 0, image.image_ref))

    def of(self, image: base.Surveyed) -> base.Surveyed | None:
        return self._of.get(image.image_ref)

    def same(self, image: base.Surveyed, there: base.Surveyed) -> base.Proof | None:
        """How it is known that both are one disk."""
        if image.size == there.size and _alike(image, there):
            return "bytes"
        return "guest" if (image.image_ref, there.image_ref) in self._proven else None

    def _pair(
        self,
        sources: Sequence[base.Surveyed],
        here: Callable[[base.Surveyed], Iterable[Hashable]],
        there: Callable[[base.Surveyed], Iterable[Hashable]],
    ) -> None:
        known: dict[Hashable, list[base.Surveyed]] = defaultdict(list)
        for image in self._left.values():
            for key in there(image):
                known[key].append(image)
        for image in sources:
            if image.image_ref in self._of:
                continue
            for each in (each for key in here(image) for each in known.get(key, ())):
                if each.image_ref in self._left and each.owner == self._owner(image):
                    self._of[image.image_ref] = self._left.pop(each.image_ref)
                    break

    def _pair_by_name(self, sources: Sequence[base.Surveyed]) -> None:
        """The last resort: one of this name and owner here, and one there; several could be any.

        What is hidden in either zone has been replaced, perhaps by one of its name.
        """
        here: dict[Hashable, list[base.Surveyed]] = defaultdict(list)
        there: dict[Hashable, list[base.Surveyed]] = defaultdict(list)
        for image in sources:
            if image.image_ref not in self._of and not image.hidden:
                here[self._owner(image), image.name].append(image)
        for image in self._left.values():
            if not image.hidden:
                there[image.owner, image.name].append(image)
        for key, images in here.items():
            others = there.get(key, [])
            if len(images) == len(others) == 1:
                self._of[images[0].image_ref] = self._left.pop(others[0].image_ref)
            elif others:
                self.ambiguous.update(image.image_ref for image in images)


def _alike(image: base.Surveyed, there: base.Surveyed) -> bool | None:
    """Have both files one hash? None: it can not be told, as their zones know no hash in common."""
    if image.digest is None or there.digest is None:
        return False
    if image.digest.partition(":")[0] == there.digest.partition(":")[0]:
        return image.digest == there.digest
    return image.md5 == there.md5 if image.md5 and there.md5 else None


def _marked(image: base.Surveyed) -> list[Hashable]:
    return [(image.image_ref, image.digest), (image.mark, image.digest)]


def _entry(image: base.Surveyed, pairs: _Pairs, zone: str, rules: Rules) -> Entry:
    there = pairs.of(image)
    carry = rules.carried(image)
    proof = pairs.same(image, there) if there else None
    differs: list[str] = []
    if there is not None and proof:
        differs = different(carry, carried(there, rules.properties))
        symbol = METADATA if differs else SAME
    else:
        symbol = CREATE if there is None else CONTENT
    why = _why_not(symbol, image, there, differs, rules)
    if image.image_ref in pairs.ambiguous:
        why = (
            f"Several images of its owner are called so in {zone} or here, and none of them is known to be "
            "this one: rename them, or delete those that are not needed."
        )
    return {
        "symbol": CANNOT if why else symbol,
        "zone": zone,
        "image": image.image_ref,
        "there": there.image_ref if there else None,
        "name": image.name,
        "owner": image.owner,
        "size": image.size or 0,
        "digest": image.digest,
        "differs": differs,
        "why": why[:LONGEST] if why else None,
        "proof": proof,
        "carry": None if why or symbol == SAME else carry,
        "state": None if why or symbol == SAME or there is None else _state(there, rules.properties),
    }


def different(wanted: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what is not as wanted; those of properties with `properties.` before them."""
    found = [name for name, value in wanted.items() if name != "properties" and now.get(name, value) != value]
    properties, theirs = wanted["properties"], now["properties"]
    names = [name for name in {**properties, **theirs} if properties.get(name) != theirs.get(name)]
    return [*found, *(f"properties.{name}" for name in sorted(names))]


def unread(zone: str, reason: str) -> Entry:
    """Of a target that can not be read: nothing can be done there, whatever it has."""
    return {
        "symbol": CANNOT,
        "zone": zone,
        "image": None,
        "there": None,
        "name": "",
        "owner": "",
        "size": 0,
        "digest": None,
        "differs": [],
        "why": f"{zone} could not be read: {reason}"[:LONGEST],
        "proof": None,
        "carry": None,
        "state": None,
    }


def _why_not(
    symbol: str, image: base.Surveyed, there: base.Surveyed | None, differs: Collection[str], rules: Rules
) -> str | None:
    """Why nothing can be done, where something would have to be."""
    if there is not None and there.status in COMING:
        return f"What is there ({there.image_ref}) is {there.status}: wait for it, or delete it."
    if symbol in (CREATE, CONTENT):
        if image.unreadable:
            return image.unreadable
        if not rules.owner_there(image):    # it would be of whoever syncs, and so no copy to the next sync
            return "It has no owner here, and would get one there: give it one, or leave it out."
        if not 0 < (image.size or 0) <= rules.largest:
            return f"It has {image.size or 0} bytes; it may have 1 to {rules.largest}."
    if symbol == CONTENT and there is not None and image.size == there.size and _alike(image, there) is None:
        return (
            f"Whether what is there ({there.image_ref}) is the same can not be told: the zones hash in "
            "different ways. Delete it, or link it by hand."
        )
    publishes = symbol != SAME and (symbol != METADATA or "visibility" in differs)
    if publishes and image.visibility == "public" and not rules.everything:
        return "It is public here, and only an operator may make it public there."
    return None


def _only_there(
    there: base.Surveyed, zone: str, owners: Collection[str], rules: Rules, used: Collection[str]
) -> Entry:
    why = None
    if there.status in COMING:
        why = f"It is only there, and {there.status}: it is left alone."
    elif there.image_ref in used:
        why = "It is only there, and another project has it linked, or brings it now: it is left alone."
    elif there.protected:
        why = "It is only there, and protected: it is left alone."
    elif there.hidden:
        why = "It is only there, and hidden, as what was replaced is: it is left alone."
    elif there.owner not in owners:
        why = (
            "It is only there, and its owner has no image here that is asked for and stays theirs: "
            "it is left alone."
        )
    elif rules.seen_of not in (None, there.owner):
        why = "It is only there, and you may not see all that its owner has here: it is left alone."
    return {
        "symbol": ONLY_THERE,
        "zone": zone,
        "image": None,
        "there": there.image_ref,
        "name": there.name,
        "owner": there.owner,
        "size": there.size or 0,
        "digest": there.digest,
        "differs": [],
        "why": why,
        "proof": None,
        "carry": None,
        "state": None if why else _state(there, ALL),
    }


def _state(there: base.Surveyed, properties: Sequence[str]) -> str:
    """Another one when what would be changed or deleted there is not as it was: hex."""
    said = {**carried(there, properties), "digest": there.digest, "size": there.size, "status": there.status}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

