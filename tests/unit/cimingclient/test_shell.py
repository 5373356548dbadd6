# SPDX-License-Identifier: Apache-2.0
"""The real `openstack` command with the plugin installed."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

import pytest

from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub

Start = Callable[..., subprocess.Popen[str]]
COUNT_AT_EXIT = """
import atexit, gc, sys
from openstackclient import shell
atexit.register(lambda: print(gc.get_freeze_count() - before, file=sys.stderr))     # the last of all
before = gc.get_freeze_count()
status = shell.main(sys.argv[1:])
assert gc.get_freeze_count() == before
sys.exit(status)
"""
FAILED = {"code": "cloud.forbidden", "message": "No", "cloud_request_id": "req-9"}


@pytest.fixture
def openstack(stub: _stub.Stub, tmp_path: pathlib.Path) -> Start:
    installed = metadata.entry_points(group="openstack.cli.extension")
    assert "multicloud" in installed.names, "run `pip install -e ./osc_plugin` first"
    config = tmp_path / "clouds.yaml"
    config.write_text(json.dumps({"clouds": {"stub": {"auth": conftest.credentials(stub)}}}))
    env = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    env |= {"OS_CLIENT_CONFIG_FILE": str(config), "OS_CLOUD": "stub"}
    # Started in a script's background, we ignore Ctrl-C, and so would the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def call(
        *argv: str, stderr: int = subprocess.PIPE, within: Sequence[str] = ("-m", "openstackclient.shell")
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *within, *argv],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=stderr,
            stdin=subprocess.PIPE,
        )

    return call


@pytest.fixture
def start(openstack: Start) -> Start:
    return functools.partial(openstack, "multicloud")


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * (2 << 20))
    return str(path)


def test_result_and_progress_and_exit_status_go_their_own_ways(
    stub: _stub.Stub, start: Start, disk: str
) -> None:
    targets = _stub.target("zone-a", "success"), _stub.target("zone-b", "error", error=FAILED)
    stub.outcome = [_stub.job("partial", *targets, identity="j")]
    argv = ("--file", disk, "--all-clouds", "--wait", "-f", "value", "-c", "name", "-c", "job_id")
    process = start("image", "create", "demo", *argv)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (3, "demo\nj\n")
    assert "zone-b failed: No [cloud.forbidden] (cloud request id: req-9)\n" in stderr


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("image", "show", "absent"), "No Image found for absent"),
        (("job", "show", "absent"), "No such thing: absent (HTTP 404) (Request-ID: req-stub)"),
        (("image", "create", "x", "--file", "/absent", "--all-clouds"), "Cannot read /absent"),
        (("cloud", "list", "-f", "nonsense"), "invalid choice"),
    ],
)
def test_an_error_is_a_line_and_no_traceback(start: Start, argv: tuple[str, ...], told: str) -> None:
    process = start(*argv)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode != 0 and stdout == ""
    assert told in stderr
    assert "Traceback" not in stderr


def test_a_cloud_without_the_service_is_told(stub: _stub.Stub, start: Start) -> None:
    stub.service_type = "something-else"
    process = start("image", "list")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "multicloud" in stderr and "Traceback" not in stderr


def test_a_terminal_is_rewritten_in_place(stub: _stub.Stub, start: Start, disk: str) -> None:
    stub.outcome = [
        _stub.job(
            status,
            *(_stub.target(zone, status, done=100) for zone in ("zone-a", "zone-b")),
            identity="j",
        )
        for status in ("running", "success")
    ]
    ours, theirs = os.openpty()
    process = start("image", "create", "demo", "--file", disk, "--all-clouds", "--wait", stderr=theirs)
    os.close(theirs)
    stdout, _ = process.communicate(timeout=60)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert process.returncode == 0 and "job_id" in stdout
    assert "2.0 MiB of 2.0 MiB" in shown
    assert "\x1b[2A\rzone-a  success" in shown


def test_no_garbage_is_looked_for_at_the_end_of_ours(openstack: Start) -> None:
    for argv, frozen in (("multicloud", "cloud", "list"), True), (("command", "list"), False):
        process = openstack(*argv, within=("-c", COUNT_AT_EXIT))
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0
        assert (int(stderr) > 0) is frozen


def test_ctrl_c_leaves_the_job_running_and_says_so(stub: _stub.Stub, start: Start) -> None:
    stub.jobs["j"] = [_stub.job("running", identity="j")]
    process = start("job", "wait", "j")
    assert process.stderr is not None
    shown = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert "running" in shown
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines() == [
        "Job j goes on. To watch it again: openstack multicloud job wait j",
        "To stop it: openstack multicloud job cancel j",
    ]


def test_ctrl_c_during_the_upload_tells_what_there_is(stub: _stub.Stub, start: Start) -> None:
    stub.outcome = [_stub.job("uploading", identity="j")]
    process = start("image", "create", "demo", "--file", "-", "--all-clouds", "--progress")
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write("x" * (3 << 20))  # and no end
    process.stdin.flush()
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    image_id = stub.images[0]["id"]
    made = f"Image {image_id} (Job j) is there, but did not get all its bytes"
    go_on = f"To go on: openstack multicloud image upload {image_id} --file -"
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-2:] == [
        f"Interrupted. {made}. {go_on}",
        "To give it up: openstack multicloud job cancel j",
    ]


def test_of_what_is_kept_not_even_keystone_is_asked(stub: _stub.Stub, start: Start) -> None:
    stub.images = [_stub.image("one"), _stub.image("two", status="error")]

    def listed(*argv: str) -> tuple[int, str, str]:
        process = start("image", "list", *argv, "-f", "value", "-c", "Name")
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr

    status, _, said = listed("--cached")
    assert (status, stub.tokens, stub.calls) == (1, 0, []) and "--refresh" in said
    assert listed()[:2] == (0, "one\ntwo\n")
    asked = stub.tokens, len(stub.calls)
    assert asked[0]
    status, stdout, said = listed("--cached", "--status", "error")
    assert (status, stdout) == (0, "two\n") and "s ago: images as they were" in said
    assert (stub.tokens, len(stub.calls)) == asked
