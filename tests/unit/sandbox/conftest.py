# SPDX-License-Identifier: Apache-2.0
"""The stand-ins, each started once; each test finds them without faults and with its own settings."""

from collections.abc import Iterator

import pytest

from tests.sandbox import aws, gcp


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.StandIn]:
    with aws.start(tmp_path_factory.mktemp("aws")) as running:
        yield running
        log = (running.directory / "log").read_text()
        assert "Traceback" not in log, log


@pytest.fixture
def standin(_running: aws.StandIn) -> aws.StandIn:
    _running.reset()
    _running.settings(completion_seconds=0, image_seconds=0, copy_seconds=0, import_seconds=0)
    return _running


@pytest.fixture(scope="session")
def _running_gcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gcp.StandIn]:
    with gcp.start(tmp_path_factory.mktemp("gcp")) as running:
        yield running
        log = (running.directory / "log").read_text()
        assert "Traceback" not in log, log


@pytest.fixture
def cloud(_running_gcp: gcp.StandIn) -> gcp.StandIn:
    _running_gcp.reset()
    _running_gcp.settings(pending_seconds=0, image_seconds=0, change_seconds=0)
    return _running_gcp
