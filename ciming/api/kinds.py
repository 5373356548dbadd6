# SPDX-License-Identifier: Apache-2.0
"""Kinds of values in requests and answers, and how they are checked."""

import contextlib
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from marshmallow import fields, validate

CHECKSUM = {"md5": 32, "sha256": 64, "sha512": 128}     # algorithm: hex digits
A_CHECKSUM = "|".join(f"{algorithm}:[0-9a-fA-F]{{{digits}}}" for algorithm, digits in CHECKSUM.items())
NO_NUL = r"^[^\u0000]*$"
MOST_PROPERTIES = 125       # Glance takes 128 by default, and three are ours

# What Glance calls its own attributes, and what CIMinG marks its images with.
RESERVED_PROPERTIES = {
    *("id", "name", "status", "owner", "size", "virtual_size", "visibility", "checksum", "tags"),
    *("protected", "min_disk", "min_ram", "file", "schema", "self", "locations", "direct_url"),
    *("container_format", "disk_format", "created_at", "updated_at"),
    *("os_hash_algo", "os_hash_value", "os_hidden", "stores"),
}
RESERVED_PREFIXES = ("os_glance_", "ciming_")


A_CLOUD_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,254}"       # so that it goes into any URL and command


def property_name(name: str) -> None:
    if name in RESERVED_PROPERTIES or name.startswith(RESERVED_PREFIXES):
        raise ma.ValidationError("This name is reserved.")


def checksum(value: str) -> None:
    if not re.fullmatch(A_CHECKSUM, value):
        raise ma.ValidationError("Write it as sha256:HEX, sha512:HEX or md5:HEX.")


def few(properties: dict[str, str]) -> None:
    if len(properties) > MOST_PROPERTIES:
        raise ma.ValidationError(f"At most {MOST_PROPERTIES} properties, please.")


class Text(fields.String):
    """A string that every database and cloud can hold."""

    def __init__(self, *, metadata: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(metadata={"pattern": NO_NUL, **(metadata or {})}, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, *args, **kwargs)
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise self.make_error("invalid_utf8")
        return text


def cloud_name(*, required: bool = False) -> Text:
    """Of a registered Cloud; ids come first where one is looked for, so it must not look like one."""
    return Text(
        required=required,
        validate=_cloud_name,
        metadata={
            "description": "Letters, digits, `.`, `_` and `-`; no UUID, and not `all`.",
            "pattern": f"^{A_CLOUD_NAME}$",
            "minLength": 1,
            "maxLength": 255,
            "example": "other",
        },
    )


def _cloud_name(name: str) -> None:
    if not re.fullmatch(A_CLOUD_NAME, name):
        raise ma.ValidationError("1 to 255 letters, digits, '.', '_' and '-', the first one no sign, please.")
    with contextlib.suppress(ValueError):
        uuid.UUID(name)
        raise ma.ValidationError("A name must not look like an id.")
    if name == "all":
        raise ma.ValidationError("This word means all Clouds.")


class Whole(fields.Integer):
    """An integer, and no other JSON that Python would take for one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)

    def _validated(self, value: Any) -> int:
        if isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class _YesOrNo(fields.Boolean):
    """true or false, and no other JSON that marshmallow would take for one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def yes_or_no(description: str) -> fields.Boolean:
    return _YesOrNo(load_default=False, metadata={"description": f"{description}."})


class Time(fields.Field[int]):
    """Milliseconds since the epoch in rows, ISO 8601 in UTC in answers."""

    def _serialize(self, value: int | None, *_args: Any, **_kwargs: Any) -> str | None:
        if value is None:
            return None
        at = datetime.fromtimestamp(value / 1000, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time(*, allow_none: bool = False) -> Time:
    return Time(
        metadata={"type": "string", "format": "date-time", "example": "2026-03-01T12:00:00.000Z"},
        allow_none=allow_none,
    )


def word(*words: str, allow_none: bool = False) -> fields.String:
    return fields.String(validate=validate.OneOf(words), allow_none=allow_none)


def count(*, allow_none: bool = False) -> fields.Integer:
    return fields.Integer(validate=validate.Range(0, 2**63 - 1), allow_none=allow_none)


class YesNo(fields.Field[bool]):
    """A boolean, and nothing that only looks like one."""

    def __init__(self, description: str) -> None:
        schema = {"type": "boolean", "enum": [True, False], "description": description}
        super().__init__(metadata=schema)

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ma.ValidationError("Either true or false, please.")
        return value


class CloudNames(fields.Field[Any]):
    """A list of Cloud names, or the word "all".

    :param fewest: names in the list
    """

    def __init__(self, fewest: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fewest = fewest

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> list[str] | str:
        if value == "all":
            return "all"
        if (
            not isinstance(value, list)
            or not self._fewest <= len(value) <= 100
            or not all(isinstance(name, str) and 0 < len(name) <= 255 for name in value)
        ):
            raise ma.ValidationError(f'Give a list of {self._fewest} to 100 Cloud names, or "all".')
        return list(dict.fromkeys(value))
