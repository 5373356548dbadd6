# SPDX-License-Identifier: Apache-2.0
"""The other end of a `qemu-img convert` that writes to us instead of into a file.

qemu-img can not write a disk into a pipe, but to a network block device, over a socket that it inherits.
What it says there is little: how large is it, then writes in the order of the disk, then the end. Numbers
are big-endian. https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

import socket
import struct
from collections.abc import Callable

GREETING = b"NBDMAGICIHAVEOPT"
FIXED_NEWSTYLE, NO_ZEROES, HAS_FLAGS = 1, 2, 1
OPTION = struct.Struct(">8sII")  # magic, option, length
OPTION_MAGIC = b"IHAVEOPT"
GO = 7
LONGEST_OPTION = 4096
REPLY = struct.Struct(">QIII")  # magic, option, kind, length
REPLY_MAGIC = 0x0003E889045565A9
ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001
EXPORT = struct.Struct(">HQH")  # what it is: 0, size, flags
REQUEST = struct.Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
REQUEST_MAGIC = 0x25609513
WRITE, DISCONNECT = 1, 2
DONE = struct.Struct(">IIQ")  # magic, error, cookie
DONE_MAGIC = 0x67446698

Room = Callable[[int], memoryview]
"""Where the bytes go that come from this offset on: a part of memory, of any length but 0."""


class Garbled(Exception):
    """The other end said something that has no place here, or nothing more."""


def receive(connection: socket.socket, size: int, room: Room) -> None:
    """Be a disk of zeros, until all is written to it.

    :param size: of the disk in bytes
    :raises Garbled: not all has come
    """
    try:
        _greet(connection, size)
        while (request := _request(connection, size)) is not None:
            cookie, offset, length = request
            end = offset + length
            while offset < end:
                offset += _fill(connection, room(offset)[: end - offset])
            connection.sendall(DONE.pack(DONE_MAGIC, 0, cookie))
    except OSError as error:
        raise Garbled(f"the connection broke ({error.strerror})") from None
    finally:
        connection.close()  # or it would wait for an answer


def _greet(connection: socket.socket, size: int) -> None:
    connection.sendall(GREETING + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
    _take(connection, 4)  # flags that say the same
    while True:
        magic, option, length = OPTION.unpack(_take(connection, OPTION.size))
        if magic != OPTION_MAGIC or length > LONGEST_OPTION:
            raise Garbled("no option")
        _take(connection, length)
        if option == GO:
            break
        connection.sendall(REPLY.pack(REPLY_MAGIC, option, UNSUPPORTED, 0))
    about = EXPORT.pack(0, size, HAS_FLAGS)
    connection.sendall(REPLY.pack(REPLY_MAGIC, GO, INFO, len(about)) + about)
    connection.sendall(REPLY.pack(REPLY_MAGIC, GO, ACK, 0))


def _request(connection: socket.socket, size: int) -> tuple[int, int, int] | None:
    """Cookie, offset and length of the next write; None: that was the last."""
    magic, _flags, command, cookie, offset, length = REQUEST.unpack(_take(connection, REQUEST.size))
    if magic != REQUEST_MAGIC or command not in (WRITE, DISCONNECT) or offset + length > size:
        raise Garbled(f"command {command} at {offset}")
    return None if command == DISCONNECT else (cookie, offset, length)


def _take(connection: socket.socket, length: int) -> bytes:
    taken = bytearray(length)
    _fill(connection, memoryview(taken))
    return bytes(taken)


def _fill(connection: socket.socket, place: memoryview) -> int:
    """Fill it all; its length."""
    rest = place
    while rest:
        count = connection.recv_into(rest)
        if not count:
            raise Garbled("the connection ended early")
        rest = rest[count:]
    return len(place)
