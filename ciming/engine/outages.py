# SPDX-License-Identifier: Apache-2.0
"""What is asked again and again is said to be away once, and once that it is back."""

from oslo_log import log

LOG = log.getLogger(__name__)


class Outage:
    """Of one thing that is asked at intervals, by any thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = False

    def tell(self, error: BaseException) -> None:
        """It could not be asked."""
        if not self._told:
            self._told = True
            LOG.warning("%s can not be asked, will try again: %s", self._what, error or type(error).__name__)

    def over(self) -> None:
        """It answered."""
        if self._told:
            self._told = False
            LOG.info("%s answers again", self._what)
