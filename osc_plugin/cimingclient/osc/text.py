# SPDX-License-Identifier: Apache-2.0
"""Words for people: sizes, and texts that came from somewhere else."""

from collections.abc import Iterator
from typing import Any

from openstack import exceptions


def plain(value: object) -> str:
    """One line that moves no cursor, of a text that a service or a cloud wrote."""
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "?" for char in text)


def size(count: int) -> str:
    """Bytes, as `408.0 MiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def explain(exc: Exception) -> str:
    """What went wrong in the service's own words, and the request id to ask an operator about."""
    response = exc.response if isinstance(exc, exceptions.HttpException) else None
    if response is None:
        return str(exc)
    words = "; ".join(_errors(response)) or plain(getattr(exc, "details", None) or exc)
    request_id = response.headers.get("x-openstack-request-id")
    suffix = f" (Request-ID: {plain(request_id)})" if request_id else ""
    return f"{words} (HTTP {response.status_code}){suffix}"


def _errors(response: Any) -> Iterator[str]:
    """The API-SIG error list, each with the field it is about; or what Barbican says."""
    try:
        said = response.json()
    except ValueError:
        return  # a proxy's page
    errors = said.get("errors", [said]) if isinstance(said, dict) else None
    for error in errors if isinstance(errors, list) else []:
        if not isinstance(error, dict):
            error = {"detail": error}
        detail = plain(error.get("detail") or error.get("description") or error.get("title") or "")
        field = plain(error.get("field") or "")
        if detail:
            yield f"{field}: {detail}" if field and field not in detail else detail
