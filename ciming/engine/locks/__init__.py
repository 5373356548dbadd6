# SPDX-License-Identifier: Apache-2.0
"""Where engines hold the locks that show that they live: a class for each kind of coordination service."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from tooz import ToozError

from ciming import exceptions
from ciming.engine.locks import base, expiring, files, sessions

Locks = base.Locks
KINDS: dict[str, Callable[[str, int, Path], Locks]] = {
    "file": files.Files,
    "postgresql": sessions.PostgreSQL,
    sessions.PostgreSQL.driver: sessions.PostgreSQL,
    "mysql": sessions.MariaDB,
    sessions.MariaDB.driver: sessions.MariaDB,
    "etcd3+http": expiring.Etcd,
    "etcd3+https": expiring.Etcd,
    "redis": expiring.Redis,
}
EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "etcd3": "etcd", "redis": "redis"}
SHOWN = ("file", "postgresql", "mysql", "etcd3+http", "etcd3+https", "redis")


def hold(name: str, url: str, ttl: int, memory: Path) -> Locks:
    """Connect to the service of a coordination URL, and take the lock of a name there.

    :param ttl: seconds after which the service frees a lock that was not renewed, where it can
    :param memory: a folder where this host keeps what a service may forget
    :raises NotReady: the URL is of no use, or lacks a driver
    :raises ToozError: the service can not be used
    """
    scheme = check(url)
    try:
        return _hold(name, KINDS[scheme](url, ttl, memory))
    except exceptions.NotReady:
        raise
    except ImportError as error:
        raise exceptions.NotReady(
            f"[engine] coordination_url needs a driver that ciming[{EXTRAS[scheme.partition('+')[0]]}] would "
            f"install: {error}"
        ) from None
    except sa.exc.ArgumentError:        # its text may hold the URL
        raise base.no_url() from None
    except Exception as error:      # each driver has its own; none of their texts holds a password
        said = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
        raise ToozError(f"The service of [engine] coordination_url can not be used: {said}") from None


def check(url: str) -> str:
    """The kind of service that a coordination URL names. Asks no service.

    :raises NotReady: it names none that there is
    """
    scheme = base.parsed(url).scheme
    if scheme not in KINDS:
        kinds = ", ".join(f"{known}:" for known in SHOWN)
        raise exceptions.NotReady(
            f"[engine] coordination_url must begin with one of {kinds} but it begins with {scheme}:"
        )
    return scheme


def _hold(name: str, made: Locks) -> Locks:
    try:
        made.hold(name)
        if not made.is_held():
            raise exceptions.NotReady(
                "[engine] coordination_url names a service that keeps no lock. A database server has to be "
                "reached without a pool of connections between."
            )
    except BaseException:
        made.close()
        raise
    return made
