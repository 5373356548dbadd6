# SPDX-License-Identifier: Apache-2.0
"""An OpenStack with a Keystone of its own: one region of it."""

import ssl
from typing import ClassVar

import marshmallow as ma
from marshmallow import fields, validate

from ciming import configs, egress, exceptions

FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso")
LONGEST_BUNDLE = 64 * 1024      # characters


def _outside(url: str) -> None:
    try:
        egress.check_url(url)
    except exceptions.CimingError as error:
        raise ma.ValidationError(error.detail) from None


def _printable(text: str) -> None:
    if not text.isprintable():
        raise ma.ValidationError("Printable characters only, please.")


def _certificates(text: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):
        raise ma.ValidationError("These are no certificates in PEM, with nothing else.") from None


def _different(formats: list[str]) -> None:
    if len(set(formats)) != len(formats):
        raise ma.ValidationError("Name each format once.")


class OpenStack(configs.Config):
    tuning: ClassVar[frozenset[str]] = frozenset(("formats",))

    auth_url = fields.String(required=True, validate=[validate.Length(1, 1024), _outside])
    region = fields.String(required=True, validate=[validate.Length(1, 255), _printable])
    interface = fields.String(validate=validate.OneOf(("public", "internal", "admin")))
    formats = fields.List(
        fields.String(validate=validate.OneOf(FORMATS)),
        validate=[validate.Length(1, len(FORMATS)), _different],
    )
    cacert = fields.String(validate=[validate.Length(1, LONGEST_BUNDLE), _certificates])
