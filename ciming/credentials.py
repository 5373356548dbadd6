# SPDX-License-Identifier: Apache-2.0
"""The only reader of secrets: from a Job's trust to what a provider can log in with.

Nothing here is ever written anywhere; what it returns is for one use, in memory. No error has anything in it
of what was read, nor the error that led to it.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import marshmallow as ma
import requests
import urllib3
import yaml
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import session as ks_session
from oslo_config import cfg

from ciming import barbican, configs, custody, exceptions, trusts
from ciming.db import clouds, models

LARGEST = 20_000        # bytes of a secret, which is what Barbican takes
PASSING = frozenset((408, 429, 500, 502, 503, 504))
KINDS = ("text/plain", "application/octet-stream")      # as which a secret may have been stored


class Place(Protocol):
    """A Cloud, as Targets and Links name it."""

    @property
    def cloud_key(self) -> str: ...
    @property
    def cloud(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def region(self) -> str | None: ...


def of_place(
    job: models.Job, place: Place, patience: float | None = None
) -> tuple[dict[str, Any], Any]:
    """Where a Cloud is, and the credential for it: `place` and `credential` of a Provider.

    For a zone the credential is a session, for a registered Cloud what its secret says.

    :param patience: seconds without a byte from Keystone, Barbican or a zone, where [openstack] timeout is
        more than somebody waits
    :raises ProviderError: there is none, or it can not be used
    """
    if clouds.is_zone(place.cloud_key, place.region):
        return _of_zone(place), _within(patience, _as_user(job, place))
    row = _row(job, place)
    there = _of_row(job, row)
    if place.cloud_key in (job.spec or {}).get("given", ()):
        return there, _given(job, row)
    if not row.credential_ref:
        raise exceptions.ProviderError(
            f"Cloud {row.name} has no credential: set its credential_ref, then retry the Job; or "
            "give one with the retry.",
            code="credential.missing",
        )
    reader = trusts.service_session() if row.visibility == "public" else _as_user(job, place)
    return there, _parsed(row, _read(row, _within(patience, reader)))


def where(job: models.Job, place: Place) -> dict[str, Any]:
    """Where a Cloud is: `place` of a Provider.

    :raises ProviderError: it is registered no more
    """
    if clouds.is_zone(place.cloud_key, place.region):
        return _of_zone(place)
    return _of_row(job, _row(job, place))


def _of_zone(place: Place) -> dict[str, Any]:
    options = cfg.CONF.openstack
    formats = options.zone_formats.get(place.region, "").split()
    return {"region": place.region, "interface": options.interface, "formats": formats}


def _of_row(job: models.Job, row: models.Cloud) -> dict[str, Any]:
    extra = {"tenant": job.project_id} if row.visibility == "public" else {}
    extra |= {"project": job.project_id, "timeout": cfg.CONF.openstack.timeout}
    return {**row.config, "cloud": row.name, **extra}


def _row(job: models.Job, place: Place) -> models.Cloud:
    row = clouds.find(place.cloud_key, job.project_id)
    if row is None:
        raise exceptions.ProviderError(
            f"Cloud {place.cloud} is registered no more.", code="credential.missing"
        )
    return row


def _within(patience: float | None, session: ks_session.Session) -> ks_session.Session:
    """A session, which is nobody else's, that gives up after so many seconds, if not earlier."""
    if patience is not None:
        session.timeout = min(patience, session.timeout or patience)
    return session


def _as_user(job: models.Job, place: Place) -> ks_session.Session:
    """A session as the Job's user: under the trust, or with the token that it came with."""
    if job.trust_id:
        return trusts.session(job.trust_id)
    held = custody.of(job.parent_id or job.id)
    if held is None or held.token is None:
        raise exceptions.CredentialNeeded(
            f"The token with which CIMinG worked for you in {place.cloud} is gone: it was in the memory of "
            "an engine that has ended."
        )
    return trusts.token_session(held.token)


def _given(job: models.Job, row: models.Cloud) -> Mapping[str, Any]:
    """The credential that came with the request."""
    held = custody.of(job.parent_id or job.id)
    if held is None or row.id not in held.clouds:
        raise exceptions.CredentialNeeded(
            f"The credential for Cloud {row.name} that was given is gone: it was in the memory of an engine "
            "that has ended."
        )
    return held.clouds[row.id]


