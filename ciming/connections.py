# SPDX-License-Identifier: Apache-2.0
"""HTTP connections that can be ended from another thread: a cloud that hangs must not hold up a cancel.

Those to a cloud that somebody named are made only where the operator lets them go.
"""

import contextlib
import itertools
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import requests
from keystoneauth1 import session as ks_session
from urllib3 import connectionpool
from urllib3 import exceptions as urllib3_exceptions

from ciming import egress

CONNECT_SECONDS = 15.0      # for one address, its TLS handshake included: nobody can end that from outside
MOST_ADDRESSES = 4          # of one name that are tried
LONGEST = 16 * 1024 * 1024      # bytes of an answer from outside that is no image
BLOCK = 64 * 1024


class TooLong(requests.RequestException):
    """An answer is longer than any that is meant well."""


class Clock:
    """Ends what calls of one's own thread go over when their time is up, and no other thread's.

    `mixin` is what all connections have to be.
    """

    def __init__(self) -> None:
        self._used = threading.local()      # what the call of each thread goes over
        self.mixin = _noting_use(self._used)

    @contextlib.contextmanager
    def within(
        self, seconds: float | None, errors: type[Exception], late: Callable[[str], Exception]
    ) -> Iterator[None]:
        """End what is done here when the time is over.

        :param errors: what a call raises that was ended
        :param late: makes of some words what is raised instead
        """
        if seconds is None:
            yield
            return
        over = threading.Event()
        used: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._used.sockets, self._used.late = used, over

        def give_up() -> None:
            over.set()
            end(used)       # and not what others are told over another one

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except errors:
            if not over.is_set():
                raise
        finally:
            timer.cancel()
        if over.is_set():       # also where it looked like the end of the answer
            raise late(f"no whole answer within {seconds:g} s")


