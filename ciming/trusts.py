# SPDX-License-Identifier: Apache-2.0
"""Keystone trusts: how a Job outlives its caller's token without a stored credential.

The API makes one with the caller's token; the engine, its trustee, works under it and deletes it.
"""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from keystoneauth1 import access, adapter, token_endpoint
from keystoneauth1 import exceptions as ks_exceptions
from keystoneauth1 import loading as ks_loading
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import base as identity
from oslo_config import cfg
from oslo_log import log

from ciming import config, connections, context, exceptions, points

LOG = log.getLogger(__name__)

# A trust login has the trust's project for its scope, so the service user's own is left out.
NO_SCOPE: dict[str, None] = dict.fromkeys(
    (
        "project_id",
        "project_name",
        "project_domain_id",
        "project_domain_name",
        "domain_id",
        "domain_name",
        "system_scope",
        "default_domain_id",
        "default_domain_name",
    )
)


# The last login under each trust: good enough for others, too, and Keystone takes its time for another one.
_LOGINS: dict[str, Any] = {}
_LOGINS_LOCK = threading.Lock()


def service_session() -> ks_session.Session:
    """A session as the service user itself."""
    return _session(_login())


def session(trust_id: str) -> ks_session.Session:
    """A session as the user who gave the trust, in their project. Logs in when first used.

    Or begins with the token that the last one under this trust has. The login is its own all the same: no
    one waits for another's, and who finds the token revoked gets another one.
    """
    login = _login(**NO_SCOPE, trust_id=trust_id)
    with _LOGINS_LOCK:
        former = _LOGINS.pop(trust_id, None)
        if former is not None:
            login.auth_ref = former.auth_ref
        _LOGINS[trust_id] = login
        for oldest in list(_LOGINS)[: -cfg.CONF.engine.max_jobs]:   # of Jobs that went elsewhere
            del _LOGINS[oldest]
    return _under_trust(login)


def token_session(token: str) -> ks_session.Session:
    """A session with a user's own token, for as long as that is good."""
    made = _session(_Token(token))
    connections.equip(made)
    return made


class _Token(identity.BaseIdentityPlugin):
    """A token as it is: one of an application credential can not be exchanged for another."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token

    def get_auth_ref(self, session: ks_session.Session) -> access.AccessInfo:
        """What Keystone says of the token, with its catalog."""
        headers = {"X-Auth-Token": self._token, "X-Subject-Token": self._token}
        url = f"{auth_url(session.timeout)}/auth/tokens"
        answer = session.get(url, headers=headers, authenticated=False, log=False)
        return access.create(resp=answer, auth_token=self._token)

    def get_cache_id_elements(self) -> dict[str, str | None]:
        return {}


def can_log_in() -> bool:
    """Is our own login good, as far as Keystone can be asked, so that it is somebody else's that is not?"""
    try:
        service_session().get_token()
    except ks_exceptions.HTTPClientError as error:
        LOG.error("CIMinG can not log in to Keystone: %s", error)
        return False
    except ks_exceptions.ClientException as error:
        LOG.warning("Keystone can not be asked whether CIMinG may log in: %s", error)
    return True


def _again(trust_id: str) -> ks_session.Session:
    """A session with the last login under a trust, if there is one, which no one needs after this."""
    with _LOGINS_LOCK:
        login = _LOGINS.pop(trust_id, None)
    return _under_trust(login or _login(**NO_SCOPE, trust_id=trust_id))


def _under_trust(login: Any) -> ks_session.Session:
    made = _session(login)
    connections.equip(made)
    return made


def _login(**overrides: Any) -> Any:
    conf, group = cfg.CONF, config.SERVICE_USER_GROUP
    if conf[group].auth_section:
        ks_loading.register_auth_conf_options(conf, conf[group].auth_section)
    auth = ks_loading.load_auth_from_conf_options(conf, group, **overrides)
    if auth is None:
        raise cfg.RequiredOptError("auth_type", cfg.OptGroup(group))
    return auth


def _session(auth: Any) -> ks_session.Session:
    conf, group = cfg.CONF, config.SERVICE_USER_GROUP
    made: ks_session.Session = ks_loading.load_session_from_conf_options(conf, group, auth=auth)
    made.timeout = conf.openstack.timeout
    return made


def _has_service_user() -> bool:
    options = cfg.CONF[config.SERVICE_USER_GROUP]
    return bool(options.auth_type or options.auth_section)


def _own_session() -> ks_session.Session:
    """A session as whoever this process is: an API without the engine's login validates tokens as another."""
    if _has_service_user():
        return service_session()
    conf, group = cfg.CONF, "keystone_authtoken"
    conf.import_group(group, "keystonemiddleware.auth_token")
    options = conf[group]
    ks_loading.register_auth_conf_options(conf, options.auth_section or group)
    auth = ks_loading.load_auth_from_conf_options(conf, group)
    if auth is None:
        raise cfg.RequiredOptError("auth_type", cfg.OptGroup(group))
    return ks_session.Session(
        auth,
        verify=not options.insecure and (options.cafile or True),
        cert=(options.certfile, options.keyfile) if options.certfile and options.keyfile else None,
        timeout=conf.openstack.timeout,
    )


def check_trustee() -> None:
    """Can this process make trusts, as far as its configuration tells?

    :raises RequiredOptError: an option is missing
    """
    if not cfg.CONF.trust.trustee_user_id and not _has_service_user():
        raise cfg.RequiredOptError("trustee_user_id", cfg.OptGroup("trust"))
    _own_session()


