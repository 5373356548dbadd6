# SPDX-License-Identifier: Apache-2.0
"""HTTP connections that can be ended from another thread: a cloud that hangs must not hold up a cancel."""

import contextlib
import socket
import weakref
from typing import Any

from keystoneauth1 import session as ks_session
from urllib3 import connectionpool


class Adapter(ks_session.TCPKeepAliveAdapter):
    """keystoneauth's, which knows its open sockets."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.poolmanager.pool_classes_by_scheme = {
            "http": _noting(connectionpool.HTTPConnectionPool, self._sockets),
            "https": _noting(connectionpool.HTTPSConnectionPool, self._sockets),
        }

    def hang_up(self) -> None:
        """End all calls that run: they raise an error in their threads."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):      # closed already
                socket.socket.shutdown(each, socket.SHUT_RDWR)


def _noting(pool: Any, sockets: "weakref.WeakSet[socket.socket]") -> Any:
    """A kind of connection pool whose connections note their sockets."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def equip(session: ks_session.Session) -> None:
    """Have hang_up() work on a session."""
    adapter = Adapter()
    for scheme in ("http://", "https://"):
        session.session.mount(scheme, adapter)


def hang_up(session: ks_session.Session) -> None:
    """End all calls of a session that run, from another thread."""
    for adapter in session.session.adapters.values():
        if isinstance(adapter, Adapter):
            adapter.hang_up()
