# SPDX-License-Identifier: Apache-2.0
"""Signature version 4, verified with the secret key.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import datetime
import email.utils
import functools
import hashlib
import hmac
import re
import urllib.parse
from typing import NamedTuple

import botocore.utils

from tests.sandbox.aws import errors, wire
from tests.sandbox.aws.state import Caller, Credential, State

ALGORITHM = "AWS4-HMAC-SHA256"
SCOPE = re.compile(r"(?P<key>\w+)/(?P<day>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9]+)/aws4_request")
HEADER = re.compile(
    rf"{ALGORITHM} Credential=(?P<scope>[^,\s]+),\s*SignedHeaders=(?P<signed>[a-z0-9;-]+),"
    r"\s*Signature=(?P<signature>[0-9a-f]{64})"
)
UNSIGNED = "UNSIGNED-PAYLOAD"
SKEW = datetime.timedelta(minutes=5)
S3_SKEW = datetime.timedelta(minutes=15)
LONGEST = 604800
"""Seconds that a presigned URL may be valid."""


class Signed(NamedTuple):
    """Who calls what, where."""

    caller: Caller
    service: str
    region: str


class _Claim(NamedTuple):
    """What a request says of its own signature."""

    scope: re.Match[str]
    signed: list[str]
    signature: str
    time: datetime.datetime
    expires: int | None
    """Seconds, of a presigned URL."""
    token: str | None


def service_of(request: wire.Request) -> str:
    """Return the service that a request without a signature seems to be meant for."""
    if "x-amz-target" in request.headers:
        return "kms"
    if request.path.startswith("/snapshots"):
        return "ebs"
    if request.method == "POST" and request.path == "/":
        return "sts" if f"Version={wire.VERSIONS['sts']}".encode() in request.body else "ec2"
    return "s3"


def verify(state: State, request: wire.Request) -> Signed:
    """Return who signed; Refused with the code that the service has for what is wrong."""
    claim = _claim(request)
    service = claim.scope["service"]
    if service not in wire.SERVICES:
        raise errors.Dropped
    credential = state.credentials.get(claim.scope["key"])
    if credential is None:
        raise errors.refusal(
            service, "unknown key", "The access key ID that you provided does not exist in our records."
        )
    _verify_time(service, claim)
    _verify_signature(service, claim, credential, request)
    _verify_token(service, claim, credential)
    state.callers.add(credential.access_key)
    return Signed(credential.caller, service, claim.scope["region"])


def _claim(request: wire.Request) -> _Claim:
    guess = service_of(request)
    query = dict(request.arguments)
    presigned = "X-Amz-Signature" in query
    if not presigned and "authorization" not in request.headers:
        raise errors.refusal(guess, "unsigned", "Request is missing Authentication Token")
    malformed = errors.refusal(guess, "malformed", "The authorization does not conform to AWS standards.")
    if presigned:
        names = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires")
        if not set(names) <= query.keys() or query.get("X-Amz-Algorithm") != ALGORITHM:
            raise malformed
        scope_text, signed, signature, stamp, expires = (query[name] for name in names)
        if not expires.isdigit() or not 0 < int(expires) <= LONGEST:
            raise errors.Refused("AuthorizationQueryParametersError", "X-Amz-Expires must be at most 604800")
        token = query.get("X-Amz-Security-Token")
    else:
        found = HEADER.fullmatch(request.headers["authorization"])
        if not found:
            raise malformed
        scope_text, signed, signature = found["scope"], found["signed"], found["signature"]
        stamp, expires = request.headers.get("x-amz-date", ""), ""
        token = request.headers.get("x-amz-security-token")
    scope = SCOPE.fullmatch(scope_text)
    time = _time(stamp, request.headers.get("date"))
    if not scope or not time or time.strftime("%Y%m%d") != scope["day"]:
        raise malformed
    names_signed = signed.split(";")
    present = {"host"} | {
        name
        for name in request.headers
        if name.startswith("x-amz-") and not (presigned and name == "x-amz-date")
    }
    if not present <= set(names_signed):
        missing = ", ".join(sorted(present - set(names_signed)))
        raise errors.refusal(
            guess, "denied" if guess == "s3" else "malformed", f"Headers must be signed: {missing}"
        )
    return _Claim(scope, names_signed, signature, time, int(expires) if presigned else None, token)


def _time(stamp: str, date: str | None) -> datetime.datetime | None:
    try:
        if stamp:
            return datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        return email.utils.parsedate_to_datetime(date) if date else None
    except ValueError:
        return None


def _verify_time(service: str, claim: _Claim) -> None:
    clock = datetime.datetime.now(datetime.UTC)
    skew = S3_SKEW if service == "s3" else SKEW
    if claim.expires is not None:
        if clock > claim.time + datetime.timedelta(seconds=claim.expires):
            raise errors.refusal(service, "denied" if service == "s3" else "skewed", "Request has expired")
        if claim.time > clock + skew:
            raise errors.refusal(
                service, "denied" if service == "s3" else "skewed", "Request is not valid yet"
            )
    elif abs(clock - claim.time) > skew:
        raise errors.refusal(
            service,
            "skewed",
            f"Signature expired or not valid yet: {claim.time:%Y%m%dT%H%M%SZ} is too far from now",
        )


def _verify_token(service: str, claim: _Claim, credential: Credential) -> None:
    if credential.token is None and claim.token is None:
        return
    if credential.token is not None and claim.token is None:
        raise errors.refusal(service, "no token", "The security token included in the request is invalid.")
    if claim.token != credential.token:
        raise errors.refusal(service, "bad token", "The security token included in the request is invalid.")
    if credential.ends is not None and datetime.datetime.now(datetime.UTC).timestamp() > credential.ends:
        raise errors.refusal(
            service, "expired token", "The security token included in the request is expired"
        )


def _verify_signature(service: str, claim: _Claim, credential: Credential, request: wire.Request) -> None:
    given = request.headers.get("x-amz-content-sha256")
    if claim.expires is not None:
        hashes = [given or UNSIGNED]
    elif given is not None:
        hashes = [given]
    elif service == "s3":
        raise errors.Refused(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
        )
    else:
        hashes = [request.digest.hex()]
        if service == "ebs" and request.method == "PUT":
            hashes.append(UNSIGNED)  # the block's data need not be signed: their checksum is
    if not any(
        hmac.compare_digest(_signature(claim, credential, request, one), claim.signature) for one in hashes
    ):
        raise errors.refusal(
            service,
            "bad signature",
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
        )
    if given is not None and re.fullmatch("[0-9a-f]{64}", given) and given != request.digest.hex():
        raise errors.Refused(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )


def _signature(claim: _Claim, credential: Credential, request: wire.Request, payload: str) -> str:
    scope = claim.scope
    path = request.path
    if scope["service"] != "s3":
        path = urllib.parse.quote(botocore.utils.normalize_url_path(path), safe="/~")
    pairs = sorted(
        (urllib.parse.quote(name, safe="-_.~"), urllib.parse.quote(value, safe="-_.~"))
        for name, value in request.arguments if name != "X-Amz-Signature"
    )  # fmt: skip
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in claim.signed)
    canonical = "\n".join(
        (
            request.method,
            path,
            "&".join(f"{name}={value}" for name, value in pairs),
            headers,
            ";".join(claim.signed),
            payload,
        )
    )
    place = "/".join((scope["day"], scope["region"], scope["service"], "aws4_request"))
    text = "\n".join(
        (
            ALGORITHM,
            claim.time.strftime("%Y%m%dT%H%M%SZ"),
            place,
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    return hmac.new(_key(credential.secret_key, place), text.encode(), hashlib.sha256).hexdigest()


@functools.lru_cache(256)
def _key(secret: str, place: str) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in place.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