@functools.cache
def auth_url(patience: float | None = None) -> str:
    """Keystone's versioned URL.

    :param patience: seconds without a byte from it, where they are others than [openstack] timeout
    :raises ClientException: it does not say it now
    """
    session = _own_session()
    session.timeout = patience or session.timeout
    interface = cfg.CONF.openstack.interface
    found = session.get_endpoint(service_type="identity", interface=interface, version="v3")
    url = str(found or getattr(session.auth, "auth_url", "")).rstrip("/")
    if not url.endswith("/v3"):     # keystoneauth goes on without: then all that is asked for is a 404
        raise ks_exceptions.DiscoveryFailure(f"Keystone does not say where its v3 API is: not at {url}")
    return url


@functools.cache
def trustee_user_id() -> str:
    return str(cfg.CONF.trust.trustee_user_id or service_session().get_user_id())


def _as_caller(caller: context.RequestContext, url: str) -> adapter.Adapter:
    own = _own_session()
    return adapter.Adapter(
        ks_session.Session(
            token_endpoint.Token(url, caller.auth_token),
            verify=own.verify,
            cert=own.cert,
            timeout=own.timeout,
        )
    )


@dataclass(frozen=True)
class Trust:
    """What Keystone shows of a trust; of its end, whole seconds only."""

    id: str
    trustor_user_id: str
    project_id: str
    expires_at: datetime


class Taken(Exception):
    """There is a trust already of the same people, project and end."""


@points.mutation
def create(caller: context.RequestContext, expires_at: datetime, roles: Sequence[str] = ()) -> str:
    """Make a trust from the caller to the service user, for the caller's project; its id.

    :param roles: that it delegates, instead of those that are configured for all
    :raises Taken: try another `expires_at`. Some Keystones compare the microseconds, some do not
    :raises TrustRefused: Keystone does not let this token delegate
    :raises Unavailable: Keystone can not be asked; it may have made the trust all the same
    """
    roles = roles or cfg.CONF.trust.roles
    trust: dict[str, Any] = {
        "trustor_user_id": caller.user_id,
        "trustee_user_id": None,
        "project_id": caller.project_id,
        "impersonation": True,
        "allow_redelegation": False,
        "roles": [{"name": role} for role in roles],
        "expires_at": expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    try:
        trust["trustee_user_id"], url = trustee_user_id(), f"{auth_url()}/OS-TRUST/trusts"
    except ks_exceptions.ClientException as error:
        LOG.error("CIMinG can not log in to Keystone: %s", error)
        raise exceptions.Unavailable(
            "CIMinG itself can not log in to Keystone now. Try again later, or tell its operator."
        ) from None
    try:
        answer = _as_caller(caller, url).post(url, json={"trust": trust})
    except ks_exceptions.HttpError as error:
        if error.http_status in (400, 401, 403, 404):
            said = str(error.message).partition(" (HTTP ")[0].rstrip(".")
            raise exceptions.TrustRefused(
                "Keystone refused a trust for this token. A password or single-sign-on token is needed, "
                f"with these roles in the project: {', '.join(roles)}. Keystone says: "
                f"{said} (request {error.request_id})."
            ) from None
        if error.http_status == 409:
            raise Taken from None
        raise exceptions.Unavailable(f"Keystone could not make a trust: {error.message}") from None
    except ks_exceptions.ClientException as error:
        raise exceptions.Unavailable(f"Keystone can not be asked for a trust: {error}") from None
    return str(answer.json()["trust"]["id"])


@points.mutation
def take_back(caller: context.RequestContext, trust_id: str) -> bool:
    """Delete a trust that no Job came to have, as the caller who gave it; False when that failed."""
    try:
        url = f"{auth_url()}/OS-TRUST/trusts/{trust_id}"
        _as_caller(caller, url).delete(url)
    except ks_exceptions.NotFound:
        pass
    except ks_exceptions.ClientException as error:
        LOG.warning("Trust %s of no Job could not be deleted, housekeeping will: %s", trust_id, error)
        return False
    return True


def given() -> list[Trust]:
    """All trusts that the service user was given and that end some day.

    :raises Unavailable: Keystone can not be asked
    """
    try:
        answer = adapter.Adapter(service_session()).get(
            f"{auth_url()}/OS-TRUST/trusts", params={"trustee_user_id": trustee_user_id()}
        )
    except ks_exceptions.ClientException as error:
        raise exceptions.Unavailable(f"Keystone can not be asked for trusts: {error}") from None
    return [
        Trust(
            trust["id"],
            trust["trustor_user_id"],
            trust["project_id"],
            datetime.fromisoformat(trust["expires_at"]),
        )
        for trust in answer.json()["trusts"]
        if trust["expires_at"]
    ]


@points.mutation
def delete(trust_id: str) -> bool:
    """Delete a trust, logged in under it; False when Keystone could not do it now."""
    try:
        try:
            adapter.Adapter(_again(trust_id)).delete(f"{auth_url()}/OS-TRUST/trusts/{trust_id}")
        except (ks_exceptions.NotFound, ks_exceptions.Unauthorized, ks_exceptions.Forbidden) as error:
            # Its user or project is disabled, or the role is lost: once that is restored, so is the trust.
            if isinstance(error, ks_exceptions.Forbidden) or _is_given(trust_id):
                LOG.info("Trust %s can not be used now, nor deleted: %s", trust_id, error)
                return False
            LOG.info("Trust %s is gone, or has expired: %s", trust_id, error)
    except (ks_exceptions.ClientException, exceptions.Unavailable) as error:
        LOG.warning("Trust %s could not be deleted now: %s", trust_id, error)
        return False
    return True


def _is_given(trust_id: str) -> bool:
    """Is it there and has not expired, as far as Keystone says to ourselves?"""
    return any(trust.id == trust_id and trust.expires_at > datetime.now(UTC) for trust in given())
