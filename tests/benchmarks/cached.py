# SPDX-License-Identifier: Apache-2.0
"""A list out of what is kept of 1,000 images, against a command of a plugin that does nothing.

Needs no service: there is none at the address that the commands are given.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from typing import NamedTuple

from cimingclient.sdk import _kept

LIMIT = 1.3
LOGIN = {"auth_url": "http://127.0.0.1:1/v3", "username": "u", "password": "p", "project_name": "p"}
EMPTY = """
from osc_lib.command import command

class Nothing(command.Command):
    auth_required = False

    def take_action(self, parsed_args):
        pass
"""
ENTRY = "[openstack.multicloud.v1]\nmulticloud_nothing = empty_plugin:Nothing\n"
COMMANDS = {
    "a command that does nothing": ("multicloud", "nothing"),
    "image list --cached": ("multicloud", "image", "list", "--cached", "-f", "json"),
    "… --status error --sort name": (
        *("multicloud", "image", "list", "--cached", "--status", "error", "--sort", "name"),
        *("-f", "value", "-c", "Name"),
    ),
}


def image(number: int) -> dict[str, object]:
    clouds = ("zone-a", "zone-b", "other", "aws", "gcp")
    known = {"provider": "openstack", "region": "r", "proof": "bytes", "verified_at": "2026-01-01T00:00:00Z"}
    return {
        "id": str(uuid.uuid4()),
        "name": f"image-{number:04}",
        "project_id": "p" * 32,
        "status": "active" if number % 10 else "error",
        "disk_format": "qcow2",
        "size": number << 20,
        "virtual_size": number << 24,
        "digests": {"sha256": "a" * 64, "sha512": "b" * 128, "guest": None},
        "links": [{**known, "cloud": cloud, "image_ref": str(uuid.uuid4())} for cloud in clouds],
        "tags": ["golden"],
        "hidden": None,
        "deprecated": None,
        "created_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000Z",
        "updated_at": "2026-01-01T00:00:00.000Z",
    }


def prepare(folder: pathlib.Path, images: int) -> dict[str, str]:
    """A plugin with the empty command, a login, and what is kept for it; the commands' environment."""
    plugin = folder / "plugin"
    about = plugin / "empty_plugin-1.dist-info"
    about.mkdir(parents=True)
    (plugin / "empty_plugin.py").write_text(EMPTY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: empty-plugin\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY)
    config = {"clouds": {"there": {"auth": LOGIN, "region_name": "r"}}}
    (folder / "clouds.yaml").write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")} | {
        "OS_CLIENT_CONFIG_FILE": str(folder / "clouds.yaml"),
        "OS_CLOUD": "there",
        "PYTHONPATH": str(plugin),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    os.environ["XDG_CACHE_HOME"] = environment["XDG_CACHE_HOME"]
    who = _kept.identity({"auth": LOGIN, "region_name": "r", "interface": "public"})
    _kept.Store(who).write("images", [image(number) for number in range(images)])
    return environment


class Took(NamedTuple):
    """Seconds of one command: until it had ended, and of the processor."""

    whole: float
    processor: float


def measure(arguments: tuple[str, ...], environment: dict[str, str]) -> Took:
    program = pathlib.Path(sys.executable).parent / "openstack"
    began, before = time.monotonic(), processor()
    subprocess.run([str(program), *arguments], env=environment, check=True, capture_output=True)
    return Took(time.monotonic() - began, processor() - before)


def processor() -> float:
    """Seconds that all commands took so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    took: dict[str, list[Took]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        environment = prepare(pathlib.Path(folder), arguments.images)
        for turn in range(arguments.rounds + 1):
            for name, command in COMMANDS.items():
                one = measure(command, environment)
                if turn:        # in the first one, entry points and byte code are cached
                    took[name].append(one)
    medians = {name: Took(*map(statistics.median, zip(*each, strict=True))) for name, each in took.items()}
    nothing, *others = medians.values()
    for name, one in medians.items():
        print(
            f"{name:30} {one.whole:6.3f} s {one.whole / nothing.whole:5.2f} x,"
            f" processor {one.processor:6.3f} s {one.processor / nothing.processor:5.2f} x"
        )
    worst = max(one.whole / nothing.whole for one in others)
    sys.exit(0 if worst <= LIMIT else f"{worst:.2f} x is more than {LIMIT} x")


if __name__ == "__main__":
    main()
