# SPDX-License-Identifier: Apache-2.0
"""The suites for clouds themselves, tried where stand-ins are: of the contract a part, known from here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.contract import on_aws
from tests.sandbox import aws, gcp, processes

ROOT = pathlib.Path(__file__).parents[2]
PART = "arrives or marks or strangers or describe or refusal or lists or download"
PREFIX = "CIMING_LIVE_"
ALL = bool(os.environ.get("CIMING_TEST_ALL"))


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
@pytest.mark.skipif(not ALL, reason="with CIMING_TEST_ALL")
def test_where_that_of_aws_is(tmp_path: pathlib.Path) -> None:
    with aws.start(tmp_path / "aws") as standin:
        said = {f"{PREFIX}AWS_REGION": on_aws.REGION, f"{PREFIX}AWS_ENDPOINT_URL": standin.url}
        for who, account in (("", "owner"), ("READER_", "reader"), ("STRANGER_", "stranger")):
            known = standin.accounts[account]
            said[f"{PREFIX}AWS_{who}ACCESS_KEY_ID"] = known["access_key"]
            said[f"{PREFIX}AWS_{who}SECRET_ACCESS_KEY"] = known["secret_key"]
        standin.client("s3").create_bucket(Bucket="live")
        said[f"{PREFIX}AWS_BUCKET"] = "live"
        told = run("-k", f"AWS and ({PART}) or Import and (arrives or strangers or refusal)", **said)
        assert "skipped" not in told and " passed" in told
        stranger = standin.accounts["stranger"]["account_id"]
        assert {image["owner"] for image in standin.images()} <= {stranger}


@pytest.mark.timeout(400)
@pytest.mark.skipif(not ALL, reason="with CIMING_TEST_ALL")
def test_where_that_of_google_is(tmp_path: pathlib.Path) -> None:
    with gcp.start(tmp_path / "gcp") as standin:
        said = {f"{PREFIX}GCP_ENDPOINT_URL": standin.url}
        for who, account in (("", "owner"), ("READER_", "reader"), ("STRANGER_", "stranger")):
            file = tmp_path / f"{account}.json"
            file.write_text(json.dumps(standin.accounts[account]))
            said[f"{PREFIX}GCP_{who}KEY"] = str(file)
        for who, account in (("", "owner"), ("STRANGER_", "stranger")):
            standin.make_bucket(f"live-{account}", account)
            said[f"{PREFIX}GCP_{who}BUCKET"] = f"live-{account}"
        told = run("-k", "GCP and (arrives or strangers or refusal)", **said)
        assert "skipped" not in told and " passed" in told
        stranger = standin.accounts["stranger"]["project_id"]
        assert {image["project"] for image in standin.images()} <= {stranger}
        assert not standin.objects("live-owner")


def test_without_keys_they_are_skipped() -> None:
    told = run()
    assert " skipped" in told and "passed" not in told
    assert f"needs {PREFIX}AWS_REGION" in told and f"needs {PREFIX}GCP_BUCKET" in told
