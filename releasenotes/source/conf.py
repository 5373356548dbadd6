# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the release notes; reno reads them out of git."""

from collections.abc import Callable
from typing import Any

from reno import scanner

extensions = ["openstackdocstheme", "reno.sphinxext"]

project = "CIMinG release notes"
copyright = "The CIMinG developers"
openstackdocs_auto_name = False
version = release = ""      # release notes cover all versions

html_theme = "openstackdocs"
html_title = "CIMinG release notes"


def _with_merges(aggregate: Callable[..., Any]) -> Callable[..., Any]:
    """A merge may add a note, as one parent sees it, and modify it, as the other does: reno takes no both."""

    def aggregated(self: Any, entry: Any, changes: list[Any]) -> Any:
        each_alone = [each for one in changes for each in (one if isinstance(one, list) else [one])]
        modified = {each.new.path for each in each_alone if each.type == "modify"}
        kept = [each for each in each_alone if each.type != "add" or each.new.path not in modified]
        return aggregate(self, entry, kept)

    return aggregated


scanner._ChangeAggregator.aggregate_changes = _with_merges(scanner._ChangeAggregator.aggregate_changes)
