# SPDX-License-Identifier: Apache-2.0
"""ciming-status upgrade check: is this installation ready for this release?"""

import sys

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from ciming import cmd, config


class Checks(upgradecheck.UpgradeCommands):
    """The checks, in the order they are shown."""

    def _schema(self) -> upgradecheck.Result:
        from ciming.db import session

        try:
            current = session.schema_is_current()
        except cmd.NOT_READY as error:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, cmd.in_one_line(error))
        if current:
            return upgradecheck.Result(upgradecheck.Code.SUCCESS)
        return upgradecheck.Result(
            upgradecheck.Code.FAILURE, "The schema is behind. Run: ciming-manage db sync"
        )

    _upgrade_checks = (("Database schema", _schema),)


def main() -> int:
    config.register()
    with cmd.one_clear_line():
        return int(upgradecheck.main(cfg.CONF, "ciming", Checks(), sys.argv[1:]))
