# SPDX-License-Identifier: Apache-2.0
"""The stand-in of Google Cloud: what goes wrong on demand, what is counted, and how it starts and ends."""

import os
import pathlib
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import google.api_core.exceptions
import google.auth.exceptions
import google.auth.transport.requests
import pytest
import requests
from google.cloud import compute_v1

from tests.sandbox import gcp, processes
from tests.sandbox.gcp import starter
from tests.unit.sandbox.calls import eventually
from tests.unit.sandbox.gcp_calls import (
    SCOPE,
    archive,
    begin,
    bucket,
    image,
    images,
    project,
    put,
    refused,
    session,
    spec,
    wait,
)
from tests.unit.sandbox.test_gcp_uploads import begin as begin_upload
from tests.unit.sandbox.test_gcp_uploads import send

INSERT, OBJECT = "compute.images.insert", "storage.objects.insert"


@pytest.mark.parametrize(
    ("kind", "action", "code", "reason"),
    [
        ("throttle", INSERT, 403, "rateLimitExceeded"),
        ("throttle", OBJECT, 429, "rateLimitExceeded"),
        ("500", INSERT, 500, "backendError"),
        ("500", OBJECT, 500, "backendError"),
        ("503", INSERT, 503, "backendError"),
        ("503", OBJECT, 503, "backendError"),
        ("auth", INSERT, 401, "authError"),
        ("auth", OBJECT, 401, "authError"),
        ("denied", INSERT, 403, "forbidden"),
        ("denied", OBJECT, 403, "forbidden"),
        ("quota", INSERT, 403, "quotaExceeded"),
        ("quota", OBJECT, 403, "quotaExceeded"),
    ],
)
def test_answers(cloud: gcp.StandIn, kind: str, action: str, code: int, reason: str) -> None:
    where, wanted = bucket(cloud), spec(cloud)
    before = len(cloud.images())
    target = f"{cloud.url}/upload/storage/v1/b/{where.name}/o?uploadType=media&name=a"
    cloud.fault(kind, action, times=2)
    for _ in range(2):
        if action == INSERT:
            with refused(code, reason, "compute.images.create" if kind == "denied" else ""):
                # google-auth itself asks again after a 401: the fault would be over
                _insert_once(cloud, wanted) if kind == "auth" else begin(cloud, wanted)
        else:
            response = session(cloud).post(target, data=b"a", timeout=10)
            error = response.json()["error"]
            assert (response.status_code, error["errors"][0]["reason"]) == (code, reason)
            assert kind != "denied" or "storage.objects.create" in error["message"]
    assert (len(cloud.images()), cloud.objects(where.name)) == (before, [])
    if action == INSERT:
        begin(cloud, wanted)
    else:
        put(where, b"a")


def _insert_once(cloud: gcp.StandIn, wanted: Any) -> None:
    target = f"{cloud.url}/compute/v1/projects/{project(cloud)}/global/images"
    response = session(cloud).post(target, data=compute_v1.Image.to_json(wanted), timeout=10)
    raise google.api_core.exceptions.from_http_response(response)


@pytest.mark.parametrize("kind", ["throttle", "500", "503", "auth", "denied", "quota"])
def test_tokens(cloud: gcp.StandIn, kind: str) -> None:
    cloud.fault(kind, "token")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": ""}
    response = requests.post(f"{cloud.url}/token", data=form, timeout=10)
    assert response.status_code == {"throttle": 429, "quota": 429, "500": 500, "503": 503}.get(kind, 400)
    assert response.json()["error_description"]
    if kind in ("auth", "denied"):
        cloud.fault(kind, "token")
        with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
            cloud.credentials(scopes=[SCOPE]).refresh(google.auth.transport.requests.Request())


