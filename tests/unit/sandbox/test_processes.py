# SPDX-License-Identifier: Apache-2.0
"""Two who look for ports at the same moment do not get the same ones."""

import os
import pathlib
import subprocess
import sys

from tests.sandbox import processes

ROOT = pathlib.Path(__file__).parents[3]
ASK = "import sys; from tests.sandbox import processes; print(processes.free_block(sys.argv[1]), flush=True)"


def test_a_block_is_given_once() -> None:
    """Nobody listens yet: the first one's service is still starting."""
    key = f"once {os.getpid()}"
    blocks = [processes.free_block(key) for _ in range(3)]
    assert len(set(blocks)) == 3
    assert all(processes.free(block) for block in blocks)


def test_not_to_another_process_while_the_first_lives() -> None:
    key = f"another {os.getpid()}"
    mine = processes.free_block(key)
    theirs = int(subprocess.check_output([sys.executable, "-c", ASK, key], cwd=ROOT))
    assert theirs != mine
