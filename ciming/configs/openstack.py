# SPDX-License-Identifier: Apache-2.0
"""An OpenStack with a Keystone of its own: one region of it."""

import itertools
import ssl
from typing import Any, ClassVar

import marshmallow as ma
from marshmallow import fields, validate

from ciming import configs
from ciming.configs import kinds

FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso")
LONGEST_BUNDLE = 64 * 1024      # characters


def _certificates(text: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):
        raise ma.ValidationError("These are no certificates in PEM, with nothing else.") from None


class Credential(ma.Schema):
    """Flat, or an entry of clouds.yaml. What names a file, a plugin or another place is not taken."""

    NEEDED: ClassVar[dict[str, tuple[tuple[str, ...], ...]]] = {
        "v3applicationcredential": (
            ("application_credential_secret",),
            ("application_credential_id", "application_credential_name"),
        ),
        "v3password": (("password",), ("username", "user_id"), ("project_name", "project_id")),
    }
    """By the kind of login: of each line it must have one."""
    ALIASES: ClassVar[dict[str, str]] = {"password": "v3password"}
    OF_BOTH: ClassVar[tuple[str, ...]] = (
        *("auth_type", "auth_url", "username", "user_id", "user_domain_id", "user_domain_name"),
    )
    OTHERS: ClassVar[dict[str, tuple[str, ...]]] = {
        "v3applicationcredential": (),
        "v3password": ("project_domain_id", "project_domain_name"),
    }
    IGNORED: ClassVar[tuple[str, ...]] = ("region_name", "interface", "identity_api_version")
    """Of clouds.yaml: the Cloud's config says so."""

    auth_type = fields.String(required=True, validate=validate.OneOf(tuple(NEEDED)))
    auth_url = kinds.text()
    application_credential_id = kinds.text()
    application_credential_name = kinds.text()
    application_credential_secret = kinds.text()
    username = kinds.text()
    user_id = kinds.text()
    user_domain_id = kinds.text()
    user_domain_name = kinds.text()
    password = kinds.text()
    project_id = kinds.text()
    project_name = kinds.text()
    project_domain_id = kinds.text()
    project_domain_name = kinds.text()

    @ma.pre_load
    def flat(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        found = {name: value for name, value in data.items() if name not in self.IGNORED}
        auth = found.pop("auth", {})
        if not isinstance(auth, dict) or found.keys() & auth.keys():
            raise ma.ValidationError("auth: it is to be an object, and nothing may be said twice")
        found.update(auth)
        kind = found.get("auth_type", "password")      # as in clouds.yaml
        return {**found, "auth_type": self.ALIASES.get(kind, kind) if isinstance(kind, str) else kind}

    @ma.validates_schema
    def enough(self, data: dict[str, Any], **_kwargs: Any) -> None:
        kind = data["auth_type"]
        needed = self.NEEDED[kind]
        for names in needed:
            if not data.keys() & set(names):
                raise ma.ValidationError(f"{kind} needs {' or '.join(names)}")
        known = {*self.OF_BOTH, *self.OTHERS[kind], *itertools.chain(*needed)}
        more = data.keys() - known
        if more:
            raise ma.ValidationError(f"{', '.join(sorted(more))} does not go with {kind}")


class OpenStack(configs.Config):
    tuning: ClassVar[frozenset[str]] = frozenset(("formats",))
    credential: ClassVar[type[ma.Schema]] = Credential

    auth_url = fields.String(required=True, validate=[validate.Length(1, 1024), kinds.outside])
    region = fields.String(required=True, validate=[validate.Length(1, 255), kinds.printable])
    interface = fields.String(validate=validate.OneOf(("public", "internal", "admin")))
    formats = fields.List(
        fields.String(validate=validate.OneOf(FORMATS)),
        validate=[validate.Length(1, len(FORMATS)), kinds.different],
    )
    cacert = fields.String(validate=[validate.Length(1, LONGEST_BUNDLE), _certificates])
