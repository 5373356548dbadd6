# SPDX-License-Identifier: Apache-2.0
import io

import pytest

from ciming.api import uwsgi


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunks_as_a_file(size: int) -> None:
    chunks = [b"one", b"two", b"three" * 100, b""]
    whole = b"".join(chunks)
    waiting = list(chunks)
    file = uwsgi.ChunkedInput(lambda: waiting.pop(0))
    found = b""
    while block := file.read(size):
        assert len(block) <= size
        found += block
    assert found == whole
    assert file.read(size) == b""       # the end is not asked for again


def test_all_at_once() -> None:
    waiting = [b"one", b"two", b""]
    file = uwsgi.ChunkedInput(lambda: waiting.pop(0))
    assert io.BufferedReader(file).read() == b"onetwo"


def test_a_body_that_is_cut_short_raises() -> None:
    def gone() -> bytes:
        raise OSError("unable to receive chunked part")

    with pytest.raises(OSError, match="chunked"):
        uwsgi.ChunkedInput(gone).read(10)
