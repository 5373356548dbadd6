# SPDX-License-Identifier: Apache-2.0
"""A Job's image in other formats: made once, found again after a crash, and ended with its Job."""

import contextlib
import hashlib
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import pytest
import sqlalchemy as sa

from ciming import disk_image, exceptions, growing, staging
from ciming.db import api, models, session, work
from ciming.disk_image import qemu_img
from ciming.engine import conversions, slots, watch
from tests.corpus import disks
from tests.corpus.cases import qemu_img as run_plainly
from tests.unit import rows
from tests.unit.children import gone, stand_in, wait_for

pytestmark = [pytest.mark.usefixtures("database"), pytest.mark.sqlite, pytest.mark.timeout(120)]

MIB = 1 << 20
NOBODY = slots.Limits(2)


class Bench:
    """A Job whose image, a qcow2, is staged, and claimed by one engine after the other."""

    def __init__(self, folder: pathlib.Path, quota: int = 0) -> None:
        self.disk = disks.noise(MIB) + bytes(5 * MIB) + disks.noise(700 * 1024)
        raw = folder / "disk"
        raw.write_bytes(self.disk)
        self.area = staging.StagingArea(str(folder / "staging"), quota=quota, keep_free=0)
        self.image = folder / "image"
        run_plainly("convert", "-f", "raw", "-O", "qcow2", "-c", raw, self.image)
        self.job = rows.make_job(size=self.image.stat().st_size)
        self.path = self.area.upload_path(self.job.id, 1)
        self.path.parent.mkdir()
        self.image.rename(self.path)
        self.stopping = threading.Event()
        self.source = growing.GrowingFile()
        self.stack = contextlib.ExitStack()

    @property
    def folder(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir()} - {self.path.name}

    def engine(self, owner: str = rows.ENGINE) -> conversions.Conversions:
        """What an engine has that has just claimed the Job."""
        self.claim = rows.take(self.job.id, owner)
        work.staged(self.claim, disk_format="qcow2", virtual_size=len(self.disk), digests={"sha256": "1"})
        watching = watch.Watch(self.claim, self.stopping)
        made = conversions.Conversions(self.area, self.claim, watching, self.source, slots.Slots(NOBODY))
        return self.stack.enter_context(contextlib.closing(made))

    def stage(self) -> None:
        size = self.path.stat().st_size
        self.source.finish(staging.StagedFile(str(self.path), "qcow2", size, len(self.disk), {}))

    def reserved(self) -> int:
        with session.reader() as connection:
            query = sa.select(models.Upload.reserved).where(models.Upload.job_id == self.job.id)
            return int(connection.scalar(query) or 0)


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with contextlib.closing(made.source), made.stack:
        yield made


def nothing() -> None:
    pass


def whole(file: growing.GrowingFile) -> growing.GrowingFile:
    file.await_whole(nothing)
    return file


def test_it_is_converted_once_when_the_image_is_whole(bench: Bench) -> None:
    made = bench.engine()
    with futures.ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: made.of("raw"), range(8)))
    assert len(set(asked)) == 1
    file = asked[0]
    assert not file.whole and not bench.folder
    bench.stage()
    whole(file)
    assert (file.disk_format, file.size, file.virtual_size) == ("raw", len(bench.disk), len(bench.disk))
    assert file.digest("sha512") == hashlib.sha512(bench.disk).hexdigest()
    assert file.digest("md5") == hashlib.md5(bench.disk).hexdigest()
    assert pathlib.Path(file.path).read_bytes() == bench.disk
    assert bench.folder == {f"converted-raw.{bench.claim.generation}"}
    assert made.of("raw") is file
    assert whole(made.of("qcow2")).disk_format == "qcow2"


def test_who_wants_no_hash_waits_for_none(bench: Bench) -> None:
    bench.stage()
    made = bench.engine()
    file = made.of("raw", hashed=False)
    file.await_known(nothing)
    assert pathlib.Path(file.path).read_bytes() == bench.disk and file.whole
    assert file._what.digests == {}
    assert file.digest("sha512") == hashlib.sha512(bench.disk).hexdigest()
    assert made.of("raw") is file


def test_its_digest_is_kept_and_its_room_is_reserved(bench: Bench) -> None:
    bench.stage()
    made = bench.engine()
    file = whole(made.of("raw"))
    digests = api.get_job(bench.job.id, None).image.digests
    found = disk_image.Inspection("raw", len(bench.disk))
    assert digests["guest"] == disk_image.guest_digest(pathlib.Path(file.path), found)
    taken = pathlib.Path(file.path).stat().st_blocks * 512
    assert bench.reserved() == bench.path.stat().st_size + taken
    reserved = bench.reserved()
    whole(made.of("qcow2"))
    assert bench.reserved() > reserved
    work.staged(bench.claim, disk_format="qcow2", virtual_size=1, digests={"sha256": "2"})      # restored
    assert api.get_job(bench.job.id, None).image.digests == {"guest": digests["guest"], "sha256": "2"}


