# SPDX-License-Identifier: Apache-2.0
"""Kinds of values that the schemas of several providers have."""

import marshmallow as ma
from marshmallow import fields, validate

from ciming import egress, exceptions


def outside(url: str) -> None:
    """A URL that the operator lets CIMinG go to."""
    try:
        egress.check_url(url)
    except exceptions.CimingError as error:
        raise ma.ValidationError(error.detail) from None


def printable(text: str) -> None:
    if not text.isprintable():
        raise ma.ValidationError("Printable characters only, please.")


def different(values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ma.ValidationError("Name each of them once.")


def sendable(text: str) -> None:
    """JSON can have half of a character, which no request can."""
    if "\0" in text or text != text.encode(errors="ignore").decode():
        raise ma.ValidationError("There is a character in it that can not be sent.")


def text(*, required: bool = False, longest: int = 1024) -> fields.String:
    """A part of a credential."""
    return fields.String(required=required, validate=[validate.Length(1, longest), sendable])
