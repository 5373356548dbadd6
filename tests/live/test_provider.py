# SPDX-License-Identifier: Apache-2.0
"""The contract, once more."""

from tests.contract.test_provider import *  # noqa: F403,H303
