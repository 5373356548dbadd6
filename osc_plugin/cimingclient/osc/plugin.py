# SPDX-License-Identifier: Apache-2.0
"""What openstackclient asks of a plugin."""

import argparse
from typing import Any

from osc_lib import utils

API_NAME = "multicloud"
API_VERSION_OPTION = "os_multicloud_api_version"
API_VERSIONS = ("1",)
DEFAULT_API_VERSION = "1"


def make_client(instance: Any) -> Any:
    """The service proxy on the connection that the client manager has."""
    # Here and not above: this module is imported by every `openstack` command.
    from cimingclient import sdk

    return sdk.add_to(instance.sdk_connection).multicloud


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--os-multicloud-api-version",
        metavar="<multicloud-api-version>",
        default=utils.env("OS_MULTICLOUD_API_VERSION"),
        help="Multicloud API version, default: 1 (Env: OS_MULTICLOUD_API_VERSION)",
    )
    return parser
