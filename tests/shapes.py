# SPDX-License-Identifier: Apache-2.0
"""The shapes in which CIMinG runs, and how a test makes one.

CIMING_TEST_SHAPE names those to be tested, with spaces between them.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tests.sandbox import ciming, distributed, sandbox

Shape = Callable[..., ciming.Ciming]
"""Takes what `ciming.Ciming` takes."""
DISTRIBUTED: dict[str, tuple[str, distributed.Web]] = {
    "distributed": ("postgresql", "gunicorn"),
    "uwsgi": ("mariadb", "uwsgi"),
}
"""Database server and WSGI server of each."""


def wanted() -> Sequence[str]:
    """Those that are always tested, or all of them."""
    return ("standalone", *(DISTRIBUTED if "CIMING_TEST_ALL" in os.environ else ("distributed",)))


def make(name: str, fixture: Callable[[str], Any]) -> Shape:
    """The maker of a shape; `fixture` gives a server by its name."""
    if name == "standalone":
        return ciming.Ciming
    database, web = DISTRIBUTED[name]

    def made(
        cloud: sandbox.Sandbox, folder: pathlib.Path, options: ciming.Options | None = None, **kwargs: Any
    ) -> ciming.Ciming:
        broker, server = kwargs.pop("broker", None) or fixture("rabbitmq"), fixture(database)
        return distributed.Distributed(
            cloud, folder, options, broker=broker, database=server, web=web, **kwargs
        )

    return made
