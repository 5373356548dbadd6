# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS: who may call at all."""

import datetime
import http.client
import urllib.parse
from collections.abc import Callable
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from tests.sandbox import aws
from tests.unit.sandbox.calls import refused

SERVICES: dict[str, Callable[[Any], Any]] = {
    "ec2": lambda ec2: ec2.describe_images(Owners=["self"]),
    "ebs": lambda ebs: ebs.start_snapshot(VolumeSize=1),
    "sts": lambda sts: sts.get_caller_identity(),
}


def session(standin: aws.StandIn, account: str = "broker", **more: Any) -> dict[str, str]:
    role = {"RoleArn": standin.role.arn, "ExternalId": standin.role.external_id, "RoleSessionName": "test"}
    found: dict[str, str] = standin.client("sts", account).assume_role(**(role | more))["Credentials"]
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_right_key(standin: aws.StandIn, service: str) -> None:
    SERVICES[service](standin.client(service))


@pytest.mark.parametrize(
    ("service", "code"),
    [("ec2", "AuthFailure"), ("ebs", "UnrecognizedClientException"), ("sts", "InvalidClientTokenId")],
)
def test_unknown_key(standin: aws.StandIn, service: str, code: str) -> None:
    with refused(code):
        SERVICES[service](standin.client(service, aws_access_key_id="AKIAAAAAAAAAAAAAAAAA"))


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("ec2", "SignatureDoesNotMatch"),
        ("ebs", "InvalidSignatureException"),
        ("sts", "SignatureDoesNotMatch"),
    ],
)
def test_wrong_secret(standin: aws.StandIn, service: str, code: str) -> None:
    with refused(code):
        SERVICES[service](standin.client(service, aws_secret_access_key="wrong"))


@pytest.mark.parametrize(
    ("service", "code"),
    [("ec2", "RequestExpired"), ("ebs", "InvalidSignatureException"), ("sts", "SignatureDoesNotMatch")],
)
@pytest.mark.parametrize("minutes", [-6, 6])
def test_clock_that_is_wrong(
    standin: aws.StandIn, monkeypatch: pytest.MonkeyPatch, service: str, code: str, minutes: int
) -> None:
    clock = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: clock)
    with refused(code):
        SERVICES[service](standin.client(service))


def sent(standin: aws.StandIn, **changes: Any) -> tuple[int, str]:
    """What is answered to a signed GetCallerIdentity that was changed afterwards."""
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    keys = standin.accounts["owner"]
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | changes.pop("signed", {})
    request = botocore.awsrequest.AWSRequest("POST", standin.url + "/", headers, body)
    credentials = botocore.credentials.Credentials(keys["access_key"], keys["secret_key"])
    botocore.auth.SigV4Auth(credentials, "sts", changes.pop("region", "us-east-1")).add_auth(request)
    final = {name: value for name, value in (dict(request.headers) | changes).items() if value is not None}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(standin.url).netloc)
    connection.request("POST", "/", final.pop("body", body), final)
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({}, 200, "GetCallerIdentityResult"),
        ({"Authorization": None}, 403, "MissingAuthenticationToken"),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=x"}, 400, "IncompleteSignature"),
        ({"X-Amz-Date": "20200101T000000Z"}, 400, "IncompleteSignature"),   # not the scope's day
        ({"x-amz-unsigned": "1"}, 400, "IncompleteSignature"),
        ({"signed": {"x-amz-signed": "1"}, "x-amz-signed": "2"}, 403, "SignatureDoesNotMatch"),
        ({"body": b"Version=2011-06-15&Action=GetCallerIdentity"}, 403, "SignatureDoesNotMatch"),
    ],
)  # fmt: skip
def test_request_that_was_changed(
    standin: aws.StandIn, changes: dict[str, Any], status: int, code: str
) -> None:
    answer = sent(standin, **changes)
    assert answer[0] == status
    assert code in answer[1]


def test_region_that_is_none(standin: aws.StandIn) -> None:
    """Its host would not be found: there is no answer."""
    with pytest.raises(botocore.exceptions.HTTPClientError):
        standin.client("ec2", region="mars-north-1").describe_images()


@pytest.mark.parametrize(
    ("service", "code"), [("ec2", "AuthFailure"), ("ebs", "UnrecognizedClientException")]
)
def test_region_that_is_not_enabled(standin: aws.StandIn, service: str, code: str) -> None:
    with refused(code):
        SERVICES[service](standin.client(service, region="ap-east-1"))


def test_callers(standin: aws.StandIn) -> None:
    found = {name: standin.client("sts", name).get_caller_identity() for name in standin.accounts}
    assert {name: one["Account"] for name, one in found.items()} == {
        name: one["account_id"] for name, one in standin.accounts.items()
    }
    assert found["owner"]["Account"] == found["reader"]["Account"] != found["stranger"]["Account"]
    assert found["reader"]["Arn"].endswith(":user/reader")


def test_role(standin: aws.StandIn) -> None:
    keys = session(standin)
    who = standin.client("sts", session=keys).get_caller_identity()
    assert who["Account"] == standin.accounts["owner"]["account_id"]
    assert ":assumed-role/" in who["Arn"]
    standin.client("ebs", session=keys).start_snapshot(VolumeSize=1)
    with refused("UnauthorizedOperation"):
        standin.client("ec2", "broker").describe_images()


@pytest.mark.parametrize(
    ("account", "changes"),
    [
        ("broker", {"ExternalId": "another"}),
        ("stranger", {}),
        ("broker", {"RoleArn": "arn:aws:iam::111122223333:role/none"}),
    ],
)
def test_role_that_may_not_be_assumed(standin: aws.StandIn, account: str, changes: dict[str, str]) -> None:
    with refused("AccessDenied", "sts:AssumeRole"):
        session(standin, account, **changes)


def test_role_without_external_id(standin: aws.StandIn) -> None:
    with refused("AccessDenied"):
        standin.client("sts", "broker").assume_role(RoleArn=standin.role.arn, RoleSessionName="test")


@pytest.mark.parametrize(
    "changes", [{"DurationSeconds": 899}, {"DurationSeconds": 43201}, {"RoleSessionName": "a b"}]
)
def test_role_asked_for_wrongly(standin: aws.StandIn, changes: dict[str, Any]) -> None:
    with refused("ValidationError"):
        standin.client("sts", "broker", checks=False).assume_role(
            **({"RoleArn": standin.role.arn, "RoleSessionName": "test"} | changes)
        )


CODES = [
    ("ec2", "AuthFailure", "AuthFailure", "RequestExpired"),
    ("ebs", "UnrecognizedClientException", "UnrecognizedClientException", "ExpiredTokenException"),
    ("sts", "InvalidClientTokenId", "InvalidClientTokenId", "ExpiredToken"),
]


@pytest.mark.parametrize(("service", "missing", "wrong", "expired"), CODES)
def test_session_token(standin: aws.StandIn, service: str, missing: str, wrong: str, expired: str) -> None:
    keys = session(standin)
    SERVICES[service](standin.client(service, session=keys))
    with refused(missing):
        half = standin.client(
            service, aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"]
        )
        SERVICES[service](half)
    with refused(wrong):
        SERVICES[service](standin.client(service, session=keys | {"SessionToken": "x" * 100}))
    standin.expire_sessions()
    with refused(expired):
        SERVICES[service](standin.client(service, session=keys))
