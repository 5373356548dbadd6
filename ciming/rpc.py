# SPDX-License-Identifier: Apache-2.0
"""The door between api and engine: a knock, never the truth.

The API commits rows, then knocks; an engine that misses the knock finds the rows by its poll.
"""

import functools
from collections.abc import Callable
from typing import Any

import oslo_messaging as messaging
from oslo_config import cfg
from oslo_log import log

LOG = log.getLogger(__name__)
TOPIC = "ciming-engine"
_url: str | None = None     # None: [DEFAULT] transport_url


@functools.cache
def transport() -> Any:
    """The process's way to the other side; call it after the fork."""
    return messaging.get_rpc_transport(cfg.CONF, url=_url)


def stay_in_process() -> None:
    """API and engine are threads of one process: no broker."""
    global _url
    _url = "fake://"


def knock(job_id: str) -> None:
    """Tell the engines that there may be work. A lost knock costs one poll interval."""
    try:
        client = messaging.get_rpc_client(transport(), messaging.Target(topic=TOPIC))
        client.cast({}, "knock", job_id=job_id)
    except messaging.MessagingException as error:
        LOG.warning("Could not knock for Job %s, the engines' poll will find it: %s", job_id, error)


class _Endpoint:
    def __init__(self, on_knock: Callable[[str], None]) -> None:
        self._on_knock = on_knock

    def knock(self, _context: object, job_id: str) -> None:
        self._on_knock(job_id)


def serve(host: str, on_knock: Callable[[str], None]) -> Any:
    """Start to listen for knocks as `host`; stop(), then wait(), end it."""
    server = messaging.get_rpc_server(
        transport(), messaging.Target(topic=TOPIC, server=host), [_Endpoint(on_knock)]
    )
    server.start()
    return server
