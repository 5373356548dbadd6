# SPDX-License-Identifier: Apache-2.0
"""`.. aws-properties::`, `.. gcp-properties::`: what they are told of Glance's, out of their own tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from docutils import nodes, statemachine
from sphinx import application
from sphinx.util import docutils

from ciming.providers.aws import metadata as aws
from ciming.providers.gcp import metadata as gcp

Row = tuple[str, str, Mapping[str, str]]
"""Glance's name, theirs, and their value by Glance's."""


class Table(NamedTuple):
    """What a cloud is told."""

    cloud: str
    rows: Sequence[Row]
    others: Sequence[tuple[str, str]]
    unsaid: Mapping[str, str]
    """By their name, what they are told where nothing is said."""


class Properties(docutils.SphinxDirective):
    """A row for each property."""

    table: ClassVar[Table]

    def run(self) -> list[nodes.Node]:
        lines = statemachine.StringList(list(_lines(self.table)), self.table.cloud)
        return list(self.parse_text_to_nodes("\n".join(lines)))


class AWSProperties(Properties):
    """Of AWS."""

    table = Table(
        "AWS",
        aws.PROPERTIES,
        [("``os_distro``, ``os_version``, … and tags", "tags"), ("``min_disk``", "the volume's size")],
        {"BootMode": ", ".join(f"``{mode}`` on {machine}" for machine, mode in aws.BOOT_MODES.items())},
    )


class GCPProperties(Properties):
    """Of Google Cloud."""

    table = Table(
        "Google Cloud",
        gcp.PROPERTIES,
        [("``os_distro``, ``os_version``, … and tags", "labels"), ("``min_disk``", "``disk_size_gb``")],
        {},
    )


def _lines(table: Table) -> Iterator[str]:
    yield from (".. list-table:: Properties", "   :header-rows: 1", "")
    rows = [("Glance", table.cloud)]
    rows += [(f"``{row[0]}``", _told(row, table.unsaid)) for row in table.rows]
    for glance, theirs in [*rows, *table.others]:
        yield from (f"   * - {glance}", f"     - {theirs}")
    yield ""


def _told(row: Row, unsaid: Mapping[str, str]) -> str:
    """The parameter, and each of its values with those of Glance that become it."""
    _, name, known = row
    by_value: dict[str, list[str]] = {}
    for theirs, ours in known.items():
        by_value.setdefault(ours, []).append(theirs)
    values = [
        f"``{ours}`` ({', '.join(f'``{each}``' for each in names)})" for ours, names in by_value.items()
    ]
    without = f"; without it {unsaid[name]}" if name in unsaid else ""
    return f"``{name}``{': ' if values else ''}{', '.join(values)}{without}"


def setup(app: application.Sphinx) -> dict[str, bool]:
    app.add_directive("aws-properties", AWSProperties)
    app.add_directive("gcp-properties", GCPProperties)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
