# SPDX-License-Identifier: Apache-2.0
"""What of AWS needs no AWS: names of things, pace, and blocks."""

import datetime
import hashlib
import pathlib
import random
import threading
import time
from typing import Any

import pytest

from ciming import disk_image, exceptions
from ciming.providers import base, pace
from ciming.providers.aws import account, metadata, snapshots

GIB = 1 << 30
MARKS = {"ciming:image": "i", "ciming:target": "t", "Name": "n"}


def spec(**said: Any) -> base.ImageSpec:
    return base.ImageSpec("some-id", **{"name": "image", "properties": {"architecture": "x86_64"}, **said})


# Names of things


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"architecture": "x86_64"}, {"Architecture": "x86_64", "BootMode": "uefi-preferred"}),
        ({"architecture": "AMD64"}, {"Architecture": "x86_64", "BootMode": "uefi-preferred"}),
        ({"architecture": "aarch64"}, {"Architecture": "arm64", "BootMode": "uefi"}),
        ({"architecture": "i686"}, {"Architecture": "i386"}),
        (
            {"architecture": "x86_64", "hw_tpm_version": "2.0"},
            {"Architecture": "x86_64", "BootMode": "uefi", "TpmSupport": "v2.0"},
        ),
        (
            {"architecture": "x86_64", "hw_firmware_type": "bios"},
            {"Architecture": "x86_64", "BootMode": "legacy-bios"},
        ),
        (
            {"architecture": "x86_64", "hw_firmware_type": "coreboot", "description": "a\ndisk" + "." * 300},
            {
                "Architecture": "x86_64",
                "BootMode": "uefi-preferred",
                "Description": "adisk" + "." * 250,
            },
        ),
    ],
)
def test_parameters(said: dict[str, str], told: dict[str, str]) -> None:
    assert metadata.parameters(spec(properties=said), "amazon") == told


@pytest.mark.parametrize("more", [{"hw_tpm_version": "2.0"}, {"architecture": "aarch64"}])
def test_what_needs_uefi(more: dict[str, str]) -> None:
    """AWS would refuse it when all bytes are there."""
    said = {"architecture": "x86_64", "hw_firmware_type": "bios", **more}
    with pytest.raises(exceptions.ProviderError, match="needs UEFI") as refused:
        metadata.parameters(spec(properties=said), "amazon")
    assert refused.value.code == "image.firmware_unfit"


def test_a_description_that_is_cut_is_said() -> None:
    said = {"architecture": "x86_64", "description": "." * 300}
    (cut,) = metadata.lost(spec(properties=said), {})
    assert cut == "Its description in AWS has 255 of its 300 characters."
    assert not [*metadata.lost(spec(properties={**said, "description": "a disk"}), {})]


def test_a_description_is_ascii_there() -> None:
    """EC2 takes no other, and says so when all bytes are there."""
    said = spec(properties={"architecture": "x86_64", "description": "Größe \tx"})
    assert metadata.parameters(said, "amazon")["Description"] == "Gre x"
    assert [*metadata.lost(said, {})] == ["Its description in AWS has 5 of its 8 characters."]


def test_what_a_tag_of_the_cloud_replaces_is_lost() -> None:
    """Those come first."""
    image = spec(properties={"architecture": "x86_64", "os_distro": "debian"}, tags=("team", "Name", "blue"))
    lost = [*metadata.lost(image, {**MARKS, "Name": "one", "team": "images", "os_distro": "ubuntu"})]
    for each in ("os_distro", "team", "Name"):
        assert f"{each} could not become a tag in AWS." in lost
    assert len(lost) == 3


def test_every_row_goes_there_and_back() -> None:
    """What it becomes there comes back as what was said first of those that become it."""
    for row in metadata.PROPERTIES:
        for theirs, ours in row.values.items():
            first = next(each for each, value in row.values.items() if value == ours)
            assert metadata.properties({row.aws: ours}, {}) == {row.glance: first}, theirs
    assert metadata.properties({"Description": "a disk"}, {}) == {"description": "a disk"}
    assert metadata.properties({"BootMode": "uefi-preferred"}, {}) == {}


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("debian 12 (cloud)", "debian 12 (cloud)"),
        ("a", "a--"),
        ("größe:1", "gr--e-1"),
        ("n" * 300, "n" * 128),
    ],
)
def test_name(wanted: str, name: str) -> None:
    assert metadata.name(wanted) == name
    assert len(metadata.name(wanted, " 12345678")) <= metadata.LONGEST_NAME
    assert metadata.name(wanted, " 12345678").endswith(" 12345678")


