# SPDX-License-Identifier: Apache-2.0
"""Every good image is accepted for what it is, every bad one refused for its reason."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ciming import disk_image, exceptions
from ciming.disk_image import qemu_img, structure
from ciming.disk_image.inspector import inspect_file
from ciming.disk_image.reader import Reader
from tests import corpus
from tests.corpus.judge import examine

MIB = 1024 * 1024
QEMU_DRIVERS = {"raw": "raw", "iso": "raw", "vhd": "vpc"}
QEMU_OPTIONS = {"vhd": ",force_size_calc=current_size"}  # the size that VHD has for everybody else
RELAXED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def good() -> Iterator[list[corpus.Good]]:
    with tempfile.TemporaryDirectory() as folder:
        yield corpus.good(Path(folder))


@pytest.fixture(scope="module")
def bad() -> Iterator[list[corpus.Bad]]:
    with tempfile.TemporaryDirectory() as folder:
        yield corpus.bad(Path(folder))


def blocks(path: Path, size: int = MIB) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def inspect(
    chunks: Iterable[bytes], declared: str | None = None, limit: int | None = None
) -> disk_image.Inspection:
    inspector = disk_image.Inspector(declared, limit)
    for chunk in chunks:
        inspector.feed(chunk)
    return inspector.finish()


def verdict(chunks: Iterable[bytes], declared: str | None = None) -> object:
    """What came of an inspection: equal for equal bytes."""
    try:
        return inspect(chunks, declared)
    except exceptions.ImageRejected as error:
        return error.code, error.detail


def refusal(case: corpus.Bad) -> exceptions.ImageRejected | None:
    try:
        examine(case.path, case.declared)
    except exceptions.ImageRejected as error:
        return error
    return None


def virtual_size(case: corpus.Good) -> int:
    """As qemu-img sees it."""
    driver = QEMU_DRIVERS.get(case.disk_format, case.disk_format)
    source = f"driver={driver},file.filename={case.path}{QEMU_OPTIONS.get(case.disk_format, '')}"
    command = ["qemu-img", "info", "--output=json", "--image-opts", source]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return int(answer["virtual-size"])


def test_the_corpus_is_large_and_has_no_double(good: list[corpus.Good], bad: list[corpus.Bad]) -> None:
    for names in ([case.name for case in good], [case.name for case in bad]):
        assert len(names) == len(set(names))
    assert {case.disk_format for case in good} == set(disk_image.DISK_FORMATS)
    assert len(bad) >= 60
    assert all(case.reason for case in bad)


def judged(cases: Iterable[tuple[Path, str | None]], seconds: int = 10) -> list[dict[str, Any]]:
    """What comes of each where memory and processor time are short."""
    lines = "\n".join(json.dumps([str(path), declared]) for path, declared in cases)
    command = [sys.executable, "-m", "tests.corpus.judge", str(seconds)]
    answer = subprocess.run(command, input=lines, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_good_images_are_accepted(good: list[corpus.Good]) -> None:
    expected = {}
    for case in good:
        # qemu counts raw disks in whole sectors
        size = case.path.stat().st_size if case.disk_format == "raw" else virtual_size(case)
        expected[case.name] = {"disk_format": case.disk_format, "virtual_size": size}
    names = [case.name for case in good]
    undeclared = judged((case.path, None) for case in good)
    assert dict(zip(names, undeclared, strict=True)) == expected
    declared = judged((case.path, case.disk_format) for case in good)
    assert dict(zip(names, declared, strict=True)) == expected


def test_bad_images_are_refused_in_bounded_time_and_memory(bad: list[corpus.Bad]) -> None:
    answers = judged((case.path, case.declared) for case in bad)
    wrong = [
        (case, answer)
        for case, answer in zip(bad, answers, strict=True)
        if answer.get("code") != case.code
    ]
    assert not wrong
    for case, answer in zip(bad, answers, strict=True):
        assert str(case.path.parent) not in answer["detail"], case.name
        assert answer["detail"].isprintable(), case.name
        assert len(answer["detail"]) < 500, case.name


def test_the_bounds_are_real(tmp_path: Path) -> None:
    """Here is a disk of which the look at every byte takes too long."""
    endless = tmp_path / "endless"
    with endless.open("wb") as file:
        file.truncate(1 << 43)
    assert judged([(endless, "raw")], seconds=1) == [{"crash": f"ended with {-signal.SIGXCPU}"}]


def test_what_the_inspector_refuses_no_other_tool_opens(
    good: list[corpus.Good], bad: list[corpus.Bad], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    spy = tmp_path / "qemu-img"
    spy.write_text(f'#!/bin/sh\necho "$@" >> {log}\nPATH=${{PATH#*:}} exec qemu-img "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setattr(qemu_img, "PATH", f"{tmp_path}:{qemu_img.PATH}")
    for case in bad:
        if isinstance(verdict(blocks(case.path), case.declared), tuple):
            assert refusal(case)
    assert not log.exists()
    examine(next(case.path for case in good if case.disk_format == "qcow2"))
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["info", "check"]


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Chunks of these sizes, and the rest in chunks of the last one, or larger ones if that is tiny."""
    start = 0
    for size in sizes:
        yield data[start : start + size]
        start += size
    step = max(sizes[-1], 32 * 1024)
    for at in range(start, len(data), step):
        yield data[at : at + step]


