# SPDX-License-Identifier: Apache-2.0
"""An API process reads its configuration as the environment says, whatever its command line is."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.sandbox import processes

CODE = """
from oslo_config import cfg
from ciming import cmd, config
from ciming.api import startup
config.load([], **startup._configuration())
print(cfg.CONF.api.threads, cfg.CONF.api.max_uploads, cfg.CONF.api.max_limit, cfg.CONF.log_file)
"""


def loaded(**environment: str) -> str:
    command = [sys.executable, "-c", CODE, "--bind", "somewhere"]
    run = subprocess.run(
        command, env=processes.environment(**environment), capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@pytest.fixture
def files(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    found = [tmp_path / "one.conf", tmp_path / "two.conf", tmp_path / "conf.d/three.conf"]
    found[2].parent.mkdir()
    found[0].write_text("[api]\nthreads = 77\nmax_uploads = 5\n")
    found[1].write_text(f"[DEFAULT]\nlog_dir = {tmp_path}\n[api]\nmax_uploads = 6\n")
    found[2].write_text("[api]\nmax_limit = 9\n")
    return found


def test_files_and_folder_of_the_environment(files: list[pathlib.Path]) -> None:
    several = os.pathsep.join(map(str, files[:2]))
    found = loaded(OS_CIMING_CONFIG_FILES=several, OS_CIMING_CONFIG_DIR=str(files[2].parent))
    assert found == "77 6 9 ciming-api.log"


def test_the_environment_goes_over_its_files(files: list[pathlib.Path]) -> None:
    found = loaded(OS_CIMING_CONFIG_FILES=str(files[0]), OS_API__MAX_UPLOADS="7")
    assert found == "77 7 1000 None"
