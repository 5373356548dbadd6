# SPDX-License-Identifier: Apache-2.0
"""What may be said of a region of AWS, and what a credential for it may say."""

from typing import Any

import marshmallow as ma
import pytest
from oslo_config import cfg

from ciming import configs
from ciming.configs import aws

CONFIG = {"region": "eu-west-1"}
KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG"}
ROLE = "arn:aws:iam::123456789012:role/images"


@pytest.fixture(autouse=True)
def _options(conf: cfg.ConfigOpts) -> None:
    """With their defaults."""


def test_it_is_found_by_the_providers_name() -> None:
    assert isinstance(configs.load("aws"), aws.AWS)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"region": "us-gov-west-1"},
        {"region": "eusc-de-east-1"},
        {"route": "ebs-direct"},
        {"route": "s3-import", "bucket": "my.bucket-1", "import_role": "vmimport"},
        {"kms_key": "alias/images", "volume_type": "gp2", "imds_v2": True, "verify_up_to": 0},
        {"kms_key": "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"},
        {"share_with": ["123456789012"], "tags": ["team=images", "empty=", "k=" + "v" * 255]},
    ],
)
def test_a_config(more: dict[str, Any]) -> None:
    assert aws.AWS().load({**CONFIG, **more}) == {**CONFIG, **more}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"region": "Ireland"}, "region"),
        ({"region": "eu-west-1\n"}, "region"),
        ({"region": "eu-west-1.evil.example"}, "region"),
        ({"route": "by-post"}, "route"),
        ({"route": "s3-import"}, "bucket"),
        ({"bucket": "bucket"}, "bucket"),
        ({"import_role": "vmimport"}, "import_role"),
        ({"route": "s3-import", "bucket": "UPPER"}, "bucket"),
        ({"route": "s3-import", "bucket": "a/b"}, "bucket"),
        ({"kms_key": "a key"}, "kms_key"),
        ({"volume_type": "io2"}, "volume_type"),
        ({"share_with": ["12345"]}, "share_with"),
        ({"share_with": ["123456789012"] * 2}, "share_with"),
        ({"share_with": []}, "share_with"),
        ({"tags": ["nothing"]}, "tags"),
        ({"tags": ["aws:mine=x"]}, "tags"),
        ({"tags": ["CIMinG:target=x"]}, "tags"),
        ({"tags": ["a=1", "a=2"]}, "tags"),
        ({"tags": [f"{number}=" for number in range(aws.MOST_TAGS + 1)]}, "tags"),
        ({"tags": ["k=" + "v" * 256]}, "tags"),
        ({"tags": ["Name=golden"]}, "tags"),
        ({"verify_up_to": -1}, "verify_up_to"),
        ({"endpoint_url": "http://169.254.169.254/"}, "endpoint_url"),
        ({"endpoint_url": "file:///etc/passwd"}, "endpoint_url"),
        ({"profile": "default"}, "profile"),
    ],
    ids=str,
)
def test_a_wrong_config(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ma.ValidationError) as refused:
        aws.AWS().load({**CONFIG, **wrong})
    assert isinstance(refused.value.messages, dict)
    assert list(refused.value.messages) == [field]


def test_what_says_where_it_is_is_not_tuned() -> None:
    """A change of that is another Cloud: its credential is taken back."""
    assert set(aws.AWS().fields) - aws.AWS.tuning == {"region", "endpoint_url"}


@pytest.mark.parametrize(
    "said",
    [
        KEYS,
        {"aws_access_key_id": KEYS["access_key_id"], "aws_secret_access_key": KEYS["secret_access_key"]},
        {
            "Version": 1,
            "AccessKeyId": KEYS["access_key_id"],
            "SecretAccessKey": KEYS["secret_access_key"],
            "Expiration": "2026-01-01T00:00:00Z",
        },
    ],
)
def test_a_credential(said: dict[str, Any]) -> None:
    """Also as AWS's own tools write it."""
    assert aws.Credential().load(said) == KEYS
    session = {"session_token": "FwoGZXIvYXdzE", "role_arn": ROLE}
    assert aws.Credential().load({**said, **session}) == {**KEYS, **session}


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_key_id": "AKIA"},
        {**KEYS, "aws_access_key_id": "AKIA"},
        {**KEYS, "secret_access_key": "with a space"},
        {**KEYS, "secret_access_key": "a" * 1025},
        {**KEYS, "secret_access_key": ["a"]},
        {**KEYS, "session_token": ""},
        {**KEYS, "role_arn": "images"},
        {**KEYS, "role_arn": ROLE + "\n"},
        {**KEYS, "credential_process": "/bin/sh"},
        {**KEYS, "role_session_name": "x"},
        {},
    ],
    ids=str,
)
def test_a_wrong_credential(wrong: dict[str, Any]) -> None:
    """What is said of it has nothing of it."""
    with pytest.raises(ma.ValidationError) as refused:
        aws.Credential().load(wrong)
    assert KEYS["secret_access_key"] not in str(refused.value)