def test_after_a_crash_it_is_found_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage()
    first = whole(bench.engine().of("qcow2"))
    later = bench.path.parent / "converted-qcow2.10"        # of an engine between
    later.write_bytes(pathlib.Path(first.path).read_bytes())
    monkeypatch.setattr(qemu_img, "PATH", "/nowhere")
    again = whole(bench.engine("engine-2").of("qcow2"))
    assert again.path == str(later)
    assert (again.size, again.virtual_size) == (first.size, first.virtual_size)
    assert again.digest("sha512") == first.digest("sha512")


def test_what_a_crash_left_half_made_is_made_again(bench: Bench) -> None:
    bench.stage()
    bench.engine()
    (bench.path.parent / "converting-raw.1").write_bytes(b"half")
    whole(bench.engine("engine-2").of("raw"))
    assert bench.folder == {f"converted-raw.{bench.claim.generation}"}


def test_what_failed_is_begun_anew(bench: Bench) -> None:
    bench.stage()
    bench.area.quota = bench.path.stat().st_size + 1000
    made = bench.engine()
    file = made.of("raw")
    with pytest.raises(exceptions.StagingFull, match=r"1000 are left"):
        whole(file)
    assert not bench.folder
    assert bench.reserved() == bench.path.stat().st_size
    bench.area.quota = 0
    assert whole(made.of("raw")) is not file


def test_others_keep_what_is_reserved(bench: Bench) -> None:
    bench.stage()
    whole(bench.engine().of("raw"))
    bench.area.quota = bench.reserved() + 1000
    other = rows.take(rows.make_job(size=500).id)
    asked: list[int] = []

    def room(held: int, coming: int) -> int:
        asked.append(coming)
        return bench.area.room(held=held, coming=coming)

    work.reserve(other, 0, 500, room)
    with pytest.raises(exceptions.StagingFull):
        work.reserve(other, 0, 501, room)
    assert asked == [0, 0]      # what is on disk does not take room a second time


def test_while_it_is_made_its_room_is_to_come(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage()
    started = hangs(bench, monkeypatch)
    made = bench.engine()
    made.of("raw")
    wait_for(started.exists)
    comes = bench.reserved() - bench.path.stat().st_size
    other = rows.take(rows.make_job(size=500).id)
    work.reserve(other, 0, 0, lambda _held, coming: 0 if coming == comes > MIB else -1)


def test_a_disk_that_is_something_else_as_raw(bench: Bench) -> None:
    inner = bench.path.with_name("inner")
    bench.path.rename(inner)
    run_plainly("convert", "-f", "raw", "-O", "qcow2", inner, bench.path)
    bench.disk = inner.read_bytes()
    inner.unlink()
    bench.disk += bytes(-len(bench.disk) % 512)
    bench.stage()
    made = bench.engine()
    with pytest.raises(exceptions.ImageRejected) as caught:
        whole(made.of("raw"))
    assert caught.value.code == "image.unsafe"
    assert not bench.folder
    image = api.get_job(bench.job.id, None).image
    assert bench.reserved() == image.size and image.digests["guest"] is None


def hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Have conversions take for ever; where the id of the process will be."""
    pid = bench.area.path / "pid"
    script = f"""
        [ "$1" = convert ] || exec /usr/bin/qemu-img "$@"
        echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600
        """
    monkeypatch.setattr(qemu_img, "PATH", stand_in(bench.area.path, script))
    return pid


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("cancel", exceptions.Cancelled),
        ("lost", exceptions.ClaimLost),
        ("stop", exceptions.Interrupted),
        ("close", exceptions.Interrupted),
    ],
)
def test_nothing_runs_longer_than_it_is_wanted(
    event: str, reason: type[BaseException], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = hangs(bench, monkeypatch)
    bench.stage()
    made = bench.engine()
    file = made.of("raw")
    wait_for(pid.exists)
    if event == "cancel":
        with session.writer() as connection:
            connection.execute(sa.update(models.Job).values(wanted="cancel"))
    elif event == "lost":
        rows.take(bench.job.id, "engine-2")
    elif event == "stop":
        bench.stopping.set()
    else:
        made.close()
    with pytest.raises(reason):
        whole(file)
    assert gone(int(pid.read_text()))
    assert not bench.folder


def test_without_a_source_there_is_nothing_to_convert(bench: Bench) -> None:
    file = bench.engine().of("raw")
    bench.source.fail(exceptions.ImageRejected("broken", code="image.broken"))
    with pytest.raises(exceptions.ImageRejected):
        whole(file)
    assert not bench.folder


def test_who_asks_again_has_it_made_when_there_can_be_threads_again(
    bench: Bench, no_thread: Callable[[str, int], None]
) -> None:
    bench.stage()
    made = bench.engine()
    no_thread("convert", 1)
    with pytest.raises(exceptions.Unavailable):
        made.of("raw")
    assert whole(made.of("raw")).disk_format == "raw"
    assert bench.folder == {f"converted-raw.{bench.claim.generation}"}
