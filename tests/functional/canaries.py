# SPDX-License-Identifier: Apache-2.0
"""Canaries: secrets that are planted to be found wherever one of them comes to rest, and the search."""

import base64
import contextlib
import gzip
import http.server
import json
import os
import pathlib
import re
import secrets
import signal
import sqlite3
import subprocess
import threading
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import amqp
import requests
import sqlalchemy as sa

from tests.functional import faulty
from tests.person import Person
from tests.sandbox import ciming, distributed, processes, servers

LONGEST = 64 << 20      # bytes that are unpacked of one compressed member
DEPTH = 3               # how deep a compressed member may be within others
PACKED = (b"\x1f\x8b\x08", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")       # gzip, zlib
SHORTEST = 12           # characters of what is no accident
LOOK_SECONDS = 0.05
OURS = "the password of a service user"
TRACE = "amq.rabbitmq.trace"
# Tokens of Keystone, whoever made them, by how they begin; in base64 at each alignment, and in hex.
IN_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{66,}")
TOKENS = {
    b"gAAAAA": re.compile(rb"[A-Za-z0-9_-]{50,}"),
    **dict.fromkeys((b"Z0FBQUFB", b"dBQUFBQ", b"nQUFBQU"), IN_BASE64),
    b"67414141414": re.compile(rb"[0-9a-fA-F]{100,}"),
}

# With --debug, openstackclient itself shows the login that its user has in a file, whatever the command is.
CLOUDS_YAML = re.compile(r"^(auth_config_hook\(\)|cloud cfg): .*$", re.MULTILINE)


class Hit(NamedTuple):
    """What was found where."""

    what: str
    where: str


def _in_base64(text: bytes) -> Iterator[bytes]:
    """What is always the same of it, wherever in a longer text it stands."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            whole = encode(b"\0" * before + text)
            first = -(-before * 8 // 6)         # characters that have bits of what stands before
            yield whole[first : (before + len(text)) * 8 // 6]


# What Google gives a token for: signed, and good for an hour. Its header, as Google's library has it.
JWT = b"eyJ0eXAiOiAiSldUIiwg"
TOKENS |= {
    JWT: re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{100,}"),
    **dict.fromkeys((JWT.hex().encode(), JWT.hex().upper().encode()), re.compile(rb"[0-9a-fA-F]{400,}")),
    **dict.fromkeys(_in_base64(JWT), re.compile(rb"[A-Za-z0-9+/_-]{300,}")),
}

ENCODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "base64": base64.b64encode,
    "base64, one on": lambda text: base64.b64encode(b"-" + text),
    "base64, two on": lambda text: base64.b64encode(b"--" + text),
    "urlsafe base64": base64.urlsafe_b64encode,
    "urlsafe base64, one on": lambda text: base64.urlsafe_b64encode(b"\xff" + text),
    "urlsafe base64, two on": lambda text: base64.urlsafe_b64encode(b"\xff\xfe" + text),
    "hex": lambda text: text.hex().encode(),
    "HEX": lambda text: text.hex().upper().encode(),
    "JSON": lambda text: json.dumps({"a": text.decode()}).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps([text.decode()])).encode(),
    "URL": lambda text: urllib.parse.quote_plus(text).encode(),
    "Python": lambda text: repr(text).encode(),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "gzip in gzip": lambda text: gzip.compress(b"." * 99 + gzip.compress(text)),
}
"""In which a secret may come to rest."""


class Canaries:
    """Secrets with a stem of their own, which no escaping changes: letters and digits amid signs."""

    def __init__(self) -> None:
        self._stem = secrets.token_hex(9)
        self._known: dict[bytes, str] = {}
        stem = self._stem.encode()
        forms = {stem, *_in_base64(stem), stem.hex().encode(), stem.hex().upper().encode()}
        self._forms = sorted(forms)
        self._planted: dict[bytes, bytes] = {}      # numbers, by forms

    def new(self, what: str, *, signs: bool = True) -> str:
        """A secret; with signs that texts are escaped for, unless it can have none."""
        number = f"{len(self._known):02d}"
        self._known[number.encode()] = what
        return f'x"{self._stem}{number}\\/+&=% ü' if signs else f"x{self._stem}{number}x"

    def plant(self, what: str, *texts: str) -> None:
        """Have the lines of a secret found that others made: by what no escaping changes in them.

        One of them is found in all encodings, which is enough for the whole.
        """
        number = f"planted {len(self._known)}".encode()
        self._known[number] = what
        parts = [max(re.findall(rb"[A-Za-z0-9]+", text.encode()), key=len) for text in texts]
        parts = sorted((part for part in parts if len(part) >= SHORTEST), key=len)
        whole = {*_in_base64(parts[-1]), parts[-1].hex().encode(), parts[-1].hex().upper().encode()}
        self._planted |= dict.fromkeys((*parts, *whole), number)

    def numbers(self, data: bytes) -> set[bytes]:
        """Which of them are in there, uncompressed; of one that is encoded that is not known."""
        known = {self._stem.encode(): 2}
        planted = {number for form, number in self._planted.items() if form in data}
        return planted | {
            data[at : at + known.get(form, 0)] for form in self._forms for at in _ends(data, form)
        }

    def names(self, numbers: set[bytes]) -> list[str]:
        return sorted(map(self._name, numbers))

    def within(self, data: bytes, where: str, depth: int = DEPTH) -> Iterator[Hit]:
        """What is in there of them, and of tokens of Keystone's."""
        for name in sorted(set(map(self._name, self.numbers(data)))):
            at = min(data.find(form) % (len(data) + 1) for form in (*self._forms, *self._planted))
            print(f"{name}, {where}: {data[max(0, at - 500) : at + 200]!r}")    # for who has to find out why
            yield Hit(name, where)
        if has_token(data):
            yield Hit("a token", where)
        if depth:
            for start, unpacked in _unpacked(data):
                yield from self.within(unpacked, f"{where}, packed at {start}", depth - 1)

    def _name(self, number: bytes) -> str:
        return self._known.get(number, "a canary")

    def search(self, places: Iterator[tuple[str, bytes]]) -> list[Hit]:
        """All that is found in places: names, and what is there."""
        return [hit for where, data in places for hit in self.within(data, where)]


def _ends(data: bytes, form: bytes) -> Iterator[int]:
    """Where each of its occurrences ends."""
    at = 0
    while (found := data.find(form, at)) >= 0:
        at = found + len(form)
        yield at


def has_token(data: bytes) -> bool:
    return any(rest.match(data, at) for start, rest in TOKENS.items() for at in _ends(data, start))


def _unpacked(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What is compressed in there, and where that begins; nothing where it only looks so."""
    for magic in PACKED:
        kind = zlib.MAX_WBITS | 16 if magic.startswith(b"\x1f") else zlib.MAX_WBITS
        for end in _ends(data, magic):
            part = memoryview(data)[end - len(magic) :]
            unpack, whole = zlib.decompressobj(kind), b""
            with contextlib.suppress(zlib.error):
                whole = unpack.decompress(part[:4096], 1 << 16)
                whole += unpack.decompress(unpack.unconsumed_tail + bytes(part[4096:]), LONGEST)
            if whole:
                yield end - len(magic), whole


# Places


def files(*folders: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """All files below folders, and their names."""
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):      # gone meanwhile, or a socket
                yield f"the name of {path}", os.fsencode(path.relative_to(folder))
                if path.is_file():
                    yield str(path), path.read_bytes()


def dump(url: str) -> Iterator[tuple[str, bytes]]:
    """All rows of a database, TaskFlow's too, as the database's own tool writes them."""
    at = sa.engine.make_url(url)
    if at.drivername.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(f"file:{at.database}?mode=ro", uri=True)) as connection:
            yield "the dump of SQLite", "\n".join(connection.iterdump()).encode()
        return
    place = [f"--host={at.host}", f"--port={at.port}"]
    if at.drivername.startswith("postgresql"):
        command = ["pg_dump", *place, f"--username={at.username}", str(at.database)]
    else:
        command = ["mariadb-dump", "--no-defaults", *place, f"--user={at.username}", str(at.database)]
    password = {"PGPASSWORD": str(at.password), "MYSQL_PWD": str(at.password)}
    done = subprocess.run(
        command, env=processes.environment(**password), capture_output=True, check=True, timeout=120
    )
    yield f"the dump of {at.drivername}", done.stdout


def at_rest(service: ciming.Ciming) -> Iterator[tuple[str, bytes]]:
    """Database, broker, staging, logs, configuration, lock files: all that the service has or writes."""
    yield from files(service.folder, *service.servers)
    yield from dump(service.database_url)


class Tap:
    """What passes through a broker, all copied by itself: knocks, calls, answers, notifications."""

    def __init__(self, broker: servers.RabbitMQ) -> None:
        self._broker = broker
        self._seen: list[bytes] = []
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        self._broker.control("trace_on")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._bound = threading.Event()
        self._thread.start()
        assert self._bound.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._broker.control("trace_off")

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """With their headers."""
        for number, seen in enumerate(list(self._seen)):
            yield f"message {number}", seen

    def _listen(self) -> None:
        address = f"{processes.HOST}:{self._broker.port}"
        with amqp.Connection(address, servers.USER, self._broker.password) as connection:
            channel = connection.channel()
            queue = channel.queue_declare(exclusive=True).queue
            channel.queue_bind(queue, TRACE, "#")
            channel.basic_consume(queue, no_ack=True, callback=self._heard)
            self._bound.set()
            while not self._leaving.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)

    def _heard(self, message: Any) -> None:
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
        self._seen.append(repr(message.headers).encode() + b"\n" + body)


class Mirror:
    """Stands in front of an OpenStack, and notes which canaries log in there.

    In other places than `/v3` its Keystone or its Glance says again what it was told: see REPEATS.
    """

    def __init__(self, canaries: Canaries, keystone: str, glance: str) -> None:
        self._canaries = canaries
        self._keystone, self._glance = keystone, glance
        self._server = faulty.Server(0, self._handler())
        self.url = f"http://{processes.HOST}:{self._server.server_port}"
        self.told: set[bytes] = set()
        self.repeated: Counter[str] = Counter()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()

    def place(self, who: str, how: str) -> str:
        """The auth URL where `keystone` or `glance` repeats what it was told."""
        assert how in REPEATS
        return f"{self.url}/{who}/{how}"

    def _handler(mirror) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                mirror.asked(self, body)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def asked(self, client: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        self.told |= self._canaries.numbers(body)
        found = re.fullmatch(r"/(keystone|glance)/(\w+)(.*)", client.path)
        who, how, path = found.groups() if found else ("", "", client.path)
        if who != "keystone" and path.startswith("/v3"):
            glance = f"{self.url}/glance/{how}/image" if how else self._glance
            self._pass_on(client, self._keystone, path, body, glance)
        elif who == "glance" and path in ("/image", "/image/", "/image/versions"):
            glance = f"{self.url}/glance/{how}/image"
            self._pass_on(client, self._glance, path.removeprefix("/image"), body, glance)
        else:
            self.repeated[f"{who}/{how}"] += 1
            client.close_connection = True
            heard = body.decode(errors="replace") or str(client.headers["X-Auth-Token"])
            client.wfile.write(REPEATS[how](heard))

    def _pass_on(
        self,
        client: http.server.BaseHTTPRequestHandler,
        service: str,
        path: str,
        body: bytes,
        glance: str,
    ) -> None:
        ours = (*faulty.NOT_OURS, "host")
        kept = {name: said for name, said in client.headers.items() if name.lower() not in ours}
        answer = requests.request(client.command, service + path, headers=kept, data=body, timeout=30)
        text = answer.content.replace(self._glance.encode(), glance.encode())
        client.send_response(answer.status_code)
        for name in ("Content-Type", "X-Subject-Token"):
            if name in answer.headers:
                client.send_header(name, answer.headers[name])
        client.send_header("Content-Length", str(len(text)))
        client.end_headers()
        client.wfile.write(text)


def _in_body(status: str, heard: str) -> bytes:
    said = {"code": int(status[:3]), "title": status[4:], "message": f"I do not understand {heard}"}
    body = json.dumps({"error": said})
    headers = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    return f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}".encode()


REPEATS: Mapping[str, Callable[[str], bytes]] = {
    "body": lambda heard: _in_body("400 Bad Request", heard),
    "refusal": lambda heard: _in_body("401 Unauthorized", heard),
    "reason": lambda heard: f"HTTP/1.1 400 {heard}\r\nContent-Length: 0\r\n\r\n".encode(),
    "header": lambda heard: f"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n{heard}\r\n\r\n".encode(),
    "line": lambda heard: f"What is {heard}?\r\n\r\n".encode(),
    "location": lambda heard: (
        f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://{processes.HOST}:1/"
        f"{urllib.parse.quote(heard)}\r\n\r\n"
    ).encode(),
}
"""How a service may say again what it heard: answers."""


class Answers(Person):
    """A user who writes down whatever the service and its command say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heard: list[tuple[str, bytes]] = []

    def call(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        answer = super().call(method, path, **kwargs)
        said = json.dumps([answer.status_code, answer.reason, *answer.headers.items()]).encode()
        self.heard.append((f"the answer to {method} {path.partition('?')[0]}", said + b"\n" + answer.content))
        return answer

    def openstack(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        run = super().openstack(*arguments, ok=ok)
        said = CLOUDS_YAML.sub("", f"{run.stdout}\n{run.stderr}")
        self.heard.append((f"what {arguments[:3]} says", said.encode()))
        return run


class Processes:
    """What is seen of processes from outside: of all their arguments, of the service's the environment.

    And whether one may leave a core file: of the service's when `settled` was called, of qemu-img always.
    """

    def __init__(self, service: ciming.Ciming) -> None:
        self._service = service
        self._seen: set[tuple[str, bytes]] = set()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.with_core: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    def seen(self) -> Iterator[tuple[str, bytes]]:
        yield from list(self._seen)

    def settled(self) -> int:
        """Look at all processes of the service, which has started; how many there are."""
        mine = self._mine(_processes())
        for pid in mine:
            self._look_at_core(pid)
        return len(mine)

    def crash(self) -> None:
        """Have all of the service end as one does that reads where nothing is."""
        for pid in self._mine(_processes()):
            os.kill(pid, signal.SIGSEGV)

    def _watch(self) -> None:
        while not self._leaving.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """At all that there are now."""
        there = _processes()
        mine = self._mine(there)
        for pid in there:
            arguments = _of(pid, "cmdline")
            self._seen.add(("the arguments of a process", arguments))
            if pid in mine:
                self._seen.add(("the environment of the service", _of(pid, "environ")))
                name = arguments.partition(b"\0")[0].decode()
                if name.endswith("qemu-img"):
                    self._look_at_core(pid)

    def _look_at_core(self, pid: int) -> None:
        limit = re.search(rb"Max core file size +(\w+) +(\w+)", _of(pid, "limits"))
        if limit and limit.groups() != (b"0", b"0"):
            self.with_core.add(_of(pid, "cmdline").replace(b"\0", b" ").decode())

    def _mine(self, there: Mapping[int, int]) -> set[int]:
        found = set(self._service.pids)
        while more := {pid for pid, parent in there.items() if parent in found} - found:
            found |= more
        return found


def _processes() -> dict[int, int]:
    """Ids of all, and of their parents."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def _of(pid: int, what: str) -> bytes:
    """Nothing of one that is gone, or that does not let us look."""
    try:
        return pathlib.Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def brokers(service: ciming.Ciming) -> Sequence[servers.RabbitMQ]:
    return [service.broker] if isinstance(service, distributed.Distributed) else []
