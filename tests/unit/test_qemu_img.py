# SPDX-License-Identifier: Apache-2.0
"""qemu-img runs under limits, and is never left behind. Scripts stand in for it where it would behave."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ciming import disk_image, exceptions
from ciming.disk_image import qemu_img, rejections
from tests.corpus.cases import qemu_img as run_plainly
from tests.unit.children import gone, stand_in, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image,with a comma.qcow2"
    run_plainly("create", "-q", "-f", "qcow2", path, "1M")
    return path


def check(image: Path) -> qemu_img.Result:
    return qemu_img.run("check", image=image, driver="qcow2")


def test_it_reads_an_image_whatever_its_name_is(image: Path) -> None:
    assert check(image).status == 0
    odd = image.rename(image.parent / "nbd:localhost:1,driver=raw")
    assert check(odd).status == 0


def test_it_never_guesses_the_format(image: Path) -> None:
    result = qemu_img.run("info", "--output=json", image=image, driver="vmdk")
    assert result.status == 1
    assert result.complaint() == "Could not open 'the image': invalid VMDK image descriptor"
    with pytest.raises(exceptions.ImageRejected, match="invalid VMDK image descriptor"):
        result.json()


def test_it_runs_under_limits(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        ulimit -v; ulimit -t; ulimit -f; ulimit -c
        pwd; readlink /proc/self/fd/0
        [ -e /proc/$$/fd/{descriptor} ] && echo open || echo closed
        grep NoNewPrivs /proc/self/status
        env | grep -v ^_= | grep -v ^PWD= | cut -d= -f1 | sort | tr '\\n' ' '
        """
    monkeypatch.setenv("OS_PASSWORD", "secret")
    with image.open() as file:
        os.set_inheritable(file.fileno(), True)
        path = stand_in(tmp_path, script.format(descriptor=file.fileno()))
        monkeypatch.setattr(qemu_img, "PATH", path)
        lines = qemu_img.run("check", image=image, driver="qcow2", address_space=2**29).output.splitlines()
    address_space, cpu, writes, core, folder, stdin, descriptor, privileges, variables = lines
    assert (int(address_space), int(cpu), int(core)) == (2**29 // 1024, qemu_img.CPU_SECONDS, 0)
    assert int(writes) == qemu_img.OUTPUT // 512
    assert (folder, stdin, descriptor) == ("/", "/dev/null", "closed")
    assert privileges.split() == ["NoNewPrivs:", "1"]
    assert variables.split() == ["LC_ALL", "PATH"]


def test_limits_grow_with_the_file(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, "ulimit -v; ulimit -t"))
    with image.open("r+b") as file:
        file.truncate(1 << 40)
    address_space, cpu = (int(word) for word in check(image).output.split())
    assert address_space == (qemu_img.ADDRESS_SPACE + (1 << 34)) // 1024
    assert cpu == qemu_img.CPU_SECONDS + 1024


def test_limits_of_the_service_are_not_raised(image: Path) -> None:
    script = f"""
        from pathlib import Path
        from ciming.disk_image import qemu_img
        print(qemu_img.run("check", image=Path({str(image)!r}), driver="qcow2").status)
        """
    limited = ["prlimit", "--cpu=15:15", "--fsize=900000:900000", "--", sys.executable, "-c"]
    done = subprocess.run([*limited, textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    "script",
    [
        "while :; do :; done",
        "exec yes",
        "exec yes >&2",
        "kill -ABRT $$",
        "echo 'qemu-img: Cannot allocate memory' >&2; exit 1",
    ],
    ids=["cpu", "output", "errors", "abort", "memory"],
)
def test_an_image_that_asks_for_too_much(
    script: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, script))
    with pytest.raises(exceptions.ImageRejected) as caught:
        qemu_img.run("check", image=image, driver="qcow2", cpu_seconds=1)
    assert caught.value.code == "image.too_complex"


def test_a_child_that_only_waits_is_killed(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 600"
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, script))
    monkeypatch.setattr(qemu_img, "WAITING", 0.5)
    with pytest.raises(exceptions.ImageRejected, match="took longer than 1 s") as caught:
        qemu_img.run("check", image=image, driver="qcow2", cpu_seconds=2)
    assert caught.value.code == "image.too_complex"
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_child_dies_with_its_parent(image: Path, tmp_path: Path) -> None:
    path = stand_in(
        tmp_path, f"echo $$ > {tmp_path}/started; mv {tmp_path}/started {tmp_path}/pid; exec sleep 600"
    )
    script = f"""
        from pathlib import Path
        from ciming.disk_image import qemu_img
        qemu_img.PATH = {path!r}
        qemu_img.run("check", image=Path({str(image)!r}), driver="qcow2")
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) as parent:
        wait_for((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        assert not gone(child)
        parent.kill()
    wait_for(lambda: gone(child))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_from_outside_is_not_the_image_s_fault(
    number: signal.Signals, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img, "PATH", stand_in(tmp_path, f"kill -{number.value} $$"))
    with pytest.raises(exceptions.Unavailable):
        check(image)


@pytest.mark.parametrize("installed", [(), ("setpriv",), ("setpriv", "prlimit")])
def test_a_tool_that_is_missing_is_not_the_image_s_fault(
    installed: tuple[str, ...], image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in installed:
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setattr(qemu_img, "PATH", str(tmp_path))
    with pytest.raises(exceptions.Unavailable, match="could not be started"):
        check(image)


def test_a_maze_of_snapshots_is_left_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own check walks the active tables only: here it is the limit that ends the walk."""
    image = tmp_path / "maze"
    run_plainly("create", "-q", "-f", "qcow2", image, "8T")
    for name in range(40):
        run_plainly("snapshot", "-c", str(name), image)
    content = bytearray(image.read_bytes())
    at = int.from_bytes(content[64:72], "big")
    for _ in range(40):
        offset, entries = int.from_bytes(content[at : at + 8], "big"), 8 << 40 >> 29
        content[offset : offset + 8 * entries] = (offset | 1 << 63).to_bytes(8, "big") * entries
        extra, id_length, name_length = (
            int.from_bytes(content[at + field : at + field + size], "big")
            for field, size in ((36, 4), (12, 2), (14, 2))
        )
        at += -(-(40 + extra + id_length + name_length) // 8) * 8
    image.write_bytes(content)
    monkeypatch.setattr(qemu_img, "CPU_SECONDS", 1)
    with pytest.raises(exceptions.ImageRejected) as caught:
        disk_image.check_structure(image, disk_image.Inspection("qcow2", 8 << 40))
    assert caught.value.code in ("image.too_complex", "image.broken")


def test_every_refusal_says_what_is_wrong() -> None:
    for error in (rejections.broken("x"), rejections.unsafe("x"), rejections.too_large(2**40, 2**30)):
        assert error.detail.startswith("The image ")
        assert error.detail.endswith(".")
