# SPDX-License-Identifier: Apache-2.0
"""How a provider is found."""

import sys

import pytest

from ciming import exceptions
from ciming.providers import base


def test_provider_without_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its extra is not installed: whoever runs the service is told which."""
    base.load.cache_clear()
    monkeypatch.setitem(sys.modules, "ciming.providers.gcp.provider", None)
    with pytest.raises(exceptions.ProviderError, match=r"ciming\[gcp\]") as refused:
        base.load("gcp")
    assert refused.value.code == "provider.not_installed"
    monkeypatch.undo()
    assert base.load("gcp").__name__ == "GCP"
