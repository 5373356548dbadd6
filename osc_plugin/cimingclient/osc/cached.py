# SPDX-License-Identifier: Apache-2.0
"""Lists that can be answered by what was listed before."""

import argparse

from osc_lib import exceptions

from cimingclient.osc import common
from cimingclient.sdk import _kept, _proxy, cache
from cimingclient.sdk import exceptions as sdk_exceptions

Lists = cache.Cache | cache.Keeping | _proxy.Proxy


class Lister(common.Lister):
    """Lists things. It logs in when it asks the service, and not before."""

    auth_required = False

    @property
    def client(self) -> _proxy.Proxy:
        if not self.auth_required:
            self.auth_required = True
            self.app.prepare_to_run_command(self)
        return super().client

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        group = parser.add_mutually_exclusive_group()
        group.add_argument(
            "--cached",
            action="store_true",
            help="Show what was listed before, without a request; how old that is is said",
        )
        group.add_argument(
            "--refresh",
            dest="max_age",
            action="store_const",
            const=0.0,
            help="Ask for all there is, and keep it (filters apply afterwards)",
        )
        group.add_argument(
            "--max-age",
            metavar="<seconds>",
            type=_seconds,
            help="Ask only when what was listed before is older than that",
        )
        return parser

    def lists(self, parsed_args: argparse.Namespace) -> Lists:
        """Where lists come from: they are called as those of the proxy."""
        try:
            store = _kept.Store(_kept.identity(self.app.cloud.config))
        except sdk_exceptions.CacheError as exc:
            if parsed_args.cached:
                raise exceptions.CommandError(f"{exc} To ask the service, leave --cached out.") from exc
            if parsed_args.max_age is not None:
                self.say(str(exc))
            return self.client
        if not parsed_args.cached and parsed_args.max_age is None:
            return cache.Keeping(store, self.client)
        return cache.Cache(store, lambda: self.client, parsed_args.max_age, self.say)

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            return super().run(parsed_args)
        except sdk_exceptions.CacheError as exc:
            raise exceptions.CommandError(f"{exc} To ask the service: --refresh") from exc
        except sdk_exceptions.QueryError as exc:
            raise exceptions.CommandError(str(exc)) from exc


def _seconds(value: str) -> float:
    """An argument that is a number from 0."""
    number = float(value)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} is not a number of seconds")
    return number
