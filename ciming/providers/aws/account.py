# SPDX-License-Identifier: Apache-2.0
"""One region of an AWS account: calls by boto3, and what their errors mean.

Keys are always given: what boto3 would find in the environment, in files or from a metadata service is not
looked for. Calls are made once: the Target's attempts are the only retries.

Codes: https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html,
https://docs.aws.amazon.com/ebs/latest/APIReference/CommonErrors.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import copy
import functools
import http.client
import io
import os
import socket
import threading
import time
import weakref
from collections.abc import Mapping
from typing import IO, Any

import boto3.session
import botocore.config
import botocore.configprovider
import botocore.session
from botocore import awsrequest, parsers, xform_name
from botocore import exceptions as boto_exceptions
from urllib3 import exceptions as urllib3_exceptions

from ciming import answers, connections, disk_image, egress, exceptions
from ciming.providers import pace

CONNECTIONS = 64        # of each service: as many as blocks may be on their way
SLOWEST = 4096          # bytes a second, at which what one call brings is still waited for
MOST_LINES = 100        # of a header
EXPIRY_MARGIN = 300     # seconds before its end in which a role's session is not used any more
THROTTLED = frozenset(
    (
        *("RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "SlowDown"),
        *("Throttling", "ThrottlingException", "TooManyRequestsException", "EC2ThrottledException"),
        "ConcurrentLimitExceededException",     # of requests, not of what there is
    )
)
_STUMBLED = frozenset(
    (
        *("InternalError", "InternalFailure", "InternalServerException", "Unavailable"),
        *("ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException"),
        *("KMSInternalException", "IncompleteBody", "PriorRequestNotComplete"),
        *("ConcurrentTagAccess", "OperationAborted"),       # somebody does the same at the same time
        *("BadDigest", "XAmzContentSHA256Mismatch"),        # damaged on the way
    )
)
_LOGIN = frozenset(
    (
        *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "InvalidToken"),
        *("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"),
        *("IncompleteSignatureException", "ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        *("MissingAuthenticationToken", "MissingAuthenticationTokenException", "RequestTimeTooSkewed"),
    )
)
_UNKNOWN = ("AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException")       # in this region
_FORBIDDEN = frozenset(
    ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure", "OptInRequired")
)
_QUOTA = frozenset(
    (
        *("AMIQuotaExceeded", "ResourceCountLimitExceeded", "ResourceLimitExceeded"),
        *("LimitExceededException", "PendingSnapshotLimitExceeded", "TooManyBuckets"),
        "SnapshotLimitExceeded",
    )
)
MAKING = frozenset(
    (
        *("StartSnapshot", "RegisterImage", "CopyImage", "ImportSnapshot"),
        *("CreateMultipartUpload", "CompleteMultipartUpload"),
    )
)
_EBS_QUOTA = "ServiceQuotaExceededException"    # of pending snapshots, too: those come to their ends


class Refusal(exceptions.ProviderError):
    """AWS said no, by this name of its own; `reason` is what EBS says of it besides."""

    def __init__(
        self, detail: str, *, name: str, reason: str, code: str, cloud_request_id: str | None
    ) -> None:
        super().__init__(detail, code=code, cloud_request_id=cloud_request_id)
        self.name = name
        self.reason = reason


class _Bounded:
    """botocore's HTTP session, but no answer is trusted to end: each has a longest, in bytes and in time.

    :param seconds: for all of a call, but for the bytes of an image
    """

    def __init__(self, session: Any, clock: connections.Clock, seconds: float) -> None:
        self._session = session
        self._clock = clock
        self._seconds = seconds

    def send(self, request: Any) -> Any:
        """:raises BotoCoreError: there is no answer, or too much of one"""
        is_block, request.stream_output = request.stream_output, True       # or it would read all there is
        size = int(request.headers.get("Content-Length") or 0) + (disk_image.BLOCK if is_block else 0)
        late = functools.partial(_late, request.url)
        with self._clock.within(self._seconds + size / SLOWEST, boto_exceptions.HTTPClientError, late):
            answer = self._session.send(request)
            most = disk_image.BLOCK if is_block and answer.status_code < 300 else connections.LONGEST
            try:
                body = connections.whole(answer.raw.stream(connections.BLOCK), most)
            except (urllib3_exceptions.HTTPError, OSError) as error:
                answer.raw.close()
                raise boto_exceptions.HTTPClientError(error=error) from None
        answer._content, answer.raw = body, io.BytesIO(body)
        return answer

    def close(self) -> None:
        self._session.close()


def _late(url: str, _said: str) -> Exception:
    error: Exception = boto_exceptions.ReadTimeoutError(endpoint_url=url)
    return error


class _Continuing:
    """Connections of botocore's, but what comes with a 100 Continue is not trusted to end either."""

    def _consume_headers(self, lines: IO[bytes]) -> None:
        for _ in range(MOST_LINES):
            if lines.readline(connections.BLOCK) in (b"\r\n", b"\n", b""):
                return
        raise http.client.HTTPException(f"more than {MOST_LINES} lines before an answer")