class Adapter(ks_session.TCPKeepAliveAdapter):
    """keystoneauth's, which knows its open sockets.

    :param outside: URLs come from outside, so each of them passes the address check. Nor are answers trusted
        to end: each is to be here, whole, within the time that otherwise is the longest without a byte. Of
        those that are read bit by bit that is so for errors and redirects.
    :param cacert: certificates in PEM to be trusted, and no others
    :param size: connections that are kept for the next call
    """

    def __init__(self, *, outside: bool = False, cacert: str | None = None, size: int = 10) -> None:
        self._outside = outside
        self._cacert = cacert
        super().__init__(pool_maxsize=size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._clock = Clock()
        mixins = [noting(self._sockets), self._clock.mixin]
        if self._outside:
            mixins.insert(0, Checked)
        trusting = [_trusting(self._cacert)] if self._cacert else []
        self.poolmanager.pool_classes_by_scheme = {
            "http": pool(connectionpool.HTTPConnectionPool, *mixins),
            "https": pool(connectionpool.HTTPSConnectionPool, *mixins, *trusting),
        }

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Each request, those too that a redirect or a foreign catalog leads to.

        :raises Refused: its URL may not be asked
        """
        kept = (stream, timeout, verify, cert, proxies)
        if not self._outside:
            return super().send(request, *kept)
        egress.check_url(str(request.url))
        is_small = isinstance(request.body, str | bytes | None)      # the bytes of an image take their time
        seconds = timeout if is_small else None
        with self._clock.within(seconds, requests.RequestException, requests.ReadTimeout):
            answer = super().send(request, *kept)
            if not stream or answer.status_code >= 300:     # which is read whole, however it was asked for
                _read(answer)
        return answer

    def hang_up(self) -> None:
        """End all calls that run: they raise an error in their threads."""
        end(self._sockets)


def end(sockets: "weakref.WeakSet[socket.socket]") -> None:
    """Whoever reads or writes them gets an error."""
    for each in list(sockets):
        with contextlib.suppress(OSError):      # closed already
            socket.socket.shutdown(each, socket.SHUT_RDWR)


def _read(answer: requests.Response) -> None:
    """Read all of an answer, as requests would do next, but not more than is good for us.

    :raises RequestException: it is too long, or ends early
    """
    try:
        answer._content = whole(answer.iter_content(BLOCK))
    except TooLong:
        answer.close()
        raise


def whole(blocks: Iterable[bytes], most: int | None = None) -> bytes:
    """An answer, of so many bytes or of LONGEST.

    :raises TooLong: it has more
    """
    most, found = most or LONGEST, bytearray()
    for block in blocks:
        found += block
        if len(found) > most:
            raise TooLong(f"an answer that is longer than {most} bytes")
    return bytes(found)


def pool(kind: Any, *mixins: type) -> Any:
    """A kind of connection pool whose connections are of these kinds, too."""
    connection = type("Connection", (*mixins, kind.ConnectionCls), {})
    return type(kind.__name__, (kind,), {"ConnectionCls": connection})


def noting(sockets: "weakref.WeakSet[socket.socket]") -> type:
    """Connections that are made in bounded time, and note their sockets."""

    class Noting:
        timeout: Any
        sock: socket.socket

        def connect(self) -> None:
            # What urllib3 calls the time to connect is that to send, too: a Cloud may take longer to read.
            said, self.timeout = self.timeout, CONNECT_SECONDS
            patience = said if isinstance(said, int | float) else None
            if patience is not None:
                self.timeout = min(patience, CONNECT_SECONDS)
            try:
                super().connect()   # type: ignore[misc]  # urllib3's
            finally:
                self.timeout = said
            self.sock.settimeout(patience)
            sockets.add(self.sock)

    return Noting


def _noting_use(used: threading.local) -> type:
    """Connections that tell each thread what its call goes over, be it new or kept."""

    class NotingUse:
        sock: socket.socket | None

        def connect(self) -> None:
            super().connect()       # type: ignore[misc]  # urllib3's
            self._note()

        def request(self, *args: Any, **kwargs: Any) -> None:
            self._note()
            super().request(*args, **kwargs)        # type: ignore[misc]

        def _note(self) -> None:
            if self.sock is not None and hasattr(used, "sockets"):
                used.sockets.add(self.sock)
                if used.late.is_set():      # while it was made
                    end(used.sockets)

    return NotingUse


class Checked:
    """Connections to an address that was checked.

    Its name stays what the certificate must be for, and what `Host` says.
    """

    _dns_host: str
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        """To the first address that answers, of those that are allowed.

        :raises Refused: none is
        """
        name = self._dns_host
        try:
            return self._to_first(egress.addresses(self.host, self.port))
        except socket.gaierror as error:
            raise urllib3_exceptions.NameResolutionError(
                self.host, self, error      # type: ignore[arg-type]
            ) from None
        finally:
            self._dns_host = name

    def _to_first(self, addresses: Sequence[str]) -> socket.socket:
        *others, last = _of_both_families(addresses)[:MOST_ADDRESSES]
        for self._dns_host in others:
            with contextlib.suppress(urllib3_exceptions.HTTPError):
                return self._to_one()
        self._dns_host = last
        return self._to_one()

    def _to_one(self) -> socket.socket:
        made: socket.socket = super()._new_conn()       # type: ignore[misc]  # urllib3's
        return made


def _of_both_families(addresses: Sequence[str]) -> list[str]:
    """In turn, for one of them may lead nowhere."""
    is_v6 = ":" in addresses[0]
    same, others = ([each for each in addresses if (":" in each) is (is_v6 is own)] for own in (True, False))
    turns = itertools.zip_longest(same, others)
    return [each for turn in turns for each in turn if each is not None]


def _trusting(cacert: str) -> type:
    """Connections that trust these certificates only."""

    class Trusting:
        def connect(self) -> None:
            self.ca_certs, self.ca_cert_dir, self.ca_cert_data = None, None, cacert
            super().connect()       # type: ignore[misc]  # urllib3's

    return Trusting


def equip(session: ks_session.Session, *, outside: bool = False, cacert: str | None = None) -> None:
    """Have hang_up() work on a session.

    :param outside: its URLs come from outside, see Adapter; nothing of this process' environment is used
    :param cacert: see Adapter
    """
    adapter = Adapter(outside=outside, cacert=cacert)
    for scheme in ("http://", "https://"):
        session.session.mount(scheme, adapter)
    if outside:     # no proxy that looks names up itself, no .netrc
        session.session.trust_env = False


def hang_up(session: requests.Session) -> None:
    """End all calls of a session that run, from another thread."""
    for adapter in session.adapters.values():
        if isinstance(adapter, Adapter):
            adapter.hang_up()
