# SPDX-License-Identifier: Apache-2.0
"""Lists in pages: limit and marker in, a link to the next page out."""

import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flask
from oslo_config import cfg

from ciming.api import auth

Lister = Callable[[str | None, Mapping[str, Any], str | None, int], Sequence[Any]]


def page(noun: str, lister: Lister, query: dict[str, Any]) -> dict[str, Any]:
    """One page of what the caller may see; filters apply before paging."""
    limits = cfg.CONF.api
    limit = min(query.pop("limit", limits.default_limit), limits.max_limit)
    marker = query.pop("marker", None)
    filters = {name: value if isinstance(value, str) else str(value) for name, value in query.items()}
    rows = lister(auth.scope(), filters, marker and str(marker), limit + 1)
    links = []
    if len(rows) > limit:
        arguments = {**flask.request.args, "limit": limit, "marker": rows[limit - 1].id}
        url = f"{flask.request.base_url}?{urllib.parse.urlencode(arguments)}"
        links.append({"rel": "next", "href": url})
    return {noun: rows[:limit], "links": links}
