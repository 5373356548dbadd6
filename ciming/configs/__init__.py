# SPDX-License-Identifier: Apache-2.0
"""What each provider has to be told of a Cloud: a schema by its name, found by entry point.

API and engine both read them, so a schema is data about a kind of cloud and knows nothing of its SDK.
"""

from collections.abc import Iterable
from importlib import metadata
from typing import Any, ClassVar

import marshmallow as ma

GROUP = "ciming.configs"


class Config(ma.Schema):
    """The config of a Cloud; what it does not name is an error. `region`, where it has one, is shown."""

    tuning: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not say where the Cloud is: to change one leaves the credential as it is."""
    on_the_way: ClassVar[frozenset[str]] = frozenset()
    """Those of them that say where a Job keeps what it has not finished: not to be changed meanwhile."""
    credential: ClassVar[type[ma.Schema]]
    """What a secret with a credential for it has to say. Its messages quote nothing."""


def names() -> list[str]:
    """The providers that Clouds can be registered of."""
    return sorted(entry.name for entry in metadata.entry_points(group=GROUP))


def load(provider: str) -> Config | None:
    """The schema of a provider; None: there is none."""
    for entry in metadata.entry_points(group=GROUP, name=provider):
        schema: type[Config] = entry.load()
        return schema()
    return None


def moved(schema: Config, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Does a changed config say another place?"""
    return _differ(set(schema.fields) - schema.tuning, before, after)


def diverted(schema: Config, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Would Jobs under way not find any more what they have begun?"""
    return moved(schema, before, after) or _differ(schema.on_the_way, before, after)


def _differ(fields: Iterable[str], before: dict[str, Any], after: dict[str, Any]) -> bool:
    return any(before.get(field) != after.get(field) for field in fields)


def why(schema: ma.Schema, error: ma.ValidationError) -> str:
    """What is wrong with a secret, without a word out of it: also names of keys may be secrets."""
    messages = error.messages if isinstance(error.messages, dict) else {}
    known = {name: text for name, text in messages.items() if name in schema.fields or name == "_schema"}
    if len(known) < len(messages) or not known:
        return f"it may have no other keys than {', '.join(schema.fields)}"
    return " ".join(
        f"{'' if name == '_schema' else f'{name}: '}{' '.join(text) if isinstance(text, list) else 'wrong'}"
        for name, text in known.items()
    )
