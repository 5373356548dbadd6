# SPDX-License-Identifier: Apache-2.0
"""tools/demo.sh as it is left up, used and stopped; what it does by itself is run beside the tests."""

import json
import os
import pathlib
import subprocess

import pytest

from tests.sandbox import sandbox

SHOW = ". {env} && openstack multicloud image show demo -f json && openstack --os-region-name zone-b {plain}"
PLAIN = "image list --name demo -c ID -f value"


def demo(folder: pathlib.Path, *options: str) -> str:
    done = subprocess.run(
        [sandbox.ROOT / "tools" / "demo.sh", *options],
        env=os.environ | {"DEMO_FOLDER": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def processes_of(folder: pathlib.Path) -> list[bytes]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in found if str(folder).encode() in line]


@pytest.mark.with_all
@pytest.mark.parametrize("shape", [(), ("--distributed",)])
def test_left_up_used_and_stopped(shape: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    """A second --keep finds it running; what it has outlives --down."""
    env = tmp_path / "env"
    try:
        assert f". {env}" in demo(tmp_path, "--keep", *shape)
        seen = [shown(env)]
        for before in ((), ("--down",)):
            if before:
                demo(tmp_path, *before)
                assert not processes_of(tmp_path)
            demo(tmp_path, "--keep", *shape)
            seen.append(shown(env))
    finally:
        demo(tmp_path, "--down")
    assert seen == [seen[0]] * 3
    assert not processes_of(tmp_path)


def shown(env: pathlib.Path) -> str:
    """The id of the demonstration's image, as a shell that was pointed there sees it in both."""
    command = SHOW.format(env=env, plain=PLAIN)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    ours, end = json.JSONDecoder().raw_decode(done.stdout)
    assert ours["id"] == done.stdout[end:].strip()
    return str(ours["id"])
