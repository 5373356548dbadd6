# SPDX-License-Identifier: Apache-2.0
"""What processes do so that nothing of their memory gets out."""

import subprocess
import sys

import pytest
from gunicorn.http import errors

from ciming.cmd import gunicorn

NO_CORE = """
import ctypes, resource, subprocess, sys
from ciming import cmd
GET_DUMPABLE = 3
cmd.leave_no_core()
print(ctypes.CDLL(None).prctl(GET_DUMPABLE), resource.getrlimit(resource.RLIMIT_CORE), flush=True)
subprocess.run([sys.executable, "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"])
"""


def test_no_core_of_a_process_nor_of_its_children() -> None:
    run = subprocess.run([sys.executable, "-c", NO_CORE], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["0 (0, 0)", "(0, 0)"]


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidHeader("X-Auth-Token swordfish"),
        errors.InvalidHeaderName("swordfish"),
        errors.InvalidRequestLine("GET /v1/clouds?password=swordfish"),
        errors.InvalidRequestMethod("swordfish"),
        errors.InvalidHTTPVersion("swordfish"),
        errors.ObsoleteFolding("swordfish"),
        errors.ExpectationFailed("swordfish"),
        errors.UnsupportedTransferCoding("swordfish"),
        errors.InvalidChunkSize(b"swordfish"),
        errors.ChunkMissingTerminator(b"swordfish"),
        errors.NoMoreData(b"swordfish"),
    ],
)
def test_what_can_not_be_parsed_is_not_quoted(error: Exception) -> None:
    gunicorn.quote_nothing()
    assert str(error) == type(error).__name__


def test_how_much_is_too_much_is_said() -> None:
    gunicorn.quote_nothing()
    assert "4094" in str(errors.LimitRequestLine(5000, 4094))
