# SPDX-License-Identifier: Apache-2.0
"""A project at a Glance: as whom CIMinG is there, and every call that it makes."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import openstack
import requests
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3
from openstack import exceptions as sdk_exceptions
from oslo_log import log

from ciming import answers, connections, egress, exceptions, lazy

LOG = log.getLogger(__name__)

# 410: of two uploads at once, Glance lets one lose so.
TRANSIENT = frozenset((408, 409, 410, 429, 500, 502, 503, 504))
CODES = {
    401: "cloud.auth_failed",
    403: "cloud.forbidden",
    404: "cloud.not_found",
    413: "cloud.quota_exceeded",
    415: "image.format_not_taken",
}
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
PLUGINS: Mapping[str, Callable[..., v3.Auth]] = {
    "v3applicationcredential": v3.ApplicationCredential,
    "v3password": v3.Password,
}


class Account:
    """Of a zone: its user, whose login was good when it was given. Else of another Keystone.

    :param place: what `provider.OpenStack` has
    :param credential: the same
    """

    def __init__(
        self, place: Mapping[str, Any], credential: ks_session.Session | Mapping[str, str]
    ) -> None:
        self._as_user = isinstance(credential, ks_session.Session)
        self.session = (
            credential if isinstance(credential, ks_session.Session) else _login(place, credential)
        )
        self._secrets = [] if isinstance(credential, ks_session.Session) else _secrets(credential)
        self.region = str(place["region"])
        self.name = str(place.get("cloud") or self.region)
        self._interface = str(place.get("interface", "public"))

    def project_id(self) -> str:
        found = self._asking("log in to", self.session.get_project_id)
        if not answers.is_text(found, 255):
            raise self.bad_answer("a login without a project")
        return str(found)

    def hang_up(self) -> None:
        connections.hang_up(self.session.session)

    @lazy.cached_property
    def _images(self) -> Any:
        """The SDK's image proxy; finding its endpoint logs in, so it is first used inside _asking."""
        if not self.session.get_endpoint(
            service_type="image", region_name=self.region, interface=self._interface
        ):
            raise exceptions.ProviderError(
                f"The catalog has no {self._interface} image endpoint in {self.name}.",
                code="cloud.no_endpoint",
            )
        return openstack.connection.Connection(
            session=self.session, region_name=self.region, image_interface=self._interface
        ).image

    def ask(
        self, method: str, url: str, *, needs: str, also: int | None = None, **kwargs: Any
    ) -> Any:
        """The JSON object that a call gives; None where its status is `also`.

        :param needs: what it must have: some proxies answer with a page of their own
        """
        answer = self.call(method, url, also, **kwargs)
        if answer.status_code == also:
            return None
        try:
            found = answer.json()
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or needs not in found:
            raise self.bad_answer(f"{method} {url}")
        return found

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """:raises TransientProviderError: an answer is none"""
        try:
            yield
        except UNREADABLE:
            raise self.bad_answer(what) from None

    def bad_answer(self, what: str) -> exceptions.TransientProviderError:
        return exceptions.TransientProviderError(
            f"{self.name} answered with something that is not Glance's, or not Keystone's: {what}.",
            code="cloud.bad_answer",
        )

    def words(self, text: object) -> str:
        """A cloud's own words, without what we told it in confidence."""
        access = getattr(self.session.auth, "auth_ref", None)
        token = getattr(access, "auth_token", None)
        return answers.words(text, [*self._secrets, *([token] if token else [])])

    def call(
        self, method: str, url: str, also: int | None = None, **kwargs: Any
    ) -> requests.Response:
        """One call, made once: the Target's attempts are the only retries.

        :param also: a status from 400 up that is an answer, not an error
        """
        answer: requests.Response = self._asking(
            f"{method} {url} in",
            lambda: self._images.request(
                url, method, connect_retries=0, status_code_retries=0, raise_exc=False, **kwargs
            ),
        )
        if answer.status_code < 300 or answer.status_code == also:
            return answer
        raise self._error(answer)

    def _asking(self, what: str, call: Any) -> Any:
        try:
            return call()
        except ks_exceptions.HttpError as error:        # Keystone's, while logging in
            raise self._login_error(error.http_status)(
                f"Keystone did not let CIMinG {what} {self.name}: {self.words(error.message)}",
                code="cloud.auth_failed",
                cloud_request_id=self.words(error.request_id) if error.request_id else None,
            ) from None
        except ks_exceptions.CatalogException as error:
            raise exceptions.ProviderError(
                f"The catalog has no usable image endpoint in {self.name}: {self.words(error)}",
                code="cloud.no_endpoint",
            ) from None
        except egress.Refused as error:
            raise exceptions.ProviderError(
                f"CIMinG may not {what} {self.name}: {error.detail}", code=error.code
            ) from None
        except (ks_exceptions.ClientException, sdk_exceptions.SDKException) as error:
            untrusted = isinstance(error, ks_exceptions.SSLError) and "certificate" in str(error).lower()
            if untrusted:
                raise exceptions.ProviderError(
                    f"Could not {what} {self.name}: {self.words(error)}", code="cloud.tls_failed"
                ) from None
            raise exceptions.TransientProviderError(
                f"Could not {what} {self.name}: {self.words(error)}", code="cloud.unreachable"
            ) from None
        except UNREADABLE as error:    # of keystoneauth, that took the answer for what it should be
            LOG.info("What %s answered can not be read: %s", self.name, type(error).__name__)
            raise self.bad_answer(f"{what} it") from None

    def _login_error(self, status: int) -> type[exceptions.ProviderError]:
        if status in TRANSIENT:
            return exceptions.TransientProviderError
        if self._as_user and status in (401, 403, 404):     # the trust or its user may be gone
            return exceptions.CredentialNeeded
        gone = status in (401, 404)     # 404: an application credential that was deleted
        return exceptions.CredentialRefused if gone else exceptions.ProviderError

    def _error(self, answer: requests.Response) -> exceptions.ProviderError:
        """What Glance said, as an error of ours."""
        said = "that is not where it should be"     # a redirect that leads nowhere
        try:
            sdk_exceptions.raise_from_response(answer)
        except sdk_exceptions.HttpException as error:
            said = error.details or error.message
        except UNREADABLE:
            said = "and more that can not be read"
        status = f"{answer.status_code} {answer.reason}"
        said = str(said).removeprefix(f"{status}: ")
        refused = answer.status_code == 401
        transient = answer.status_code in TRANSIENT
        kind = exceptions.TransientProviderError if transient else exceptions.ProviderError
        return (self._login_error(401) if refused else kind)(
            f"{self.name}: {self.words(f'{status}: {said}')}",
            code=CODES.get(answer.status_code, kind.code),
            cloud_request_id=self.words(answer.headers.get("x-openstack-request-id", "")) or None,
        )


def _login(place: Mapping[str, Any], credential: Mapping[str, str]) -> ks_session.Session:
    """A session with another Keystone, that goes nowhere the operator forbids; logs in when first used."""
    given = dict(credential)
    url = _keystone(place["auth_url"])
    if _keystone(given.pop("auth_url", url)) != url:
        raise exceptions.ProviderError(
            f"The credential of Cloud {place['cloud']} is for another Keystone than {url}. Store one that is "
            "for this one, and set credential_ref of the Cloud.",
            code="credential.invalid",
        )
    plugin = PLUGINS[given.pop("auth_type")]
    made = ks_session.Session(plugin(url, **given), timeout=place["timeout"])
    connections.equip(made, outside=True, cacert=place.get("cacert"))
    return made


def _secrets(credential: Mapping[str, str]) -> list[str]:
    named = ("password", "application_credential_secret")
    return [credential[name] for name in named if name in credential]


def _keystone(url: str) -> str:
    """Where version 3 is."""
    return f"{url.rstrip('/').removesuffix('/v3')}/v3"
