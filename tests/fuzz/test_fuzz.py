# SPDX-License-Identifier: Apache-2.0
"""For a while, atheris finds nothing; and it would find something if there was."""

import base64
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="there is no atheris for this machine"
)
RUNS = ["-runs=4000"]
ALL_RUNS = ["-max_total_time=240"]
PLANTED = """
from tests.fuzz import disk_image
disk_image.structure.CHECKS["vdi"] = lambda image, virtual_size: [][image.size]
disk_image.main()
"""


def fuzz(folder: Path, *arguments: str, program: str = "") -> None:
    """:raises AssertionError: something was found; it says what, and by which input"""
    folder.mkdir()
    code = ["-c", program] if program else ["-m", "tests.fuzz.disk_image"]
    command = [sys.executable, *code, str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = [path for kind in ("crash-*", "timeout-*", "oom-*") for path in folder.glob(kind)]
    inputs = "\n".join(f"{path}: {base64.b64encode(path.read_bytes()).decode()}" for path in found)
    said = f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    assert not done.returncode and not found, f"{said}\n{inputs}\nThe image: {folder}/image"
    assert "Done " in done.stderr, said


@pytest.mark.timeout(900)
def test_nothing_but_refusals_comes_out(tmp_path: Path) -> None:
    fuzz(tmp_path / "inputs", *(ALL_RUNS if "CIMING_TEST_ALL" in os.environ else RUNS))


@pytest.mark.timeout(300)
def test_a_crash_is_found_and_can_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"IndexError: list index out of range[^~]*crash-"):
        fuzz(tmp_path / "inputs", "-runs=4000", program=PLANTED)
    assert (tmp_path / "inputs" / "image").stat().st_size
