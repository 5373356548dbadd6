# SPDX-License-Identifier: Apache-2.0
"""Who calls, and may they: every handler opens with @needs(rule) or says @public."""

import contextlib
import functools
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import flask
from werkzeug import exceptions as http

from ciming import context, exceptions, policies
from ciming.api import middleware

View = TypeVar("View", bound=Callable[..., Any])


def caller() -> context.RequestContext:
    """The authenticated caller of this request.

    :raises Unauthorized: no token, or none that Keystone takes
    :raises Unavailable: Keystone can not be asked
    """
    if "caller" not in flask.g:
        environ = flask.request.environ
        if environ.get("HTTP_X_IDENTITY_STATUS") == middleware.UNKNOWN:
            raise exceptions.Unavailable(
                "Keystone can not be asked now whether the token is good. Try again later, or tell the "
                "operator."
            )
        if environ.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
            raise http.Unauthorized(
                "This call needs a valid token in X-Auth-Token. The one given is missing, wrong or expired."
            )
        flask.g.caller = context.from_environ(environ)
    found: context.RequestContext = flask.g.caller
    return found


def needs(rule: str) -> Callable[[View], View]:
    """The policy check of a handler; write it above all other decorators, so that it comes first."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            policies.authorize(f"ciming:{rule}", caller())
            flask.g.policy_checked = True
            _log_for(**kwargs)
            return view(*args, **kwargs)

        return checked  # type: ignore[return-value]  # same signature

    return decorate


def _log_for(job: str = "", **_others: Any) -> None:
    """Log lines of a call whose path names a Job carry its id; anything else there is no id."""
    with contextlib.suppress(ValueError):
        context.about(str(uuid.UUID(job)))


def public(view: View) -> View:
    """A handler that anybody may call, without a token."""

    @functools.wraps(view)
    def unchecked(*args: Any, **kwargs: Any) -> Any:
        flask.g.policy_checked = True
        return view(*args, **kwargs)

    return unchecked  # type: ignore[return-value]  # same signature


def scope() -> str | None:
    """The project whose rows the caller sees one by one; None: those of all."""
    if policies.allowed("ciming:all_projects", caller()):
        return None
    return str(caller().project_id)


def listed(noun: str, everywhere: bool) -> str | None:
    """The project whose rows a list of the caller's shows; None: all, which must be asked for.

    :raises Forbidden: they ask, and may not
    """
    if not everywhere:
        return str(caller().project_id)
    policies.authorize(f"ciming:{noun}:list:all_projects", caller())
    return None


def assert_policy_checked(response: flask.Response) -> flask.Response:
    """No answer of a handler leaves without a policy check, were it forgotten."""
    handled = 200 <= response.status_code < 300 and flask.request.method != "OPTIONS"
    if handled and not flask.g.get("policy_checked"):
        raise AssertionError(f"No policy check in {flask.request.endpoint}")
    return response
