# SPDX-License-Identifier: Apache-2.0
"""What the contract needs, for the clouds of this suite."""

from collections.abc import Callable, Mapping

import pytest

from tests.contract import subjects
from tests.contract.conftest import data, key, provider, spec, staged
from tests.live import on_aws, on_gcp

__all__ = ["data", "key", "provider", "spec", "staged"]


KINDS: Mapping[str, Callable[[], subjects.Subject]] = {
    "AWS": on_aws.AWS,
    "Import": on_aws.Import,
    "GCP": on_gcp.GCP,
}


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest) -> subjects.Subject:
    return KINDS[request.param]()
