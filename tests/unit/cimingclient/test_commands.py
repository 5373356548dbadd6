# SPDX-License-Identifier: Apache-2.0
"""Lists and shows: what they print, for people and for programs."""

import io
import types
from typing import Any

import pytest
from cliff import command as cliff_command
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions

from cimingclient.osc import availability, cloud, image, job
from tests.unit.cimingclient import conftest
from tests.unit.cimingclient import stub as _stub


def test_clouds(stub: _stub.Stub, run: conftest.Runner) -> None:
    zone = {"ID": "zone-a", "Name": "zone-a", "Provider": "openstack", "Region": "zone-a"}
    assert run(cloud.ListCloud, "-f", "json").json[0] == zone
    assert run(cloud.ListCloud, "-f", "json", "--long").json[0] == zone | {
        "Visibility": "public",
        "Zone": True,
    }
    assert run(cloud.ShowCloud, "-f", "value", "-c", "zone", "zone-b").stdout == "True\n"
    with pytest.raises(exceptions.CommandError, match="No Cloud found for zone-c"):
        run(cloud.ShowCloud, "zone-c")


def test_image_list(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image("one"), _stub.image("two", links=[], tags=[]), _stub.image("three")]
    listed = run(image.ListImage, "-f", "json").json
    assert [each["Name"] for each in listed] == ["one", "two", "three"]
    assert [each["Clouds"] for each in listed] == [["zone-a"], [], ["zone-a"]]
    first = run(image.ListImage, "-f", "json", "--long").json[0]
    assert (first["Size"], first["Tags"], first["Disk Format"]) == (5 << 20, ["blue"], "qcow2")
    assert "5.0 MiB (5242880)" in run(image.ListImage, "--long").stdout


def test_a_limit_asks_for_no_more_than_it_shows(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image(str(number)) for number in range(6)]
    listed = run(image.ListImage, "-f", "value", "-c", "Name", "--limit", "3").stdout
    assert listed.split() == ["0", "1", "2"]
    assert stub.calls.count("GET /v1/images") == 2
    after = run(image.ListImage, "-f", "value", "-c", "Name", "--limit", "2", "--marker", "2")
    assert after.stdout.split() == ["3", "4"]


def test_filters_and_order_are_the_services(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image("in:a", status="error"), _stub.image("a", cloud="zone-a")]
    stub.images[0]["cloud"] = None
    listed = run(image.ListImage, "-f", "json", "--name", "in:a").json
    assert [each["Name"] for each in listed] == ["in:a"]
    both = run(image.ListImage, "-f", "json", "--status", "error", "--status", "active").json
    assert len(both) == 2
    run(image.ListImage, "--cloud", "zone-a", "--disk-format", "qcow2", "--name", "a", "--sort", "size:desc")
    assert stub.queries[-1] == {
        "name": "eq:a",
        "cloud": "eq:zone-a",
        "disk_format": "eq:qcow2",
        "sort": "size:desc",
    }
    run(job.ListJob, "--kind", "create", "--status", "error", "--status", "partial", "--sort", "status,id")
    assert stub.queries[-1] == {"kind": "eq:create", "status": "in:error,partial", "sort": "status,id"}


