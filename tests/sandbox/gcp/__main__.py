# SPDX-License-Identifier: Apache-2.0
"""Serve in the foreground: ``python -m tests.sandbox.gcp --dir D`` prints the URL and where the keys are."""

import argparse
import contextlib
import pathlib

from tests.sandbox.gcp import places, serve

parser = argparse.ArgumentParser(prog="python -m tests.sandbox.gcp", description=__doc__)
parser.add_argument("--dir", type=pathlib.Path, required=True, help="folder that holds everything")
parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
arguments = parser.parse_args()


def say(url: str) -> None:
    """Print how to use it."""
    print(f"{url}\n{arguments.dir / places.KEYS}", flush=True)


with contextlib.suppress(KeyboardInterrupt):
    serve.run(arguments.dir, arguments.port, ready=say, with_parent=arguments.with_parent)
