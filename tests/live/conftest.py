# SPDX-License-Identifier: Apache-2.0
"""What the contract needs, for the clouds of this suite."""

import pytest

from tests.contract import subjects
from tests.contract.conftest import data, key, provider, spec, staged
from tests.live import on_aws, on_gcp

__all__ = ["data", "key", "provider", "spec", "staged"]


@pytest.fixture(scope="module", params=[on_aws.AWS, on_gcp.GCP], ids=["AWS", "GCP"])
def subject(request: pytest.FixtureRequest) -> subjects.Subject:
    made: subjects.Subject = request.param()
    return made
