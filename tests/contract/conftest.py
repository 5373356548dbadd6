# SPDX-License-Identifier: Apache-2.0
"""The kinds of cloud that the contract holds for."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

from ciming import staging
from ciming.providers import base
from ciming.providers.aws import snapshots
from tests.contract import on_aws, on_gcp, on_openstack, subjects
from tests.sandbox import sandbox

SUBJECTS: tuple[type[subjects.Subject], ...] = (on_openstack.OpenStack, on_aws.AWS, on_gcp.GCP)
"""One of each provider,"""
OTHERS: tuple[type[subjects.Subject], ...] = (
    on_openstack.Registered,
    on_aws.Import,
    on_aws.Role,
    on_gcp.Kept,
    on_gcp.Shared,
)
"""and those that are set up in another way."""
ROWS = [*SUBJECTS, *(pytest.param(kind, marks=pytest.mark.with_all) for kind in OTHERS)]


@pytest.fixture(scope="module", params=ROWS, ids=lambda kind: kind.__name__)
def subject(request: pytest.FixtureRequest, cloud: sandbox.Sandbox) -> Iterator[subjects.Subject]:
    with contextlib.ExitStack() as stack:
        yield request.param(cloud, stack)


@pytest.fixture(autouse=True)
def known_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is begun anew after it was deleted waits until the stand-in, too, must have heard of it."""
    monkeypatch.setattr(snapshots, "KNOWN_SECONDS", 6.0)


@pytest.fixture
def provider(subject: subjects.Subject) -> base.Provider:
    return subject.provider()


@pytest.fixture(scope="session")
def data() -> bytes:
    """A few blocks, and a bit."""
    return os.urandom(3 * staging.BLOCK + 16) + b"."


@pytest.fixture
def staged(tmp_path: pathlib.Path, data: bytes) -> staging.StagedFile:
    return subjects.stage(tmp_path / "staged", data)


@pytest.fixture
def spec() -> base.ImageSpec:
    return subjects.new_spec()


@pytest.fixture
def key(subject: subjects.Subject) -> Iterator[str]:
    """The id of a Target; what it made is gone afterwards."""
    made = subjects.new_key()
    yield made
    subject.provider().discard(made)
    assert not subject.refs(made)
