# SPDX-License-Identifier: Apache-2.0
"""Who speaks: tokens that were given for a signed assertion, and assertions that are themselves the token.

- The assertion, its claims, the answer and the errors:
  https://developers.google.com/identity/protocols/oauth2/service-account#httprest. The audience is "always
  https://oauth2.googleapis.com/token", which is what Google's client says wherever ``token_uri`` points to.
- Signed by RS256, for an hour at most, with a skew of five minutes: the same page, and
  https://datatracker.ietf.org/doc/html/rfc7523#section-3
- A self-signed JWT has the service as audience, or else scopes, never both; subject and issuer are the
  account: https://google.aip.dev/auth/4111 and
  https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth
- Scopes of the services: https://developers.google.com/identity/protocols/oauth2/scopes
- Missing or wrong credentials: https://cloud.google.com/docs/authentication/troubleshoot-adc
"""

import base64
import binascii
import json
import secrets
import time
import urllib.parse
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.sandbox.gcp import accounts, errors, wire
from tests.sandbox.gcp.state import Account, Key, State, Token

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
HOUR = 3600
SKEW = 300
AUTH = "https://www.googleapis.com/auth/"
WRITE: dict[str, frozenset[str]] = {
    "compute": frozenset({f"{AUTH}cloud-platform", f"{AUTH}compute"}),
    "storage": frozenset(
        {f"{AUTH}cloud-platform", f"{AUTH}devstorage.full_control", f"{AUTH}devstorage.read_write"}
    ),
}
READ: dict[str, frozenset[str]] = {
    "compute": WRITE["compute"] | {f"{AUTH}compute.readonly"},
    "storage": WRITE["storage"] | {f"{AUTH}devstorage.read_only", f"{AUTH}cloud-platform.read-only"},
}
KNOWN = READ["compute"] | READ["storage"]
TIMES = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


class _Signed(NamedTuple):
    key: Key
    claims: dict[str, Any]


class _BadAssertionError(Exception):
    """Why a JWT is not good."""


def grant(state: State, request: wire.Request) -> wire.Response:
    """Give a token for an assertion."""
    form = dict(urllib.parse.parse_qsl(request.body.decode("utf-8", "replace")))
    if form.get("grant_type") != GRANT:
        message = f"Invalid grant_type: {form.get('grant_type', '')}"
        raise errors.NoToken(400, "unsupported_grant_type", message)
    try:
        key, claims = _verify(state, form.get("assertion", ""))
        if claims.get("aud") not in (AUDIENCE, f"{state.url}{accounts.TOKEN_PATH}"):
            raise _BadAssertionError("Invalid JWT: Failed audience check.")
    except _BadAssertionError as error:
        raise errors.NoToken(400, "invalid_grant", str(error)) from None
    if claims.get("sub", claims["iss"]) != claims["iss"]:
        message = "Client is unauthorized to retrieve access tokens using this method."
        raise errors.NoToken(401, "unauthorized_client", message)
    scopes = frozenset(str(claims.get("scope", "")).split())
    if not scopes or not scopes <= KNOWN:
        message = "Invalid OAuth scope or ID token audience provided."
        raise errors.NoToken(400, "invalid_scope", message)
    with state.lock:
        seconds = state.settings.token_seconds
        token = f"ya29.c.{state.settings.token_mark}{secrets.token_urlsafe(96)}"
        state.tokens[token] = Token(key, scopes, time.time() + seconds)
        state.callers.add(key.id)
    return wire.answer({"access_token": token, "expires_in": seconds, "token_type": "Bearer"})


def caller(state: State, request: wire.Request, service: str) -> Account:
    """Return who makes a call; Refused if that is not known, or is not for such a call."""
    kind, _, bearer = request.headers.get("authorization", "").partition(" ")
    if not bearer:
        raise errors.Refused(
            401,
            "required",
            "Request is missing required authentication credential. Expected OAuth 2 access token, login "
            "cookie or other valid authentication credential.",
            status="UNAUTHENTICATED",
            location=("header", "Authorization"),
            details={"reason": "CREDENTIALS_MISSING"},
        )
    if kind != "Bearer":
        raise _unknown("ACCESS_TOKEN_TYPE_UNSUPPORTED")
    if bearer.count(".") == 2 and not bearer.startswith("ya29."):
        key, scopes = _self_signed(state, bearer, service)
    else:
        key, scopes = _given(state, bearer)
    wanted = (READ if request.method == "GET" else WRITE)[service]
    if scopes is not None and not scopes & wanted:
        raise errors.Refused(
            403,
            "insufficientPermissions",
            "Request had insufficient authentication scopes.",
            status="PERMISSION_DENIED",
            details={"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"},
        )
    with state.lock:
        state.callers.add(key.id)
    return key.account


def _given(state: State, bearer: str) -> tuple[Key, frozenset[str]]:
    with state.lock:
        token = state.tokens.get(bearer)
    if token is None:
        raise _unknown("ACCESS_TOKEN_TYPE_UNSUPPORTED")
    if time.time() >= token.ends:
        raise _unknown("ACCESS_TOKEN_EXPIRED")
    return token.key, token.scopes


def _self_signed(state: State, bearer: str, service: str) -> tuple[Key, frozenset[str] | None]:
    try:
        key, claims = _verify(state, bearer)
    except _BadAssertionError:
        raise _unknown("ACCESS_TOKEN_TYPE_UNSUPPORTED") from None
    audience, scope = claims.get("aud"), claims.get("scope")
    if claims.get("sub") != claims["iss"] or (audience is None) == (scope is None):
        raise _unknown("ACCESS_TOKEN_TYPE_UNSUPPORTED")
    if scope is not None:
        return key, frozenset(str(scope).split())
    if audience != f"https://{service}.googleapis.com/":
        raise _unknown("ACCESS_TOKEN_TYPE_UNSUPPORTED")
    return key, None


def _verify(state: State, assertion: str) -> _Signed:
    """Return who signed what; _BadAssertionError says why it is not good."""
    try:
        head, body, signature = assertion.split(".")
        header, claims = json.loads(_decode(head)), json.loads(_decode(body))
        signed = _decode(signature)
        issuer = str(claims["iss"])
        algorithm, key_id = header["alg"], header.get("kid")
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
        raise _BadAssertionError("Invalid JWT: Failed to parse the assertion.") from None
    with state.lock:
        if issuer not in {account.email for account in state.accounts.values()}:
            raise _BadAssertionError("Invalid grant: account not found")
        key = state.keys.get(str(key_id))
    if algorithm != "RS256" or key is None or key.account.email != issuer:
        raise _BadAssertionError("Invalid JWT Signature.")
    try:
        key.public.verify(signed, f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise _BadAssertionError("Invalid JWT Signature.") from None
    _check_times(claims)
    return _Signed(key, claims)


def _check_times(claims: dict[str, Any]) -> None:
    began, ends, now = claims.get("iat"), claims.get("exp"), time.time()
    if not isinstance(began, int | float) or not isinstance(ends, int | float):
        raise _BadAssertionError(TIMES)
    if not (began < ends <= began + HOUR and began <= now + SKEW and ends > now - SKEW):
        raise _BadAssertionError(TIMES)


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _unknown(reason: str) -> errors.Refused:
    return errors.Refused(
        401,
        "authError",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
        "other valid authentication credential.",
        status="UNAUTHENTICATED",
        location=("header", "Authorization"),
        details={"reason": reason},
    )
