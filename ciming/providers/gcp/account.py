# SPDX-License-Identifier: Apache-2.0
"""One project of Google Cloud: calls by Google's own clients, and what their errors mean.

The key is always given: what Google's libraries would find in the environment, in files or from a metadata
service is not looked for. Calls are made once: the Target's attempts are the only retries. All of them, those
for tokens too, go over sessions that connect to nothing that is not allowed.

Errors: https://cloud.google.com/compute/docs/api/errors, https://cloud.google.com/storage/docs/json_api/v1/status-codes,
https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-resource-quota (`reason`)
"""

import email.utils
import re
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import requests
from cryptography.exceptions import UnsupportedAlgorithm
from google.api_core import exceptions as google_exceptions
from google.auth import exceptions as auth_exceptions
from google.auth import identity_pool
from google.auth.transport import requests as auth_requests
from google.cloud import compute_v1, storage
from google.cloud.compute_v1.services.global_operations.transports.rest import GlobalOperationsRestTransport
from google.cloud.compute_v1.services.images.transports.rest import ImagesRestTransport
from google.oauth2 import service_account
from google.protobuf import json_format
from oslo_config import cfg
from oslo_log import log
from urllib3 import exceptions as urllib3_exceptions

from ciming import answers, connections, egress, exceptions
from ciming.providers import pace

LOG = log.getLogger(__name__)

Result = TypeVar("Result")

STORAGE, COMPUTE = "https://storage.googleapis.com", "https://compute.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)    # what the key may do is for IAM to say
TOKEN_URLS = ("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token")
EXCHANGE_URLS = ("https://sts.googleapis.com/v1/token",)
IMPERSONATION = "https://iamcredentials.googleapis.com/"
REQUEST_IDS = ("x-guploader-uploadid", "x-cloud-trace-context", "x-request-id")
CONNECTIONS = 16    # as many as pieces may be on their way
NO_KEY = (      # the last two: a key of a kind that signs nothing, or that cryptography does not know
    *(ValueError, KeyError, TypeError, auth_exceptions.GoogleAuthError),
    *(AttributeError, UnsupportedAlgorithm),
)
CONFIDED = ("assertion", "subject_token")       # of a form that asks for a token: it grants one
THROTTLED = frozenset(("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"))
BUSY = frozenset(("resourceNotReady", "resourceInUseByAnotherResource"))    # it is being made, or deleted
QUOTA = frozenset(("quotaExceeded", "QUOTA_EXCEEDED", "resourceCountLimitExceeded", "limitExceeded"))
STUMBLED = frozenset((408, 429, 500, 502, 503, 504))
UNANSWERED = (      # urllib3's own errors come where an object is read
    *(google_exceptions.RetryError, requests.RequestException, urllib3_exceptions.HTTPError),
    *(OSError, ValueError),
)


class Refusal(exceptions.ProviderError):
    """Google said no, with this status of HTTP."""

    def __init__(self, detail: str, *, status: int, code: str, cloud_request_id: str | None) -> None:
        super().__init__(detail, code=code, cloud_request_id=cloud_request_id)
        self.http_status = status