@RELAXED
@given(data=st.data())
def test_the_verdict_is_the_same_however_the_bytes_are_cut(
    data: st.DataObject, good: list[corpus.Good], bad: list[corpus.Bad]
) -> None:
    declared, path = data.draw(
        st.sampled_from(
            [(case.disk_format, case.path) for case in good] + [(case.declared, case.path) for case in bad]
        )
    )
    sizes = data.draw(st.lists(st.integers(1, MIB) | st.integers(1, 600), min_size=1, max_size=40))
    assert verdict(cut(path.read_bytes(), sizes), declared) == verdict(blocks(path), declared)


def test_of_a_file_only_what_counts_is_read(
    good: list[corpus.Good], bad: list[corpus.Bad], tmp_path: Path
) -> None:
    for declared, path in [(case.disk_format, case.path) for case in good] + [
        (case.declared, case.path) for case in bad
    ]:
        found: object
        try:
            found = inspect_file(path, declared)
        except exceptions.ImageRejected as error:
            found = error.code, error.detail
        assert found == verdict(blocks(path), declared), path
    endless = tmp_path / "endless"
    with endless.open("wb") as file:
        file.truncate(1 << 43)
    assert inspect_file(endless) == disk_image.Inspection("raw", 1 << 43)


def test_byte_by_byte(bad: list[corpus.Bad]) -> None:
    for case in bad:
        if case.path.stat().st_size < 20_000:
            whole = verdict(blocks(case.path), case.declared)
            assert verdict(blocks(case.path, 1), case.declared) == whole, case.name


@RELAXED
@given(data=st.data())
def test_damaged_images_are_judged_and_nothing_else(data: st.DataObject, good: list[corpus.Good]) -> None:
    """Whatever is in a file: the parsers come to a verdict, and trip over nothing."""
    small = [case for case in good if case.path.stat().st_size < 10 * MIB]
    image = bytearray(data.draw(st.sampled_from(small)).path.read_bytes())
    size = len(image)
    places = st.integers(0, min(size, 4096) - 1) | st.integers(0, size - 1) | st.integers(-size, -1)
    words = st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8])
    for place, word in data.draw(st.lists(st.tuples(places, words), max_size=6)):
        image[place : place + len(word) if place + len(word) else None] = word
    del image[data.draw(st.integers(size // 2, size) | st.just(size)) :]
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        try:
            inspection = inspect([bytes(image)])
            check = structure.CHECKS.get(inspection.disk_format)
            if check:
                check(Reader(file), inspection.virtual_size)
        except exceptions.ImageRejected as error:
            assert error.code.startswith("image.")


@settings(RELAXED, max_examples=40)
@given(data=st.data())
def test_cut_anywhere_it_is_refused_or_nothing_is_lost(
    data: st.DataObject, good: list[corpus.Good], tmp_path: Path
) -> None:
    containers = [case for case in good if case.disk_format not in QEMU_DRIVERS]
    case = data.draw(st.sampled_from(containers))
    size = case.path.stat().st_size
    lost = data.draw(st.integers(1, 600) | st.integers(1, size - 1))
    part = tmp_path / "part"
    part.write_bytes(case.path.read_bytes()[:-lost])
    try:
        examine(part, case.disk_format)
    except exceptions.ImageRejected:
        return
    formats = ["-f", case.disk_format, "-F", case.disk_format]
    subprocess.run(["qemu-img", "compare", "-q", *formats, case.path, part], check=True)


def test_refused_as_soon_as_it_is_clear(bad: list[corpus.Bad]) -> None:
    by_name = {case.name: case.path for case in bad}
    for name in ("qcow2-backing-absolute", "qcow2-declared-raw", "raw-declared-qcow2", "vdi-size-2^62"):
        inspector = disk_image.Inspector(name.partition("-declared-")[2] or None)
        with pytest.raises(exceptions.ImageRejected):
            inspector.feed(next(blocks(by_name[name])).ljust(MIB, b"\0"))


def test_a_raw_stream_without_end_is_stopped() -> None:
    inspector = disk_image.Inspector("raw", max_virtual_size=3 * MIB)
    for _ in range(3):
        inspector.feed(bytes(MIB))
    with pytest.raises(exceptions.ImageRejected, match=r"3145728 bytes") as caught:
        inspector.feed(b"\0")
    assert caught.value.code == "image.too_large"


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk", "vhd", "vhdx", "vdi", "raw", "iso"])
def test_the_limit_holds_for_the_disk_in_every_format(disk_format: str, good: list[corpus.Good]) -> None:
    case = next(case for case in good if case.disk_format == disk_format)
    size = examine(case.path).virtual_size
    assert inspect(blocks(case.path), disk_format, size).virtual_size == size
    with pytest.raises(exceptions.ImageRejected) as caught:
        inspect(blocks(case.path), disk_format, size - 1)
    assert caught.value.code == "image.too_large"


def test_a_file_that_changed_since_it_was_inspected(good: list[corpus.Good], tmp_path: Path) -> None:
    image = next(case.path for case in good if case.disk_format == "qcow2")
    other = tmp_path / "other.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", other, "9M"], check=True)
    with pytest.raises(exceptions.ImageRejected, match="for one reader"):
        disk_image.check_structure(other, inspect(blocks(image)))


def test_a_mismatch_names_the_field(good: list[corpus.Good]) -> None:
    image = next(case.path for case in good if case.disk_format == "qcow2")
    with pytest.raises(exceptions.ImageRejected, match="declared as raw, but it is qcow2") as caught:
        inspect(blocks(image), "raw")
    assert caught.value.field == "disk_format"
    assert caught.value.status == 400
