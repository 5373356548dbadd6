# SPDX-License-Identifier: Apache-2.0
import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from cimingclient.osc import common

FIELDS = ("id", "name", "provider", "region", "visibility", "zone")


class ListCloud(common.Lister):
    """List the clouds that images can be brought into"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--long", action="store_true", help="List additional fields")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        headers: tuple[str, ...] = ("ID", "Name", "Provider", "Region")
        if parsed_args.long:
            headers += ("Visibility", "Zone")
        fields = FIELDS[: len(headers)]
        return headers, (common.row(cloud, fields, {}) for cloud in self.client.clouds())


class ShowCloud(common.ShowOne):
    """Show one cloud"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("cloud", metavar="<cloud>", help="Cloud to show (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        found = common.found(self.client.find_cloud, parsed_args.cloud)
        cloud = self.client.get_cloud(found.id)
        return FIELDS, common.row(cloud, FIELDS, {})
