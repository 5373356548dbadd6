# SPDX-License-Identifier: Apache-2.0
"""`.. aws-properties::` what of Glance's properties AWS is told, out of the provider's own table."""

from collections.abc import Iterator

from docutils import nodes, statemachine
from sphinx import application
from sphinx.util import docutils

from ciming.providers.aws import metadata


class AWSProperties(docutils.SphinxDirective):
    """A row for each property."""

    def run(self) -> list[nodes.Node]:
        lines = statemachine.StringList(list(_table()), "ciming.providers.aws.metadata")
        return list(self.parse_text_to_nodes("\n".join(lines)))


def _table() -> Iterator[str]:
    yield from (".. list-table:: Properties", "   :header-rows: 1", "")
    rows = [("Glance", "AWS")]
    rows += [(f"``{row.glance}``", _told(row)) for row in metadata.PROPERTIES]
    rows += [("``os_distro``, ``os_version``, … and tags", "tags"), ("``min_disk``", "the volume's size")]
    for glance, aws in rows:
        yield from (f"   * - {glance}", f"     - {aws}")
    yield ""


def _told(row: metadata.Property) -> str:
    """The parameter, and each of its values with those of Glance that become it."""
    by_value: dict[str, list[str]] = {}
    for theirs, ours in row.values.items():
        by_value.setdefault(ours, []).append(theirs)
    values = [
        f"``{ours}`` ({', '.join(f'``{each}``' for each in names)})" for ours, names in by_value.items()
    ]
    unsaid = ""
    if row.aws == "BootMode":
        defaults = (f"``{mode}`` on {machine}" for machine, mode in metadata.BOOT_MODES.items())
        unsaid = f"; without it {', '.join(defaults)}"
    return f"``{row.aws}``{': ' if values else ''}{', '.join(values)}{unsaid}"


def setup(app: application.Sphinx) -> dict[str, bool]:
    app.add_directive("aws-properties", AWSProperties)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
