# SPDX-License-Identifier: Apache-2.0
"""The suite for AWS itself, tried where the stand-in is: of the contract a part, which is known from here."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.sandbox import aws, processes

ROOT = pathlib.Path(__file__).parents[2]
PART = "arrives or marks or strangers or describe or refusal or lists or download"
PREFIX = "CIMING_LIVE_AWS_"


def run(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/live", *arguments]
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=processes.environment(PYTHONPATH=path, **environment),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(400)
def test_where_the_standin_is(tmp_path: pathlib.Path) -> None:
    with aws.start(tmp_path / "aws") as standin:
        said = {f"{PREFIX}REGION": "eu-west-1", f"{PREFIX}ENDPOINT_URL": standin.url}
        for who, account in (("", "owner"), ("READER_", "reader"), ("STRANGER_", "stranger")):
            known = standin.accounts[account]
            said[f"{PREFIX}{who}ACCESS_KEY_ID"] = known["access_key"]
            said[f"{PREFIX}{who}SECRET_ACCESS_KEY"] = known["secret_key"]
        told = run("-k", PART, **said)
        assert "skipped" not in told and " passed" in told
        stranger = standin.accounts["stranger"]["account_id"]
        assert {image["owner"] for image in standin.images()} <= {stranger}


def test_without_keys_it_is_skipped() -> None:
    told = run()
    assert " skipped" in told and "passed" not in told and f"needs {PREFIX}REGION" in told