def test_tags() -> None:
    said = {
        "os_distro": "debian", "os_hash_algo": "x", "os_hidden": "true", "hw_disk_bus": "scsi",
        "architecture": "x86_64", "os_long": "v" * 257,
    }  # fmt: skip
    image = spec(properties=said, tags=("blue", "aws:mine", "CIMING:target", "Name"))
    assert metadata.tags(image, MARKS) == {**MARKS, "os_distro": "debian", "blue": ""}
    lost = " ".join(metadata.lost(image, MARKS))
    for each in ("hw_disk_bus", "os_hidden", "os_hash_algo", "os_long", "aws:mine", "CIMING:target"):
        assert each in lost
    for each in ("os_distro", "blue", "architecture"):
        assert each not in lost


def test_most_tags() -> None:
    image = spec(tags=tuple(f"tag-{number}" for number in range(100)))
    assert len(metadata.tags(image, MARKS)) == metadata.MOST_TAGS
    assert len(list(metadata.lost(image, MARKS))) == 100 - metadata.MOST_TAGS + len(MARKS)


def test_lost() -> None:
    said = {"architecture": "x86_64", "hw_firmware_type": "coreboot"}
    image = spec(name="größe", properties=said, min_ram=512, visibility="public")
    lost = list(metadata.lost(image, MARKS))
    for part in ("hw_firmware_type=coreboot", "gr--e", "min_ram", "share_with"):
        assert sum(part in each for each in lost) == 1
    assert not list(metadata.lost(spec(visibility="private"), MARKS))


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"os_type": "windows"}, "not Windows"),
        ({"os_type": "Windows", "os_distro": "windows"}, "not Windows"),
        ({"os_distro": "rhel"}, "not Red Hat"),
        ({"os_distro": "sles", "os_type": "linux"}, "not SUSE"),
    ],
    ids=str,
)
def test_whose_licence_aws_does_not_know(said: dict[str, str], what: str) -> None:
    (remark,) = metadata.lost(spec(properties=said), MARKS)
    assert what in remark and "To AWS it is one of Linux/UNIX" in remark
    assert not list(metadata.lost(spec(properties=said), MARKS, "Windows"))


def test_free_ones_need_no_licence() -> None:
    assert not list(metadata.lost(spec(properties={"os_type": "linux", "os_distro": "debian"}), MARKS))


def test_beside() -> None:
    """What a person says comes first."""
    image = {"Architecture": "arm64", "BootMode": "uefi"}
    mine = spec(properties={"architecture": "x86_64"}, tags=("mine",))
    found = metadata.beside(mine, image, {"blue": "", "os_distro": "debian"})
    assert found.properties == {
        "architecture": "x86_64", "hw_firmware_type": "uefi", "os_distro": "debian",
    }  # fmt: skip
    assert found.tags == ("mine", "blue")


@pytest.mark.parametrize(("size", "gib"), [(1, 1), (GIB, 1), (GIB + 1, 2), (64 << 40, 64 << 10)])
def test_volume_size(size: int, gib: int) -> None:
    assert snapshots.volume_size(size) == gib


def test_filters_have_no_wildcards() -> None:
    assert snapshots.literal(r"a*b?c\d") == r"a\*b\?c\\d"


# Pace


def run(call: Any, items: Any, how: pace.Pace | None = None) -> list[Any]:
    return list(pace.in_order(call, items, lambda: None, how or pace.Pace()))


def test_results_are_in_order() -> None:
    def call(number: int) -> int:
        time.sleep(random.random() / 500)  # no secret
        return number * 2

    assert run(call, range(200)) == [number * 2 for number in range(200)]


def test_no_more_is_taken_than_can_be_worked_on() -> None:
    taken, release = 0, threading.Event()

    def items() -> Any:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    def call(_number: int) -> None:
        assert release.wait(30)

    results = pace.in_order(call, items(), lambda: None, pace.Pace())
    threading.Timer(0.3, release.set).start()
    next(results)
    assert taken <= pace.MOST + 1
    results.close()