def test_a_cloud_to_list_is_meant_by_name_or_id(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.clouds.append(_stub.cloud("other", id="1234", zone=False))
    stub.images = [_stub.image("one", cloud="other"), _stub.image("two", cloud="lost")]
    for given, found in (("1234", "one\n"), ("other", "one\n"), ("lost", "two\n")):
        listed = run(image.ListImage, "--cloud", given, "-f", "value", "-c", "Name")
        assert (listed.status, listed.stdout) == (0, found)
        assert ("You may use no cloud lost now" in listed.stderr) is (given == "lost")


def cell(where: str, **more: Any) -> _stub.Json:
    kind = {"cloud": where, "provider": "openstack", "region": where, "proof": "bytes", "image_ref": "1234"}
    return {**kind, "status": "available", "differs": [], "metadata": None, "error": None, **more}


def test_a_limit_makes_no_small_pages_of_which_little_is_left(
    stub: _stub.Stub, run: conftest.Runner
) -> None:
    call = "GET /v1/availability"
    page = {"availability": [{"image": _stub.image("one"), "clouds": [cell("zone-a")]}]}
    stub.live[call] = [{"availability": []}, page, page]
    for arguments in (("--status", "available"), ("--property", "a=b"), ("--available-in", "zone-a")):
        listed = run(availability.ListAvailability, *arguments, "--limit", "1", "-f", "json")
        assert [each["Name"] for each in listed.json] == ["one"]
        assert [query["limit"] for query in stub.queries] == ["500", "500"]
        stub.queries.clear()
    run(availability.ListAvailability, "--limit", "1")
    assert [query["limit"] for query in stub.queries] == ["1", "1"]


def test_what_is_untracked_is_looked_for_in_whole_pages(stub: _stub.Stub, run: conftest.Runner) -> None:
    there = dict.fromkeys(("name", "status", "image_id")) | {"image_ref": "1234", "candidates": []}
    stub.live["GET /v1/clouds/zone-a/images"] = [{"images": []}, {"images": [there, there]}]
    argv = ("zone-a", "--limit", "1", "-f", "value", "-c", "Image Ref")
    assert run(availability.ListCloudImage, *argv, "--untracked").stdout == "1234\n"
    assert [query.get("limit") for query in stub.queries] == [None, None]
    run(availability.ListCloudImage, *argv)
    assert stub.queries[-1]["limit"] == "1"


BAD = "\x1b[2Jone\nand \x9bmore"


@pytest.mark.parametrize("long", [(), ("--long",)])
def test_words_of_clouds_move_no_cursor(
    stub: _stub.Stub, run: conftest.Runner, long: tuple[str, ...]
) -> None:
    """Who parses them gets them as they are."""
    said: Any = dict.fromkeys(("status", "disk_format", "visibility", "created_at"), BAD)
    said |= {"tags": [BAD], "digests": {BAD: BAD}, "size": 5, "name": BAD}
    there = {**said, "image_ref": BAD, "image_id": None, "candidates": []}
    stub.live["GET /v1/clouds/zone-a/images"] = [{"images": [there]}] * 2
    cell: Any = dict.fromkeys(("cloud", "status", "image_ref", "provider", "region", "proof"), BAD)
    cell |= {"error": None, "differs": [], "metadata": said}
    page = {"availability": [{"image": {"id": "i", "name": BAD}, "clouds": [cell]}]}
    stub.live["GET /v1/availability"] = [page, page]
    for command, *argv in ((availability.ListCloudImage, "zone-a"), (availability.ListAvailability,)):
        shown = run(command, *argv, *long).stdout
        assert "?[2Jone and ?more" in shown and not {"\x1b", "\x9b"} & {*shown}
        listed = run(command, *argv, *long, "-f", "json").json
        assert {each["Name"] for each in listed} == {BAD}
        assert all(each.get("Tags", [BAD]) == [BAD] for each in listed)


def test_clouds_that_were_not_seen_are_told_once(stub: _stub.Stub, run: conftest.Runner) -> None:
    error = {"code": "cloud.unavailable", "message": "It does\nnot answer"}
    page = {"images": [], "unseen": [{"cloud": "zone-b", "status": "unreachable", "error": error}]}
    stub.live["GET /v1/clouds/zone-a/images"] = [page, page]
    listed = run(availability.ListCloudImage, "zone-a", "--candidates")
    told = "Not seen whether zone-b has the same: It does not answer [cloud.unavailable]\n"
    assert (listed.status, listed.stderr) == (0, told)


def test_all_projects_are_asked_for_and_named(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image("one"), _stub.image("two", project_id="q"), _stub.image("three")]
    stub.jobs = {"a": [_stub.job("success", identity="a")], "b": [_stub.job("error", project_id="q")]}
    for command in (image.ListImage, job.ListJob):
        listed = run(command, "-f", "json", "--all-projects").json
        assert [each["Project"] for each in listed] == ["p", "q", "p"][: len(listed)]
        assert stub.queries and all(query == {"all_projects": "True"} for query in stub.queries)
        assert run(command, "-f", "json", "--all-projects", "--long").json[0]["Project"] == "p"
        stub.queries.clear()
        run(command, "-f", "json")
        assert stub.queries and not any(stub.queries)
        stub.queries.clear()


def test_image_show(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image("demo", size=None, links=[_stub.link("zone-a")])]
    shown = run(image.ShowImage, "demo", "-f", "json").json
    assert shown["links"] == [_stub.link("zone-a")]
    assert shown["digests"] == {"sha256": "ab", "sha512": None, "guest": None}
    assert shown["size"] is None
    assert "zone-a: 1234 (bytes)" in run(image.ShowImage, stub.images[0]["id"]).stdout


def test_an_ambiguous_name_is_an_error(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image("same"), _stub.image("same")]
    with pytest.raises(sdk_exceptions.DuplicateResource, match="More than one Image"):
        run(image.ShowImage, "same")


def test_job_list(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.images = [_stub.image("demo")]
    image_id = stub.images[0]["id"]
    stub.jobs = {
        "a": [_stub.job("success", identity="a", image_id=image_id)],
        "b": [_stub.job("running", _stub.target("zone-a", "running", done=25), identity="b")],
    }
    assert [each["ID"] for each in run(job.ListJob, "-f", "json").json] == ["a", "b"]
    by_image = run(job.ListJob, "-f", "json", "--image", "demo").json
    assert [each["ID"] for each in by_image] == ["a"]
    stub.images = []
    by_id = run(job.ListJob, "-f", "json", "--image", image_id).json
    assert [each["ID"] for each in by_id] == ["a"]
    running = run(job.ListJob, "-f", "json", "--status", "running", "--long").json
    assert running[0]["Targets"][0]["cloud"] == "zone-a"
    assert running[0]["Progress"] == {"bytes_done": 25, "bytes_total": 100}
    assert "25 % (25 B of 100 B)" in run(job.ListJob, "--status", "running").stdout


def test_job_show(stub: _stub.Stub, run: conftest.Runner) -> None:
    failed = _stub.target(
        "zone-b",
        "error",
        done=100,
        attempts=3,
        error={"code": "cloud.forbidden", "message": "No\nway", "cloud_request_id": "req-9"},
    )
    fine = _stub.target("zone-a", "success") | {"remarks": ["It\nis larger."]}
    stub.jobs["j"] = [_stub.job("partial", fine, failed, identity="j")]
    assert run(job.ShowJob, "j", "-f", "json").json["targets"][1]["error"]["message"] == "No\nway"
    table = run(job.ShowJob, "j").stdout
    assert "zone-a: success" in table and "  It is larger." in table
    [line] = [line for line in table.splitlines() if "zone-b" in line]
    assert "zone-b: error, 100 % (100 B of 100 B), 3 attempts" in line
    assert "No way [cloud.forbidden] (cloud request id: req-9)" in table


@pytest.mark.parametrize(
    ("command", "call"), [(job.CancelJob, "cancel"), (job.RetryJob, "retry")], ids=["cancel", "retry"]
)
def test_cancel_and_retry(
    stub: _stub.Stub, run: conftest.Runner, command: type[job.CancelJob | job.RetryJob], call: str
) -> None:
    stub.jobs["j"] = [_stub.job("running", identity="j", wanted="cancel")]
    shown = run(command, "j", "-f", "json")
    assert (shown.status, shown.json["status"], shown.json["wanted"]) == (0, "running", "cancel")
    assert stub.calls[-1] == f"POST /v1/jobs/j/{call}"
    stub.jobs["j"] += [_stub.job("cancelled", identity="j", wanted="cancel")]
    waited = run(command, "j", "--wait", "-f", "value", "-c", "status")
    assert (waited.status, waited.stdout) == (4, "cancelled\n")
    assert waited.stderr.splitlines()[-1] == "Job j was cancelled."
    stub.refuse(f"POST /v1/jobs/j/{call}", _stub.Refusal(409, "Job j has ended: success", "job.has_ended"))
    with pytest.raises(exceptions.CommandError, match=r"has ended: success \(HTTP 409\)"):
        run(command, "j", "--wait")


@pytest.mark.parametrize("wait", [True, False], ids=["wait", "not"])
def test_where_one_image_is_refused_the_others_are_deleted_and_told(
    stub: _stub.Stub, run: conftest.Runner, wait: bool
) -> None:
    stub.images = [_stub.image(name) for name in ("one", "two", "three")]
    busy = _stub.Refusal(409, "Another Job works on it", "image.busy", field=None)
    stub.refuse(f"DELETE /v1/images/{stub.images[1]['id']}", busy)
    with pytest.raises(exceptions.CommandError, match=r"^2 of 4 images failed to delete\.$"):
        run(image.DeleteImage, "one", "two", "none", "three", *(["--wait"] if wait else []))
    told = run.stderr.getvalue()
    one, three = stub.jobs
    assert f"Job {one} deletes one." in told and f"Job {three} deletes three." in told
    assert "Failed to delete two: Another Job works on it (HTTP 409)" in told
    assert "Failed to delete none: No Image found for none" in told
    assert [f"GET /v1/jobs/{each}" in stub.calls for each in (one, three)] == [wait, wait]
    assert ("openstack multicloud job wait" in told) is not wait


def test_a_job_that_is_not_seen_any_more_does_not_hide_the_next(
    stub: _stub.Stub, run: conftest.Runner
) -> None:
    stub.images = [_stub.image(name) for name in ("one", "two")]
    begun = _stub.Stub._begun

    def begin(self: _stub.Stub, outcome: list[_stub.Json], **more: Any) -> _stub.Json:
        job = begun(self, outcome, **more)
        if len(self.jobs) == 1:
            self.refuse(f"GET /v1/jobs/{job['id']}", _stub.Refusal(403, "Not you"))
        return job

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_stub.Stub, "_begun", begin)
        with pytest.raises(exceptions.CommandError, match="1 of 2 images failed"):
            run(image.DeleteImage, "one", "two", "--wait")
    first, second = stub.jobs
    assert f"Job {first} goes on" in run.stderr.getvalue()
    assert f"GET /v1/jobs/{second}" in stub.calls


def test_an_error_names_field_status_and_request(stub: _stub.Stub, run: conftest.Runner) -> None:
    stub.refuse("GET /v1/images", _stub.Refusal(400, "no such item", field="marker"))
    with pytest.raises(exceptions.CommandError) as caught:
        run(image.ListImage)
    assert str(caught.value) == "marker: no such item (HTTP 400) (Request-ID: req-stub)"


def list_cloud() -> Any:
    app: Any = types.SimpleNamespace(stdout=io.StringIO())
    return cloud.ListCloud(app, None)


def test_the_help_ends_as_that_of_every_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    command = list_cloud()
    theirs = cliff_command.Command.get_epilog(command)
    assert "plugin" in theirs

    def search() -> None:
        raise AssertionError("all that is installed was searched for our name")

    monkeypatch.setattr(cliff_command, "_get_distributions_by_modules", search)
    assert command.get_parser("openstack").epilog == theirs.strip()


def test_hooks_have_their_say_in_the_help() -> None:
    command = list_cloud()
    silent, loud = (types.SimpleNamespace(get_epilog=lambda said=said: said) for said in (None, "Hello."))
    command._hooks = [types.SimpleNamespace(obj=obj) for obj in (None, silent, loud)]
    assert command.get_epilog().startswith("Hello.\n\n")