def test_which_calls(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    cloud.fault("500", "storage.objects.*", after=1)
    put(where, b"a")
    where.reload()
    with refused(500, "backendError"):
        put(where, b"a")
    put(where, b"a")
    cloud.fault("500")
    cloud.clear_faults()
    put(where, b"a")
    for wrong in ({"kind": "plague"}, {"kind": "500", "moon": 1}):
        with pytest.raises(RuntimeError):
            cloud.fault(**wrong)


def test_reset_and_lost_answer(cloud: gcp.StandIn) -> None:
    wanted, number = spec(cloud), str(uuid.uuid4())
    before = len(cloud.images())
    cloud.fault("reset", INSERT)
    with pytest.raises(requests.ConnectionError):
        begin(cloud, wanted, request_id=number)
    assert len(cloud.images()) == before
    cloud.fault("lost", INSERT)
    with pytest.raises(requests.ConnectionError):
        begin(cloud, wanted, request_id=number)
    assert len(cloud.images()) == before + 1
    wait(cloud, begin(cloud, wanted, request_id=number))
    assert len(cloud.images()) == before + 1
    where = bucket(cloud)
    cloud.fault("lost", OBJECT)
    with pytest.raises(requests.ConnectionError):
        put(where, b"a", "lost")
    assert where.blob("lost").download_as_bytes() == b"a"


def test_slow(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    cloud.fault("slow", "storage.buckets.get", seconds=0.5)
    began = time.monotonic()
    where.reload()
    assert time.monotonic() - began >= 0.5


def test_corrupt_data(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    cloud.fault("corrupt", OBJECT)
    bad, good = put(where, b"hello"), put(where, b"hello")
    assert bad.crc32c != good.crc32c
    assert bad.download_as_bytes() == b"iello"      # what it tells is of what it has
    assert good.download_as_bytes() == b"hello"
    cloud.fault("corrupt", "storage.objects.get")
    with pytest.raises(Exception, match="Checksum mismatch"):
        good.download_as_bytes()
    assert good.download_as_bytes() == b"hello"
    cloud.fault("corrupt", "storage.objects.compose")
    where.blob("all").compose([good, good])
    assert where.blob("all").download_as_bytes(checksum=None) == b"iellohello"
    target = begin_upload(cloud, where)
    cloud.fault("corrupt", OBJECT)
    assert send(target, b"hello", "0-4/5").status_code == 200
    assert where.blob("r").download_as_bytes() == b"iello"


def test_operations_that_fail(cloud: gcp.StandIn) -> None:
    cloud.fault("fail", INSERT)
    wanted = spec(cloud)
    done = wait(cloud, begin(cloud, wanted))
    assert (done.error.errors[0].code, done.http_error_status_code) == ("INTERNAL_ERROR", 503)
    client, here = images(cloud), project(cloud)
    assert client.get(project=here, image=wanted.name).status == "FAILED"
    made = image(cloud, labels={"a": "b"})
    calls: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: client.delete_unary(project=here, image=made.name), "delete"),
        (lambda: client.deprecate_unary(
            project=here, image=made.name, deprecation_status_resource={"state": "OBSOLETE"}), "deprecate"),
        (lambda: client.set_labels_unary(
            project=here, resource=made.name,
            global_set_labels_request_resource={"label_fingerprint": made.label_fingerprint}), "setLabels"),
    )  # fmt: skip
    for call, action in calls:
        cloud.fault("fail", f"compute.images.{action}")
        assert wait(cloud, call()).error.errors
    assert client.get(project=here, image=made.name) == made


def test_operations_that_never_end(cloud: gcp.StandIn) -> None:
    cloud.settings(wait_seconds=0.1)
    cloud.fault("stuck", INSERT)
    wanted = spec(cloud)
    operation = begin(cloud, wanted)
    assert wait(cloud, operation).status == compute_v1.Operation.Status.RUNNING
    assert images(cloud).get(project=project(cloud), image=wanted.name).status == "PENDING"


def test_counters_and_callers(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    before = cloud.counters()["calls"].get("storage.buckets.get", 0)
    cloud.fault("500", "storage.buckets.get")
    with refused(500, "backendError"):
        where.reload(retry=None)
    where.reload()
    assert cloud.counters()["calls"]["storage.buckets.get"] == before + 2
    assert cloud.accounts["owner"]["private_key_id"] in cloud.callers()


def test_setting_that_is_none(cloud: gcp.StandIn) -> None:
    for wrong in (lambda: cloud.settings(moon=1), lambda: cloud.allow("moon"), lambda: cloud.add_key("moon")):
        with pytest.raises(RuntimeError):
            wrong()


# Start and end


def refuses(url: str) -> bool:
    try:
        requests.get(f"{url}/", timeout=5)
    except requests.ConnectionError:
        return True
    return False


def test_start_and_stop(tmp_path: pathlib.Path) -> None:
    with gcp.start(tmp_path / "one") as one:
        assert stat.S_IMODE((one.directory / "keys.json").stat().st_mode) == 0o600
        one.settings(pending_seconds=0, image_seconds=0)
        where = bucket(one)
        put(where, archive(), "good.tar.gz")
        target = begin_upload(one, where)
        image(one, raw_disk={"source": f"https://storage.googleapis.com/{where.name}/good.tar.gz"})
        (before,) = one.images()
        one.clear()
        assert (one.images(), one.operations(), one.objects(where.name)) == ([], [], [])
        assert list(one.storage_client().list_buckets()) == []
        assert send(target, b"a", "0-0/1").status_code == 404
        assert not pathlib.Path(before["file"]).exists()
        one.make_bucket(where.name)
        put(where, b"a")
        (kept,) = one.objects(where.name)
    assert refuses(one.url)
    with gcp.start(one.directory) as again:
        assert again.objects(where.name) == []
        assert not pathlib.Path(kept["file"]).exists()
        assert again.accounts["owner"]["private_key"] != one.accounts["owner"]["private_key"]


PARENT = """
import pathlib, sys
from tests.sandbox import gcp
print(gcp.start(pathlib.Path(sys.argv[1]), stays=sys.argv[2] == "stays").url, flush=True)
"""


@pytest.mark.parametrize("stays", [False, True])
def test_end_of_who_started_it(tmp_path: pathlib.Path, stays: bool) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path), "stays" if stays else "goes"],
        cwd=starter.ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    url = ended.stdout.strip()
    if stays:
        assert not refuses(url)
        assert gcp.stop(tmp_path)
    assert processes.gone(tmp_path / "pid", 10)
    eventually(lambda: refuses(url))
    assert not gcp.stop(tmp_path)


def test_in_the_foreground(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "tests.sandbox.gcp", "--dir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, cwd=starter.ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        url, keys = running.stdout.readline().strip(), running.stdout.readline().strip()
        assert pathlib.Path(keys) == tmp_path / "keys.json"
        assert gcp.StandIn(tmp_path).url == url
        assert list(gcp.StandIn(tmp_path).storage_client().list_buckets()) == []
        running.terminate()
