# SPDX-License-Identifier: Apache-2.0
"""AWS: one region, as one account sees it."""

import re
from typing import Any, ClassVar

import marshmallow as ma
from marshmallow import fields, validate

from ciming import configs
from ciming.configs import kinds

ROUTES = ("ebs-direct", "s3-import")
VOLUME_TYPES = ("gp3", "gp2", "standard")       # that need no more than a size
LARGEST_VOLUME = 64 * 1024      # GiB
MOST_TAGS = 40      # of the 50 that AWS allows: some are ours
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
ROLE = r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}"


def _pattern(pattern: str, error: str) -> validate.Regexp:
    return validate.Regexp(rf"({pattern})\Z", flags=re.ASCII, error=error)


def _printable(longest: int, *, required: bool = False) -> fields.String:
    one = _pattern("[!-~]+", "Printable characters of ASCII only, please.")
    return fields.String(required=required, validate=[validate.Length(1, longest), one])


def _tag(text: str) -> None:
    """Of EBS direct, which takes less than EC2: https://docs.aws.amazon.com/ebs/latest/APIReference/API_Tag.html"""
    key, is_pair, value = text.partition("=")
    if not (is_pair and 1 <= len(key) <= 127 and len(value) <= 255):
        raise ma.ValidationError("Write it as KEY=VALUE, of at most 127 and 255 characters.")
    if key == "Name":
        raise ma.ValidationError("The tag Name is each image's own name.")
    if key.lower().startswith(("aws:", "ciming:")):
        raise ma.ValidationError("Tags that begin with aws: or ciming: are reserved.")


def _keys_differ(tags: list[str]) -> None:
    kinds.different([text.partition("=")[0] for text in tags])


class Credential(ma.Schema):
    """Access keys; where there is a role, they are used for nothing but to assume it.

    Taken as they stand in `~/.aws/credentials`, and as the AWS CLI prints them.
    """

    ALIASES: ClassVar[dict[str, str]] = {
        "AccessKeyId": "access_key_id",
        "SecretAccessKey": "secret_access_key",
        "SessionToken": "session_token",
    }
    IGNORED: ClassVar[tuple[str, ...]] = ("Version", "Expiration")

    access_key_id = _printable(128, required=True)
    secret_access_key = _printable(1024, required=True)
    session_token = _printable(8192)
    role_arn = fields.String(validate=_pattern(ROLE, "Not an ARN of a role."))

    @ma.pre_load
    def plain(self, data: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in data.items():
            if name in self.IGNORED:
                continue
            plain = self.ALIASES.get(name, str(name).removeprefix("aws_"))
            if plain in found:
                raise ma.ValidationError("nothing may be said twice")
            found[plain] = value
        return found


class AWS(configs.Config):
    tuning: ClassVar[frozenset[str]] = frozenset(
        (
            *("route", "bucket", "import_role", "kms_key", "volume_type", "imds_v2", "share_with", "tags"),
            "verify_up_to",
        )
    )
    on_the_way: ClassVar[frozenset[str]] = frozenset(("route", "bucket"))
    credential: ClassVar[type[ma.Schema]] = Credential

    region = fields.String(
        required=True,
        validate=_pattern(r"[a-z]{2,4}(-[a-z]{2,20}){1,3}-\d{1,2}", "Not a name like eu-west-1."),
    )
    endpoint_url = fields.String(validate=[validate.Length(1, 1024), kinds.outside])
    route = fields.String(validate=validate.OneOf(ROUTES))
    bucket = fields.String(validate=_pattern(BUCKET, "Not a name of a bucket."))
    import_role = fields.String(validate=_pattern(r"[\w+=,.@-]{1,64}", "Not a name of a role."))
    kms_key = fields.String(validate=_pattern(r"[\w:/-]{1,2048}", "Not an id, ARN or alias of a key."))
    volume_type = fields.String(validate=validate.OneOf(VOLUME_TYPES))
    imds_v2 = fields.Boolean()
    share_with = fields.List(
        fields.String(validate=_pattern(r"\d{12}", "Not a number of an account: 12 digits.")),
        validate=[validate.Length(1, 100), kinds.different],
    )
    tags = fields.List(
        fields.String(validate=[kinds.printable, kinds.sendable, _tag]),
        validate=[validate.Length(1, MOST_TAGS), _keys_differ],
    )
    verify_up_to = fields.Integer(validate=validate.Range(0, LARGEST_VOLUME))       # GiB

    @ma.validates_schema
    def complete(self, data: dict[str, Any], **_kwargs: Any) -> None:
        by_import = data.get("route") == "s3-import"
        if by_import and "bucket" not in data:
            raise ma.ValidationError("The route s3-import needs a bucket.", "bucket")
        for name in ("bucket", "import_role"):
            if name in data and not by_import:
                raise ma.ValidationError("This goes with the route s3-import only.", name)
