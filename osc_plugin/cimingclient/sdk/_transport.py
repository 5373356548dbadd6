# SPDX-License-Identifier: Apache-2.0
"""Hears an answer that comes before the whole body was sent, over TLS too.

A service may refuse an upload at once and hang up. Sending fails then, but the answer is there to
be read: urllib3 does so after a BrokenPipeError, which is what it gets over plain HTTP.
"""

import ssl
from typing import Any

from keystoneauth1 import session
from urllib3 import connection, connectionpool


class _Connection(connection.HTTPSConnection):
    def send(self, data: Any) -> None:
        try:
            super().send(data)
        except ssl.SSLEOFError as exc:
            raise BrokenPipeError(str(exc)) from exc


class _Pool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _Connection


class Adapter(session.TCPKeepAliveAdapter):
    """keystoneauth's own, with that difference."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        classes = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {**classes, "https": _Pool}


def mount(on: session.Session, endpoint: str) -> None:
    """Use the adapter for this endpoint. It is enough to do it once, and harmless to do it again."""
    if not isinstance(on.session.get_adapter(endpoint), Adapter):
        on.session.mount(endpoint, Adapter())
