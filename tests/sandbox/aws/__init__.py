# SPDX-License-Identifier: Apache-2.0
"""A strict stand-in of AWS on loopback, for unmodified boto3."""

from tests.sandbox.aws.starter import StandIn, start, stop

__all__ = ["StandIn", "start", "stop"]