def _read(row: models.Cloud, reader: ks_session.Session) -> bytes:
    """The payload of a Cloud's secret."""
    ref = barbican.parse(str(row.credential_ref))
    if ref is None:
        raise _not_readable(row, "its credential_ref is no href of a secret")
    try:
        url = f"{_endpoint(row, reader, ref)}/v1/secrets/{ref.secret_id}/payload"
        for kind in KINDS:
            # Not from wherever a redirect leads, and once: the Target's attempts are the only retries.
            # Not logged: keystoneauth's own debug log would have the answer.
            once = {"redirect": False, "raise_exc": False, "connect_retries": 0, "log": False}
            answer = reader.get(url, headers={"Accept": kind}, stream=True, **once)
            with contextlib.closing(answer):
                if answer.status_code != 406:
                    return _payload(row, answer)
        raise _invalid(row, f"it is stored neither as {' nor as '.join(KINDS)}")
    except ks_exceptions.HttpError as error:        # Keystone's, while logging in
        if error.http_status in PASSING:
            raise _unavailable(row, "Keystone") from None
        if row.visibility != "public":      # so it is the user's login that is of no use any more
            raise exceptions.CredentialNeeded(
                f"CIMinG can not read the credential for Cloud {row.name}: Keystone did not let it log in as "
                f"you ({error.http_status})."
            ) from None
        raise _not_readable(row, f"Keystone did not let CIMinG log in ({error.http_status})") from None
    except (ks_exceptions.ClientException, requests.RequestException, urllib3.exceptions.HTTPError):
        raise _unavailable(row, "Barbican or Keystone") from None


def _endpoint(row: models.Cloud, reader: ks_session.Session, ref: barbican.Ref) -> str:
    """Where the engine reaches the Barbican of a secret: one of its own catalog, whatever the href says."""
    assert reader.auth is not None
    access = reader.auth.get_access(reader)         # type: ignore[attr-defined]  # a login of Keystone
    found = access.service_catalog.get_endpoints_data(service_type=barbican.SERVICE_TYPE)
    endpoints = [endpoint for of_type in found.values() for endpoint in of_type]
    named = [endpoint for endpoint in endpoints if barbican.is_of(ref, [endpoint.url])]
    if not named:
        raise _not_readable(row, "its secret is in no Barbican of your OpenStack")
    interface = cfg.CONF.openstack.interface
    near = [
        endpoint
        for endpoint in endpoints
        if endpoint.interface == interface and endpoint.region_name == named[0].region_name
    ]
    return barbican.base((near or named)[0].url)


def _payload(row: models.Cloud, answer: requests.Response) -> bytes:
    status = answer.status_code
    if status == 200:
        payload: bytes = answer.raw.read(LARGEST + 1, decode_content=True)
        if len(payload) > LARGEST:
            raise _invalid(row, f"it has more than {LARGEST} bytes")
        return payload
    if status == 404:
        raise exceptions.CredentialRefused(
            f"The secret with the credential for Cloud {row.name} is gone from Barbican: store another one, "
            "and set credential_ref of the Cloud.",
            code="credential.missing",
        )
    if status in PASSING:
        raise _unavailable(row, "Barbican")
    raise _not_readable(row, f"Barbican answered {status}")


def _parsed(row: models.Cloud, payload: bytes) -> Mapping[str, Any]:
    """What a secret says, as its provider's schema has it."""
    schema = configs.load(row.provider)
    if schema is None:
        raise exceptions.ProviderError(
            f"The provider {row.provider} of Cloud {row.name} is not installed.",
            code="provider.not_installed",
        )
    try:
        said = _loaded(payload.decode())
    except Exception:   # PyYAML lets out what int() and others raise, and that may have the secret in it
        said = None
    if not isinstance(said, dict):
        raise _invalid(row, "it is neither a JSON object nor the YAML of one")
    try:
        found: Mapping[str, Any] = schema.credential().load(said)
    except ma.ValidationError as error:
        raise _invalid(row, configs.why(schema.credential(), error)) from None
    except RecursionError:
        raise _invalid(row, "it is nested too deep") from None
    return found


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.load(text, _Plain)  # noqa: S506  # it is a SafeLoader


class _Plain(yaml.SafeLoader):
    """YAML without aliases: some lines of those can mean more than fits into memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError
        return super().compose_node(parent, index)


def _invalid(row: models.Cloud, why: str) -> exceptions.ProviderError:
    return exceptions.ProviderError(
        f"The secret of Cloud {row.name} is no credential for it: {why.rstrip('.')}. Store a good one, set "
        "credential_ref of the Cloud, then retry the Job.",
        code="credential.invalid",
    )


def _not_readable(row: models.Cloud, why: str) -> exceptions.ProviderError:
    of_all = "Its operator has to let CIMinG's service user read it, by an ACL."
    advice = of_all if row.visibility == "public" else "It has to be a secret that you may read."
    return exceptions.ProviderError(
        f"CIMinG can not read the credential for Cloud {row.name}: {why}. {advice}",
        code="credential.not_readable",
    )


def _unavailable(row: models.Cloud, who: str) -> exceptions.TransientProviderError:
    return exceptions.TransientProviderError(
        f"The credential for Cloud {row.name} can not be read now: {who} does not answer as it should.",
        code="credential.unavailable",
    )
