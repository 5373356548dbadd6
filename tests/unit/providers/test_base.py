# SPDX-License-Identifier: Apache-2.0
"""How a provider is found."""

import sys

import pytest

from ciming import exceptions
from ciming.providers import base


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T00:00:01", 1000),
        ("1970-01-01T01:00:01+01:00", 1000),
        ("9999-12-31T23:59:59-14:00", None),    # which no calendar has in UTC
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_time_that_a_cloud_says(said: str | None, found: int | None) -> None:
    assert base.milliseconds(said) == found


def test_provider_without_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its extra is not installed: whoever runs the service is told which."""
    base.load.cache_clear()
    monkeypatch.setitem(sys.modules, "ciming.providers.gcp.provider", None)
    with pytest.raises(exceptions.ProviderError, match=r"ciming\[gcp\]") as refused:
        base.load("gcp")
    assert refused.value.code == "provider.not_installed"
    monkeypatch.undo()
    assert base.load("gcp").__name__ == "GCP"