class Account:
    """Calls one region with one credential, or with the role that it is for.

    :param place: `region`; `cloud` (its name), `project` (whose Job it is), `timeout` (seconds); where it is
        not AWS's own: `endpoint_url`
    :param credential: what `configs.aws.Credential` gives
    """

    def __init__(self, place: Mapping[str, Any], credential: Mapping[str, str]) -> None:
        self.region = str(place["region"])
        self.name = str(place.get("cloud") or self.region)
        self.external_id = f"ciming-{place.get('project')}"
        self._url: str | None = place.get("endpoint_url")
        self._timeout = float(place.get("timeout") or 60)
        self._given = dict(credential)
        self._role: str | None = self._given.pop("role_arn", None)
        if not (self._given.get("access_key_id") and self._given.get("secret_access_key")):
            raise exceptions.ProviderError(
                f"The credential of Cloud {self.name} has no keys.", code="credential.invalid"
            )
        self._secrets = list(self._given.values())
        self._session: Mapping[str, Any] = {}       # of the role
        self._clients: dict[str, Any] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.RLock()
        self.unanswered = float("-inf")
        """When a call that makes something last had no answer: it may be made later. Monotonic seconds."""

    def call(
        self,
        service: str,
        action: str,
        *,
        absent: tuple[str, ...] = (),
        body: str | None = None,
        **parameters: Any,
    ) -> Mapping[str, Any] | None:
        """One call of a service, by its own name of it.

        :param absent: names of errors that mean that there is no such thing: the answer is None
        :param body: what of the answer is to be read to its end
        :raises ProviderError: a Refusal where AWS gave an answer
        """
        try:
            client = self._client(service)
            method = getattr(client, boto3_name(action))
            found: Mapping[str, Any] = method(**parameters)
            if body is not None:
                found = {**found, body: found[body].read()}
        except boto_exceptions.ClientError as error:
            answer = error.response
            if answer.get("Error", {}).get("Code") in absent and not _is_of_the_key(answer):
                return None
            raise self._refusal(service, action, answer) from None
        except boto_exceptions.BotoCoreError as error:
            raise self._failure(service, action, error) from None
        except parsers.ResponseParserError:
            raise self._unreadable(service, action) from None
        if action in MAKING:
            self.unanswered = float("-inf")
        return found

    def ask(self, service: str, action: str, **parameters: Any) -> Mapping[str, Any]:
        """The same, of something that is there."""
        found = self.call(service, action, **parameters)
        assert found is not None
        return found

    def in_region(self, region: str) -> "Account":
        """The same account in another region; it hangs up when this one does."""
        other = copy.copy(self)
        other.region, other._clients = region, {}
        return other

    def hang_up(self) -> None:
        """End all calls that run, from another thread."""
        connections.end(self._sockets)

    # Clients

    def _client(self, service: str) -> Any:
        with self._lock:
            if self._role and self._over():
                self._clients.clear()
                self._session = self._assumed(self._role)
                self._secrets += [self._session["SecretAccessKey"], self._session["SessionToken"]]
            if service not in self._clients:
                self._clients[service] = self._made(service, self._keys())
            return self._clients[service]

    def _over(self) -> bool:
        ends = self._session.get("Expiration")
        return ends is None or ends.timestamp() - time.time() < EXPIRY_MARGIN

    def _keys(self) -> dict[str, str]:
        if not self._session:
            return {f"aws_{name}": value for name, value in self._given.items()}
        return {
            "aws_access_key_id": self._session["AccessKeyId"],
            "aws_secret_access_key": self._session["SecretAccessKey"],
            "aws_session_token": self._session["SessionToken"],
        }

    def _assumed(self, role: str) -> Mapping[str, Any]:
        """A session of the role; its external id is no wish of whoever named it, but their project's.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
        """
        sts = self._made("sts", {f"aws_{name}": value for name, value in self._given.items()})
        try:
            found: Mapping[str, Any] = sts.assume_role(
                RoleArn=role, RoleSessionName="ciming", ExternalId=self.external_id
            )["Credentials"]
        except boto_exceptions.ClientError as error:
            refusal = self._refusal("sts", "AssumeRole", error.response)
            if refusal.code != "cloud.forbidden":
                raise refusal from None
            raise exceptions.ProviderError(
                f"{refusal.detail} The role's trust policy has to let these keys assume it, with the "
                f"external id {self.external_id}.",
                code="cloud.role_refused",
                cloud_request_id=refusal.cloud_request_id,
            ) from None
        except boto_exceptions.BotoCoreError as error:
            raise self._failure("sts", "AssumeRole", error) from None
        except parsers.ResponseParserError:
            raise self._unreadable("sts", "AssumeRole") from None
        return found

    def _made(self, service: str, keys: Mapping[str, str]) -> Any:
        """A client that takes nothing from this process' surroundings, and goes nowhere that is forbidden."""
        config = botocore.config.Config(
            retries={"total_max_attempts": 1},
            connect_timeout=self._timeout,      # which is that to send, too; see connections.noting()
            read_timeout=self._timeout,
            max_pool_connections=CONNECTIONS,
            proxies={},     # none that looks names up itself
            ignore_configured_endpoint_urls=True,
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path"} if self._url else {},
            tcp_keepalive=True,
        )
        with _LOCK:     # a session is not for several threads; its clients are
            made = _session().client(
                service, region_name=self.region, endpoint_url=self._url, config=config, **keys
            )
        egress.check_url(made.meta.endpoint_url)
        clock = connections.Clock()
        mixins = [_Continuing, connections.Checked, connections.noting(self._sockets), clock.mixin]
        session = made._endpoint.http_session       # there is no public way
        session._manager.pool_classes_by_scheme = {
            "http": connections.pool(awsrequest.AWSHTTPConnectionPool, *mixins),
            "https": connections.pool(awsrequest.AWSHTTPSConnectionPool, *mixins),
        }
        made._endpoint.http_session = _Bounded(session, clock, self._timeout)
        return made

    # Errors

    def words(self, text: object) -> str:
        """AWS's own words, without what we told it in confidence."""
        return answers.words(text, self._secrets)

    def _refusal(
        self, service: str, action: str, answer: Mapping[str, Any]
    ) -> exceptions.ProviderError:
        error, meta = answer.get("Error", {}), answer.get("ResponseMetadata", {})
        name, status = str(error.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
        request_id = self.words(meta.get("RequestId") or "") or None
        said = self.words(f"{name}: {error.get('Message', '')}")
        what = f"{self.name}: {service}:{action} was refused. {said}"
        if name in THROTTLED:
            return pace.Throttled(what, cloud_request_id=request_id)
        if name in _STUMBLED or status >= 500:
            return exceptions.TransientProviderError(what, cloud_request_id=request_id)
        if name == _EBS_QUOTA:
            return exceptions.TransientProviderError(
                what, code="cloud.quota_exceeded", cloud_request_id=request_id
            )
        if name in _LOGIN or _is_of_the_key(answer):
            if name in _UNKNOWN:
                what += f" If the keys are good: is {self.region} enabled for their account, and of their "
                what += "partition?"
            return exceptions.CredentialRefused(what, cloud_request_id=request_id)
        code = "cloud.refused"
        if name in _FORBIDDEN or (service == "s3" and status == 403):
            code = "cloud.forbidden"
        elif name in _QUOTA:
            code = "cloud.quota_exceeded"
        reason = str(answer.get("Reason", ""))
        return Refusal(what, name=name, reason=reason, code=code, cloud_request_id=request_id)

    def _unreadable(self, service: str, action: str) -> exceptions.ProviderError:
        """Of an answer that is none of AWS's. The error's own text has all of it, and maybe what we told."""
        self._note_unanswered(action)
        return exceptions.TransientProviderError(
            f"{self.name}: {service}:{action} was answered by something that is not AWS. Is the Cloud's "
            "endpoint_url right, and is there a proxy on the way?",
            code="cloud.bad_answer",
        )

    def without_end(self, action: str) -> exceptions.ProviderError:
        return exceptions.TransientProviderError(
            f"{self.name}: what {action} lists does not end.", code="cloud.bad_answer"
        )

    def _failure(self, service: str, action: str, error: Exception) -> exceptions.ProviderError:
        """Of a call that had no answer, or none that can be read."""
        cause = getattr(error, "kwargs", {}).get("error")
        if isinstance(cause, egress.Refused):
            return exceptions.ProviderError(
                f"CIMinG may not ask {self.name}: {cause.detail}", code=cause.code
            )
        said = self.words(f"{type(error).__name__}: {error}")
        what = f"{self.name}: {service}:{action} had no answer. {said}"
        if isinstance(error, boto_exceptions.SSLError) and "certificate" in said.lower():
            return exceptions.ProviderError(what, code="cloud.tls_failed")
        if isinstance(error, boto_exceptions.ParamValidationError):
            return exceptions.ProviderError(
                f"{self.name}: {service}:{action} can not be asked so. {said}", code="cloud.refused"
            )
        self._note_unanswered(action)
        if isinstance(error, boto_exceptions.EndpointConnectionError):
            what += f" Is there a region {self.region}?"
        return exceptions.TransientProviderError(what, code="cloud.unreachable")

    def _note_unanswered(self, action: str) -> None:
        if action in MAKING:
            self.unanswered = time.monotonic()


def _is_of_the_key(answer: Mapping[str, Any]) -> bool:
    """EC2's AuthFailure: with 401 the key is none; else what is asked for is another account's."""
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return bool(answer.get("Error", {}).get("Code") == "AuthFailure" and status == 401)


_LOCK = threading.Lock()


@functools.cache
def _session() -> boto3.session.Session:
    """One for all: to load what it knows of EC2 takes half a second."""
    known = botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
    plain = {name: (None, None, default, kind) for name, (_, _, default, kind) in known.items()}
    for name in ("config_file", "credentials_file"):
        plain[name] = (None, None, os.devnull, None)
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=plain))


@functools.cache
def boto3_name(action: str) -> str:
    """`DescribeImages` is `describe_images` there."""
    return str(xform_name(action))
