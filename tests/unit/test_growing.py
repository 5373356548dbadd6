# SPDX-License-Identifier: Apache-2.0
"""A file that grows, and those who follow it."""

import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import pytest

from ciming import exceptions, growing, staging

BLOCK = staging.BLOCK
DATA = os.urandom(3 * BLOCK + 7)
KNOWN = staging.StagedFile("", "raw", len(DATA), 0, {})


def alive() -> None:
    pass


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "upload.1"
    made.write_bytes(DATA)
    return made


@pytest.fixture
def grows(file: pathlib.Path) -> Iterator[growing.GrowingFile]:
    """Nothing of it was looked at so far."""
    made = growing.GrowingFile()
    made.begin(file.open("rb", buffering=0))
    yield made
    made.close()


def whole(file: pathlib.Path, disk_format: str = "raw") -> staging.StagedFile:
    return staging.StagedFile(str(file), disk_format, len(DATA), len(DATA), {"sha512": "5"})


def follow(grows: growing.GrowingFile, patience: float = 60) -> bytes:
    """All that a follower gets."""
    epoch, got = grows.epoch, b""
    while len(got) < grows.size:
        block = grows.read(len(got), epoch)
        if not block:
            grows.await_next(len(got), epoch, alive, patience)
        got += block
    return got


def test_no_byte_before_it_was_looked_at(grows: growing.GrowingFile) -> None:
    grows.advance(0, KNOWN)
    assert grows.read(0, 0) == b""
    grows.advance(BLOCK - 1, None)
    assert grows.read(0, 0) == b""
    grows.advance(BLOCK, None)
    assert grows.read(0, 0) == DATA[:BLOCK]
    assert grows.read(BLOCK, 0) == b""


def test_the_last_block_is_held_back(grows: growing.GrowingFile, file: pathlib.Path) -> None:
    grows.advance(len(DATA), KNOWN)
    assert grows.read(2 * BLOCK, 0) == DATA[2 * BLOCK : 3 * BLOCK]
    assert grows.read(3 * BLOCK, 0) == b""
    grows.finish(whole(file))
    assert grows.read(3 * BLOCK, 0) == DATA[3 * BLOCK :]


def test_of_whole_blocks_too_the_last_is_held_back() -> None:
    grows = growing.GrowingFile()
    grows.advance(2 * BLOCK, staging.StagedFile("", "raw", 2 * BLOCK, 0, {}))
    assert grows._may_read(0)
    assert not grows._may_read(BLOCK)


def test_many_follow(grows: growing.GrowingFile, file: pathlib.Path) -> None:
    grows.advance(0, KNOWN)
    with futures.ThreadPoolExecutor(5) as pool:
        following = [pool.submit(follow, grows) for _ in range(5)]
        for there in range(BLOCK, len(DATA), BLOCK):
            grows.advance(there, None)
        assert not any(each.done() for each in following)
        grows.finish(whole(file))
        assert all(each.result(10) == DATA for each in following)
    assert grows.digest("sha512") == "5"


@pytest.mark.parametrize("error", [exceptions.ImageRejected("bad"), exceptions.Interrupted("stop")])
def test_those_who_wait_hear_that_it_failed(grows: growing.GrowingFile, error: BaseException) -> None:
    grows.advance(BLOCK, KNOWN)
    with futures.ThreadPoolExecutor(3) as pool:
        waiting: list[futures.Future[object]] = [
            pool.submit(follow, grows),
            pool.submit(grows.await_whole, alive),
            pool.submit(growing.GrowingFile().await_known, grows.check),
        ]
        grows.fail(error)
        assert all(each.exception(10) is error for each in waiting)


def test_what_is_fine_does_not_fail_any_more(grows: growing.GrowingFile, file: pathlib.Path) -> None:
    grows.finish(whole(file))
    grows.fail(exceptions.ImageRejected("too late"))
    grows.check()
    assert follow(grows) == DATA


def test_who_waits_is_asked_whether_to_go_on(grows: growing.GrowingFile) -> None:
    def dead() -> None:
        raise exceptions.Cancelled("no")

    with pytest.raises(exceptions.Cancelled):
        grows.await_known(dead)


def test_patience_ends(grows: growing.GrowingFile) -> None:
    grows.advance(BLOCK, KNOWN)
    began = time.monotonic()
    with pytest.raises(growing.Stalled):
        follow(grows, patience=0.1)
    assert time.monotonic() - began < 30


def test_other_bytes_make_void_what_was_read(grows: growing.GrowingFile, file: pathlib.Path) -> None:
    grows.advance(2 * BLOCK, KNOWN)
    epoch = grows.epoch
    assert grows.read(0, epoch)
    with file.open("rb", buffering=0) as other:
        grows.begin(other)
        with pytest.raises(growing.Stalled):
            grows.read(BLOCK, epoch)
        grows.advance(2 * BLOCK, KNOWN)
        assert grows.read(0, grows.epoch) == DATA[:BLOCK]


def test_who_waits_hears_that_other_bytes_come(grows: growing.GrowingFile, file: pathlib.Path) -> None:
    """Size and format stay to be had meanwhile: they are asked for at any moment."""
    grows.advance(BLOCK, KNOWN)
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go_on.wait(10)

    with futures.ThreadPoolExecutor(2) as pool, file.open("rb", buffering=0) as other:
        waiting = pool.submit(grows.await_next, BLOCK, grows.epoch, slow, 60)
        assert inside.wait(10)
        grows.begin(other)
        assert (grows.size, grows.disk_format) == (len(DATA), "raw")
        later = pool.submit(grows.await_known, alive)
        go_on.set()
        waiting.result(10)
        with pytest.raises(growing.Stalled):
            grows.read(BLOCK, 0)
        assert not later.done()
        grows.advance(BLOCK, dataclasses.replace(KNOWN, disk_format="qcow2"))
        later.result(10)
        assert grows.disk_format == "qcow2"


def test_another_format_at_the_end_makes_void_what_was_read(
    grows: growing.GrowingFile, file: pathlib.Path
) -> None:
    """A fixed VHD looks raw until its last 512 bytes."""
    grows.advance(2 * BLOCK, KNOWN)
    epoch = grows.epoch
    grows.finish(whole(file, "vhd"))
    with pytest.raises(growing.Stalled):
        grows.read(0, epoch)
    assert grows.disk_format == "vhd"
    assert follow(grows) == DATA


def test_a_file_that_lost_bytes(file: pathlib.Path) -> None:
    grows = growing.GrowingFile()
    file.write_bytes(DATA[: 2 * BLOCK])
    grows.finish(whole(file))
    with pytest.raises(exceptions.ProviderError, match="2097152 bytes instead of"):
        follow(grows)
    grows.close()


def test_one_follower_waits_for_another_without_holding_it_up(grows: growing.GrowingFile) -> None:
    """alive() may take long: it must not be asked with the lock held."""
    grows.advance(BLOCK, KNOWN)
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert go_on.wait(10)

    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(grows.await_next, BLOCK, 0, slow, 60)
        assert inside.wait(10)
        grows.advance(2 * BLOCK, None)      # would hang
        go_on.set()
        waiting.result(10)
