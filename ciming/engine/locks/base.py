# SPDX-License-Identifier: Apache-2.0
"""What a coordination service is asked.

A lock's name is a UUID that one engine uses, once. So a name that nobody holds is that of an engine that
is gone, whoever asks.
"""

import abc
import re
import urllib.parse

from ciming import exceptions

MARKER = "ciming-marker"
"""The lock under which a service is given its marker."""
MARKER_SECONDS = 60


class Locks(abc.ABC):
    """A connection to a coordination service, with at most one lock held in it.

    An error of any of its calls means "unknown": neither "held" nor "free".
    """

    marker: str
    """Says which service it is: engines of another one can not be judged here."""
    expiring = True
    """Does the service free the lock of an engine that it hears nothing of?"""

    @abc.abstractmethod
    def hold(self, name: str) -> None:
        """Take the lock of a name, which nobody has.

        :raises ToozError: somebody has it after all
        """

    @abc.abstractmethod
    def is_held(self) -> bool:
        """Ask the service whether we still hold our lock, and renew it where it expires."""

    @abc.abstractmethod
    def is_free(self, name: str) -> bool:
        """Ask the service whether nobody holds the lock of a name. Never ours."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the lock, if we have it, and of the connection."""


def parsed(url: str) -> urllib.parse.SplitResult:
    """A URL in its parts. What is wrong with it is not repeated: it may be the password.

    :raises NotReady: it is none
    """
    try:
        parts = urllib.parse.urlsplit(url)
        usable = re.match(r"[a-z][a-z0-9+.-]*://", url) and parts.port != 0
    except ValueError:      # a port that is no number: the rest of a password with a slash in it
        usable = False
    if not usable:
        raise no_url()
    return parts


def no_url() -> exceptions.NotReady:
    return exceptions.NotReady(
        "[engine] coordination_url is no URL. In a password, write / @ : # % as %2F %40 %3A %23 %25"
    )
