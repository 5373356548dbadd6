# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS, started once; each test finds it without faults and with its own settings."""

from collections.abc import Iterator

import pytest

from tests.sandbox import aws


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.StandIn]:
    with aws.start(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def standin(_running: aws.StandIn) -> aws.StandIn:
    _running.reset()
    _running.settings(completion_seconds=0, image_seconds=0, copy_seconds=0, import_seconds=0)
    return _running