def test_never_more_at_a_time_than_it_may() -> None:
    running = most = 0
    lock = threading.Lock()

    def call(_number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1

    run(call, range(300), pace.Pace(4))
    assert 1 < most <= 4


def test_it_slows_down_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    how = pace.Pace()
    how.too_fast()
    assert how.allowed == pace.FIRST / 2
    how.too_fast()
    assert how.allowed == pace.FIRST / 2        # of the same moment
    monkeypatch.setattr(pace, "CALM", 0.0)
    for _ in range(10):
        how.too_fast()
    assert how.allowed == 1
    for _ in range(5000):
        how.fine()
    assert how.allowed == pace.MOST


@pytest.mark.parametrize(
    ("error", "slows"),
    [
        (pace.Throttled("too fast"), True),
        (exceptions.TransientProviderError("no answer in time", code="cloud.unreachable"), True),
        (exceptions.TransientProviderError("damaged"), False),
    ],
)
def test_what_it_slows_down_for(error: Exception, *, slows: bool) -> None:
    """Also where too much at a time is late: the same pace again would be, too."""
    how, failures = pace.Pace(), [error]

    def call(_number: int) -> None:
        if failures:
            raise failures.pop()

    run(call, [1], how)
    assert (how.allowed < pace.FIRST) == slows


def test_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONGEST_PAUSE", 0.01)
    failures = {3: pace.TRIES - 1, 5: 1}

    def call(number: int) -> int:
        if failures.get(number, 0) > 0:
            failures[number] -= 1
            raise pace.Throttled("too fast")
        return number

    assert run(call, range(10)) == list(range(10))
    failures[3] = pace.TRIES
    with pytest.raises(pace.Throttled):
        run(call, range(10))


def test_what_does_not_pass_ends_it() -> None:
    called = []

    def call(number: int) -> None:
        called.append(number)
        if number == 5:
            raise exceptions.ProviderError("no")

    with pytest.raises(exceptions.ProviderError, match="no"):
        run(call, range(10_000))
    assert len(called) < 5 + 2 * pace.MOST + 2


def test_who_is_not_alive_calls_no_more() -> None:
    called: list[int] = []

    def alive() -> None:
        if len(called) > 20:
            raise exceptions.Interrupted("stop")

    with pytest.raises(exceptions.Interrupted):
        list(pace.in_order(called.append, range(10_000), alive, pace.Pace()))
    assert len(called) < 20 + 2 * pace.MOST
    before = len(called)
    time.sleep(0.05)
    assert len(called) == before


def test_who_is_not_alive_waits_for_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked while a call takes its time."""
    monkeypatch.setattr(pace, "ASK_SECONDS", 0.01)
    release, asked = threading.Event(), 0

    def alive() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            release.set()       # as hang_up() would
            raise exceptions.Interrupted("stop")

    with pytest.raises(exceptions.Interrupted):
        list(pace.in_order(lambda _item: release.wait(30), [1], alive, pace.Pace()))
    assert asked == 4


# An account


def test_a_credential_without_keys() -> None:
    with pytest.raises(exceptions.ProviderError) as refused:
        account.Account({"region": "eu-west-1", "cloud": "amazon"}, {"access_key_id": "AKIA"})
    assert refused.value.code == "credential.invalid"


@pytest.mark.parametrize(("minutes", "deprecated"), [(-9, True), (2, True), (3, True), (9, False)])
def test_what_is_deprecated_in_a_moment_is_deprecated(minutes: int, *, deprecated: bool) -> None:
    """As AWS was told, which takes no time that is not to come."""
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    described = {"ImageId": "ami-1", "State": "available", "DeprecationTime": at.isoformat()}
    assert metadata.seen(described, {}).deprecated is deprecated


def test_external_id() -> None:
    """It is the project's, whoever names the role."""
    keys = {"access_key_id": "a", "secret_access_key": "b", "role_arn": "arn"}
    made = account.Account({"region": "eu-west-1", "project": "p1"}, keys)
    assert made.external_id == "ciming-p1"


@pytest.mark.parametrize("name", ["ConcurrentTagAccess", "OperationAborted"])
def test_who_does_the_same_at_the_same_time(name: str) -> None:
    amazon = account.Account({"region": "eu-west-1"}, {"access_key_id": "A", "secret_access_key": "B"})
    answer = {"Error": {"Code": name, "Message": "Later."}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert isinstance(amazon._refusal("ec2", "CreateTags", answer), exceptions.TransientProviderError)


def test_in_another_region() -> None:
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    here = account.Account({"region": "eu-west-1", "cloud": "amazon"}, keys)
    there = here.in_region("us-east-1")
    assert (here.region, there.region, there.name) == ("eu-west-1", "us-east-1", "amazon")
    assert there._sockets is here._sockets and there._clients is not here._clients


# Blocks


def test_blocks_and_their_digest(tmp_path: pathlib.Path) -> None:
    """Holes and zeros are left out; the last one is padded."""
    block = disk_image.BLOCK
    file = tmp_path / "disk"
    with file.open("wb") as disk:
        disk.write(b"a" * block + bytes(block))
        disk.seek(20 * block)
        disk.write(b"b" * 10)
    found = dict(disk_image.blocks(file))
    assert found == {0: b"a" * block, 20: (b"b" * 10).ljust(block, b"\0")}
    records = [(index, hashlib.sha256(data).digest()) for index, data in found.items()]
    whole = disk_image.guest_digest(file, disk_image.Inspection("raw", file.stat().st_size))
    assert disk_image.digest_of(records) == whole
    assert list(disk_image.records(file, [0, 1, 5, 20, 99])) == records
    assert disk_image.digest_of([]) == hashlib.sha256().hexdigest()
