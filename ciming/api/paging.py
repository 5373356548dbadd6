# SPDX-License-Identifier: Apache-2.0
"""Lists in pages: filters, order, limit and marker in, a link to the next page out."""

import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flask
from oslo_config import cfg

from ciming.api import auth
from ciming.db import lists

Lister = Callable[[str | None, lists.Page], Sequence[Any]]


def page(noun: str, lister: Lister, query: dict[str, Any]) -> dict[str, Any]:
    """One page of what the caller may see; filters apply before paging.

    :param noun: what one of them is, in the singular
    :raises Forbidden: the caller may not list those of all projects
    """
    rows, links = rows_of(noun, lister, query)
    return {f"{noun}s": rows, "links": links}


def rows_of(noun: str, lister: Lister, query: dict[str, Any]) -> tuple[Sequence[Any], list[dict[str, str]]]:
    """The rows of a page, and the link to the next one; as page() has it."""
    project_id = auth.listed(noun, query.pop("all_projects", False))
    limit = length(query)
    marker = query.pop("marker", None)
    more = {"order": query.pop("sort")} if "sort" in query else {}
    wanted = lists.Page(limit + 1, marker and str(marker), list(_conditions(query)), **more)
    rows = lister(project_id, wanted)
    links = [next_page(limit, rows[limit - 1].id)] if len(rows) > limit else []
    return rows[:limit], links


def next_page(limit: int, marker: str) -> dict[str, str]:
    """A link to what comes behind the marker, of the list that is asked for."""
    arguments: dict[str, list[Any]] = flask.request.args.to_dict(flat=False)
    arguments |= {"limit": [limit], "marker": [marker]}
    text = urllib.parse.urlencode(arguments, doseq=True)
    return {"rel": "next", "href": f"{flask.request.base_url}?{text}"}


def length(query: dict[str, Any]) -> int:
    """Of a page, as the caller wants it and the operator allows."""
    limits = cfg.CONF.api
    return int(min(query.pop("limit", limits.default_limit), limits.max_limit))


def _conditions(query: Mapping[str, Any]) -> Iterable[lists.Condition]:
    for name, conditions in query.items():
        for how, values in conditions:
            yield lists.Condition(name, how, values)


def matching(items: Iterable[dict[str, Any]], query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a list that is in no table, what meets all conditions (in and nin)."""
    wanted = list(_conditions(query))
    return [
        item
        for item in items
        if all((item[name] in values) == (how == "in") for name, how, values in wanted)
    ]