class Account:
    """Calls Google with one credential, for one project.

    :param place: `project_id`; `cloud` (its name), `timeout` (seconds); where it is not Google's own:
        `endpoint_url`
    :param credential: what `configs.gcp.Credential` gives
    """

    def __init__(self, place: Mapping[str, Any], credential: Mapping[str, Any]) -> None:
        self.project = str(place["project_id"])
        self.name = str(place.get("cloud") or self.project)
        self.timeout = float(place.get("timeout") or 60)
        self._secrets = [text for text in _texts(credential) if len(text) > 8]
        self._secrets += [line for text in self._secrets for line in text.splitlines() if len(line) > 16]
        self._told: deque[str] = deque(maxlen=3 * CONNECTIONS)      # what else, to who gives tokens
        self._date: str | None = None       # what Google's clock said last
        self._token_status = 0              # of the last answer to who asked for a token
        self._sessions = [self._checked(requests.Session())]
        self._ask_for_token = self._within(auth_requests.Request(self._sessions[0]))
        self._credentials = self._logged_in(credential)
        url: str | None = place.get("endpoint_url")
        self.storage = storage.Client(
            project=self.project,
            credentials=self._credentials,
            client_options={"api_endpoint": url or STORAGE},
            _http=self._authorized(auth_requests.AuthorizedSession(self._credentials)),
        )
        # There is no public way to keep the environment from sending it elsewhere.
        self.storage._connection.API_BASE_MTLS_URL = url or STORAGE
        self.storage._bucket_metadata_cache = None      # nor from asking by itself, for traces
        self.images = self._client(compute_v1.ImagesClient, ImagesRestTransport, url or COMPUTE)
        self.operations = self._client(
            compute_v1.GlobalOperationsClient, GlobalOperationsRestTransport, url or COMPUTE
        )

    def _authorized(self, session: Any) -> Any:
        """A session that logs in by itself, and as the others do."""
        session._auth_request = self._ask_for_token     # there is no public way
        session._max_refresh_attempts = 1
        self._sessions.append(self._checked(session))
        return session

    def _checked(self, session: Any) -> Any:
        """Nothing of this process' environment: no proxy that looks names up itself, no .netrc."""
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, connections.Adapter(outside=True, size=CONNECTIONS))
        session.hooks["response"].append(self._note)
        return session

    def _note(self, answer: requests.Response, *_args: object, **_kwargs: object) -> None:
        self._date = answer.headers.get("date")

    def _client(self, kind: Any, transport: Any, url: str) -> Any:
        scheme, _, host = url.partition("://")
        made = transport(host=host, url_scheme=scheme, credentials=self._credentials)
        self._authorized(made._session)
        return kind(transport=made)

    def _logged_in(self, credential: Mapping[str, Any]) -> Any:
        """What Google's libraries log in with. Where they do that is Google's, or the operator's to say."""
        kind = str(credential.get("type"))
        try:
            if kind == "service_account":
                self._pin(credential["token_uri"], TOKEN_URLS, "token_uri")
                made = service_account.Credentials.from_service_account_info(credential, scopes=SCOPES)
                made.sign_bytes(b"")    # which not every key can
                return made
            if kind == "external_account":
                self._pin(credential["token_url"], EXCHANGE_URLS, "token_url")
                impersonated = credential.get("service_account_impersonation_url")
                if impersonated and not str(impersonated).startswith(IMPERSONATION):
                    self._pin(impersonated, (), "service_account_impersonation_url")
                egress.check_url(credential["credential_source"]["url"])
                return identity_pool.Credentials.from_info(credential, scopes=SCOPES)
        except NO_KEY:
            pass        # what it says may have the key in it
        raise exceptions.ProviderError(
            f"The credential of Cloud {self.name} is no key of a service account, nor of a workload identity "
            "pool that asks a URL.",
            code="credential.invalid",
        )

    def _pin(self, url: str, known: tuple[str, ...], name: str) -> None:
        if url not in (*known, *cfg.CONF.egress.token_urls):
            raise exceptions.ProviderError(
                f"The credential of Cloud {self.name} has a {name} that is neither Google's nor one that the "
                "operator allows.",
                code="credential.invalid",
            )
        egress.check_url(url)

    def _within(self, request: Any) -> Any:
        """A request for a token, with a limit of time; what it confides and how it was answered is noted."""

        def ask(url: str, method: str = "GET", **more: Any) -> Any:
            self._token_status = 0
            self._told.extend(_confided(more.get("body"), more.get("headers") or {}))
            answer = request(url, method, **{**more, "timeout": self.timeout})
            self._token_status = int(answer.status)
            return answer

        return ask

    @property
    def email(self) -> str:
        return self.words(getattr(self._credentials, "service_account_email", None) or "an external account")

    def log_in(self) -> None:
        """Ask for a token.

        :raises ProviderError: there is none
        """
        self.call("token", lambda: self._credentials.refresh(self._ask_for_token))

    def skew(self) -> float | None:
        """Seconds between Google's clock and ours, as the last answer had it."""
        try:
            return abs(email.utils.parsedate_to_datetime(str(self._date)).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None

    def call(
        self, what: str, call: Callable[[], Result], *, absent: Result | None = None, missing: int = 0
    ) -> Result:
        """One call, by Google's own name of it, such as `compute.images.insert`.

        :param missing: the status that means that there is no such thing: the answer is `absent`
        :raises ProviderError: a Refusal where Google gave an answer
        """
        try:
            return call()
        except google_exceptions.GoogleAPICallError as error:
            if missing and error.code == missing:
                return absent       # type: ignore[return-value]  # the caller's own
            raise self._refusal(what, error) from None
        except auth_exceptions.GoogleAuthError as error:
            raise self._not_logged_in(what, error) from None
        except UNANSWERED as error:
            raise self._failure(what, error) from None
        except (json_format.Error, AttributeError, LookupError, TypeError, RecursionError) as error:
            LOG.info("What %s answered to %s can not be read: %s", self.name, what, type(error).__name__)
            raise self.bad_answer(what) from None

    def bad_answer(self, what: str) -> exceptions.TransientProviderError:
        return exceptions.TransientProviderError(
            f"{self.name} answered {what} with something that is not Google's.", code="cloud.bad_answer"
        )

    def hang_up(self) -> None:
        """End all calls that run, from another thread."""
        for session in self._sessions:
            connections.hang_up(session)

    # Errors

    def words(self, text: object) -> str:
        """Google's own words, without what we told it in confidence."""
        token = getattr(self._credentials, "token", None) if hasattr(self, "_credentials") else None
        return answers.words(text, [*self._secrets, *self._told, *filter(None, [token])])

    def _refusal(self, what: str, error: google_exceptions.GoogleAPICallError) -> exceptions.ProviderError:
        status = int(error.code or 0)
        headers = getattr(error.response, "headers", None) or {}
        request_id = next((self.words(headers[name]) for name in REQUEST_IDS if headers.get(name)), None)
        said = [each for each in _errors(error) if isinstance(each, Mapping)]
        reasons = {str(each.get("reason")) for each in said}
        message = next((each["message"] for each in said if each.get("message")), error.message)
        detail = f"{self.name}: {what} was refused. {status}: {self.words(message)}"
        if status == 429 or (status == 403 and reasons & THROTTLED):
            return pace.Throttled(detail, cloud_request_id=request_id)
        if status in STUMBLED or status >= 500 or reasons & BUSY:
            return exceptions.TransientProviderError(detail, cloud_request_id=request_id)
        if status == 401:
            return exceptions.CredentialRefused(detail, cloud_request_id=request_id)
        code = "cloud.refused"
        if reasons & QUOTA:
            code = "cloud.quota_exceeded"
        elif status == 403:
            code = "cloud.forbidden"
        return Refusal(detail, status=status, code=code, cloud_request_id=request_id)

    def _not_logged_in(self, what: str, error: auth_exceptions.GoogleAuthError) -> exceptions.ProviderError:
        cause = error.args[0] if error.args else error
        if isinstance(error, auth_exceptions.TransportError):
            return self._failure(what, cause if isinstance(cause, Exception) else error)
        detail = f"{self.name}: Google gave no token for {what}. {self.words(cause)}"
        if error.retryable or self._token_status in STUMBLED:       # of which not every kind says it
            return exceptions.TransientProviderError(detail)
        return exceptions.CredentialRefused(detail)

    def _failure(self, what: str, error: Exception) -> exceptions.ProviderError:
        """Of a call that had no answer, or none that can be read."""
        cause: BaseException | None = error
        for _ in range(8):      # errors of urllib3 and requests are in one another
            if isinstance(cause, egress.Refused):
                return exceptions.ProviderError(
                    f"CIMinG may not ask {self.name}: {cause.detail}", code=cause.code
                )
            inner = [each for each in getattr(cause, "args", ()) if isinstance(each, BaseException)]
            cause = getattr(cause, "reason", None) or (inner[0] if inner else None)
            if not isinstance(cause, BaseException):
                break
        said = self.words(f"{type(error).__name__}: {error}")
        detail = f"{self.name}: {what} had no answer. {said}"
        if isinstance(error, requests.exceptions.SSLError) and "certificate" in said.lower():
            return exceptions.ProviderError(detail, code="cloud.tls_failed")
        return exceptions.TransientProviderError(detail, code="cloud.unreachable")


def _errors(error: google_exceptions.GoogleAPICallError) -> Sequence[Any]:
    """What Google lists; that an upload met, the client does not look at."""
    if error.errors or error.response is None:
        return list(error.errors)
    try:
        return list(error.response.json()["error"]["errors"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def _texts(value: Any) -> list[str]:
    """All secret texts in a credential: names of things are none, but what is behind a URL's host may be."""
    secret = ("private_key", "headers", "private_key_id")
    found: list[str] = []
    for name in secret:
        each = value.get(name) or (value.get("credential_source") or {}).get(name)
        found += each.values() if isinstance(each, Mapping) else [each] if each else []
    url = str((value.get("credential_source") or {}).get("url") or "")
    behind = re.split(r"//[^/?#]*", url, maxsplit=1)[-1]
    path, _, query = behind.partition("?")
    found += [behind, path, query, *dict(urllib.parse.parse_qsl(query)).values()]
    return [str(each) for each in found]


def _confided(body: Any, headers: Mapping[str, str]) -> list[str]:
    """What grants access, in a request for a token."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    form = dict(urllib.parse.parse_qsl(text))
    bearers = [each.rpartition(" ")[2] for name, each in headers.items() if name.lower() == "authorization"]
    return [*(form[name] for name in CONFIDED if name in form), *bearers]

