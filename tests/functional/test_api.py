# SPDX-License-Identifier: Apache-2.0
"""The API as any HTTP client sees it."""

import html.parser
import json
import pathlib
import re
import urllib.parse
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from keystoneauth1 import discover
from keystoneauth1 import session as ks_session

from cimingclient import sdk
from tests.person import JSON, Person
from tests.sandbox import ciming, sandbox

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
FERNET = re.compile(rb"gAAAA[\w-]{20,}")
"""How every token of the sandbox's Keystone begins."""


def get(service: ciming.Ciming, path: str, **headers: str) -> requests.Response:
    """Without a token."""
    return requests.get(service.url + path, headers=headers, timeout=30)


# Without a token


def test_version_discovery(service: ciming.Ciming) -> None:
    [version] = get(service, "/").json()["versions"]
    assert (version["id"], version["status"]) == ("v1.0", "CURRENT")
    assert version["links"] == [{"rel": "self", "href": f"{service.url}/v1/"}]
    for path in ("/v1", "/v1/"):
        assert get(service, path).json() == {"version": version}
    data = discover.Discover(ks_session.Session(), service.url).version_data()
    assert [(each["version"], each["url"]) for each in data] == [((1, 0), f"{service.url}/v1/")]


def test_healthcheck(service: ciming.Ciming) -> None:
    answer = get(service, "/healthcheck")
    assert answer.status_code == 200
    assert str(service.folder) not in answer.text and service.url not in answer.text


def test_openapi_document(service: ciming.Ciming) -> None:
    document = get(service, "/v1/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert "/v1/images/{image}/file" in document["paths"]


class References(html.parser.HTMLParser):
    """What a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_docs_page_needs_no_other_host(service: ciming.Ciming) -> None:
    page = get(service, "/v1/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    wanted = References(page.text).found
    assert any(name.endswith(".js") for name in wanted) and any(name.endswith(".css") for name in wanted)
    for name in wanted:
        url = urllib.parse.urljoin(page.url, name)
        assert url.startswith(f"{service.url}/")
        assert requests.get(url, timeout=30).status_code == 200, name
    elsewhere = set(re.findall(r"https?://[\w.:-]+", page.text)) - {service.url}
    assert not elsewhere
    assert "/v1/openapi.json" in page.text


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "nothing.js"])
def test_docs_serves_nothing_else(service: ciming.Ciming, name: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", f"{service.url}/v1/docs/assets/").prepare()
    request.url = f"{service.url}/v1/docs/assets/{name}"        # as it is
    assert session.send(request, timeout=30).status_code == 404


def test_options(service: ciming.Ciming) -> None:
    for path, methods in (("/v1/images", {"GET", "POST"}), (f"/v1/images/{uuid.uuid4()}/file", {"PUT"})):
        answer = requests.options(service.url + path, timeout=30)
        assert answer.status_code in (200, 204)
        assert methods <= set(answer.headers["Allow"].split(", "))


# Lists


@pytest.fixture(scope="module")
def made(service: ciming.Ciming, member: Person, tmp_path_factory: pytest.TempPathFactory) -> list[JSON]:
    """Ended Jobs, oldest first: six successes under three names, one error."""
    file = tmp_path_factory.mktemp("api") / "raw"
    file.write_bytes(b"x" * 512)
    jobs = [member.bring(file, name=f"api-{number % 3}") for number in range(6)]
    return [*jobs, member.bring(file, name="api-bad", disk_format="qcow2")]


def pages(who: Person, path: str, **query: Any) -> Iterator[list[JSON]]:
    """Follow the links, as they are."""
    answer = who.get(path, params=query).json()
    noun = path.rpartition("/")[2]
    while True:
        yield answer[noun]
        following = [link["href"] for link in answer["links"] if link["rel"] == "next"]
        if not following:
            return
        assert following[0].startswith(f"{who.url}{path}?")
        answer = who.get(following[0].removeprefix(who.url)).json()


def ids(found: list[JSON]) -> list[str]:
    return [each["id"] for each in found]


@pytest.mark.parametrize("noun", ["images", "jobs"])
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_pages_have_everything_once(member: Person, made: list[JSON], noun: str, limit: int) -> None:
    everything = list(pages(member, f"/v1/{noun}", limit=limit))
    assert all(0 < len(page) <= limit for page in everything)
    found = ids([each for page in everything for each in page])
    assert len(set(found)) == len(found)
    key = "id" if noun == "jobs" else "image_id"
    expected = [job[key] for job in reversed(made)]        # newest first
    assert [each for each in found if each in expected] == expected


def test_pages_are_stable_while_new_rows_come(
    member: Person, made: list[JSON], tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "raw"
    file.write_bytes(b"x" * 512)
    before = ids([each for page in pages(member, "/v1/images", limit=1000) for each in page])
    found: list[str] = []
    for number, page in enumerate(pages(member, "/v1/images", limit=5)):
        found += ids(page)
        if number < 2:
            member.bring(file, name="api-late")
    assert found == before


def test_a_page_starts_after_its_marker(member: Person, made: list[JSON]) -> None:
    answer = member.get("/v1/jobs", params={"marker": made[3]["id"], "limit": 3})
    assert ids(answer.json()["jobs"]) == [made[2]["id"], made[1]["id"], made[0]["id"]]


def test_a_limit_has_a_limit(service: ciming.Ciming, member: Person, made: list[JSON]) -> None:
    answer = member.get("/v1/jobs", params={"limit": 10**9})
    assert answer.status_code == 200 and len(answer.json()["jobs"]) <= 1000


def test_links_keep_the_filters(member: Person, made: list[JSON]) -> None:
    found = list(pages(member, "/v1/images", limit=1, name="api-1", status="active"))
    assert [ids(page) for page in found] == [[made[4]["image_id"]], [made[1]["image_id"]]]
    hostile = "ä&limit=9 #?/"
    assert list(pages(member, "/v1/images", limit=1, name=hostile)) == [[]]


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("images", {"name": "api-0"}, [3, 0]),
        ("images", {"name": "api"}, []),
        ("images", {"name": "api-bad", "status": "error"}, [6]),
        ("images", {"name": "api-bad", "status": "active"}, []),
        ("jobs", {"status": "error"}, [6]),
        ("jobs", {"kind": "create"}, [6, 5, 4, 3, 2, 1, 0]),
        ("jobs", {"kind": "sync"}, []),
        ("jobs", {"status": "queued"}, []),
    ],
)
def test_filters(
    member: Person, made: list[JSON], path: str, query: dict[str, str], expected: list[int]
) -> None:
    found = [each for page in pages(member, f"/v1/{path}", **query) for each in page]
    key = "id" if path == "jobs" else "image_id"
    known = [job[key] for job in made]
    assert [known.index(each) for each in ids(found) if each in known] == expected
    for each in found:
        assert query.items() <= each.items()


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("images", {"name": "in:api-0,api-bad"}, [6, 3, 0]),
        ("images", {"name": 'in:"api-0","a,b"', "status": "neq:error"}, [3, 0]),
        ("images", {"name": ["neq:api-0", "nin:api-1,api-2"]}, [6]),
        ("images", {"size": "lte:512", "disk_format": "raw"}, [5, 4, 3, 2, 1, 0]),
        ("images", {"size": "gt:512"}, []),
        ("images", {"disk_format": "neq:raw"}, [6]),
        ("images", {"cloud": "zone-a"}, [5, 4, 3, 2, 1, 0]),
        ("images", {"cloud": "nin:zone-a,zone-b"}, [6]),
        ("images", {"sort": "name,created_at:asc"}, [0, 3, 1, 4, 2, 5, 6]),
        ("images", {"sort": "status:desc,name:desc,created_at"}, [6, 2, 5, 1, 4, 0, 3]),
        ("images", {"sort": "disk_format,created_at", "limit": "2"}, [0, 1, 2, 3, 4, 5, 6]),
        ("images", {"sort": "disk_format:desc,created_at", "limit": "2"}, [6, 0, 1, 2, 3, 4, 5]),
        ("jobs", {"status": "nin:success,uploading"}, [6]),
        ("jobs", {"cloud": "in:zone-a,moon", "sort": "status,finished_at:desc"}, [6, 5, 4, 3, 2, 1, 0]),
        ("jobs", {"cloud": "zone-b"}, []),
    ],
)
def test_filters_with_operators_and_any_order(
    member: Person, made: list[JSON], path: str, query: dict[str, Any], expected: list[int]
) -> None:
    """What other tests left is out of the picture: rows are told apart by when they were made."""
    since, until = made[0]["created_at"], made[-1]["created_at"]
    key = "id" if path == "jobs" else "image_id"
    known = [job[key] for job in made]
    window = {"created_at": [f"gte:{member.image(made[0]['image_id'])['created_at']}", f"lte:{until}"]}
    assert since <= until
    for limit in ({}, {"limit": "1"}):
        found = [each for page in pages(member, f"/v1/{path}", **window, **query | limit) for each in page]
        assert [known.index(each) for each in ids(found) if each in known] == expected


def test_times_and_ids_as_filters(member: Person, made: list[JSON]) -> None:
    middle = made[3]
    newer = member.get("/v1/jobs", params={"created_at": f"gt:{middle['created_at']}", "limit": 1000})
    assert [each for each in ids(newer.json()["jobs"]) if each in ids(made)] == ids(made)[:3:-1]
    same = member.get("/v1/jobs", params={"created_at": middle["created_at"]}).json()["jobs"]
    assert middle["id"] in ids(same)
    same = member.get("/v1/jobs", params={"request_id": middle["request_id"]}).json()["jobs"]
    assert ids(same) == [middle["id"]]
    two = f"in:{made[1]['id']},{made[2]['id'].upper()}"
    assert ids(member.get("/v1/jobs", params={"id": two}).json()["jobs"]) == ids(made)[2:0:-1]


def test_clouds_with_filters(member: Person) -> None:
    for query, expected in (
        ({"name": "zone-a"}, ["zone-a"]),
        ({"name": "neq:zone-a"}, ["zone-b"]),
        ({"provider": "in:openstack,aws", "region": "zone-b"}, ["zone-b"]),
        ({"provider": "aws"}, []),
    ):
        found = member.get("/v1/clouds", params=query).json()["clouds"]
        assert [cloud["name"] for cloud in found] == expected


def test_the_client_lists_with_filters_and_order(member: Person, made: list[JSON]) -> None:
    listed = member.openstack(
        *("multicloud", "image", "list", "--name", "api-1", "--status", "active", "--status", "partial"),
        *("--cloud", "zone-a", "--sort", "created_at:asc", "-f", "value", "-c", "ID"),
    )
    assert listed.stdout.split() == [made[1]["image_id"], made[4]["image_id"]]
    conn = sdk.add_to(member.zone("zone-a"))
    window = [f"gte:{made[1]['created_at']}", f"lt:{made[4]['created_at']}"]
    jobs = conn.multicloud.jobs(created_at=window, sort="created_at", limit=1)
    assert [job.id for job in jobs] == ids(made)[1:4]


def test_filter_by_image_and_parent(member: Person, made: list[JSON]) -> None:
    for job in made[:2]:
        answer = member.get("/v1/jobs", params={"image_id": job["image_id"].upper()})
        assert ids(answer.json()["jobs"]) == [job["id"]]
    assert member.get("/v1/jobs", params={"parent": made[0]["id"]}).json() == {"jobs": [], "links": []}


# Who may what


def test_a_reader_of_the_project_reads(reader: Person, member: Person, made: list[JSON]) -> None:
    job = made[0]
    for path in (f"/v1/images/{job['image_id']}", f"/v1/jobs/{job['id']}", "/v1/jobs", "/v1/clouds"):
        mine = member.get(path)
        theirs = reader.get(path)
        assert (theirs.status_code, theirs.json()) == (200, mine.json())


def test_an_administrator_sees_all(admin: Person, made: list[JSON]) -> None:
    """By their ids; in a list only when asked for, page after page."""
    job = made[0]
    assert admin.project_id != job["project_id"]
    assert admin.image(job["image_id"])["project_id"] == job["project_id"]
    assert admin.job(job["id"])["id"] == job["id"]
    theirs = {"images": {job["image_id"] for job in made}, "jobs": {job["id"] for job in made}}
    for noun, expected in theirs.items():
        own = ids([each for page in pages(admin, f"/v1/{noun}") for each in page])
        assert not expected & set(own)
        for word in ("true", "True", "1"):
            query = {"all_projects": word, "limit": "2"}
            all_of_them = ids([each for page in pages(admin, f"/v1/{noun}", **query) for each in page])
            assert expected <= set(all_of_them)
        not_asked = ids([each for page in pages(admin, f"/v1/{noun}", all_projects="0") for each in page])
        assert not_asked == own
        shown = admin.openstack("multicloud", noun[:-1], "list", "--all-projects", "-f", "json").stdout
        assert {(one, job["project_id"]) for one in expected} <= {
            (row["ID"], row["Project"]) for row in json.loads(shown)
        }


def test_nobody_else_lists_all_projects(reader: Person, member: Person, stranger: Person) -> None:
    for person in (reader, member, stranger):
        for noun in ("image", "job"):
            answer = person.get(f"/v1/{noun}s", params={"all_projects": "true"})
            assert answer.status_code == 403
            assert f"ciming:{noun}:list:all_projects" in answer.json()["message"]
            assert person.get(f"/v1/{noun}s", params={"all_projects": "0"}).status_code == 200
            wrong = person.get(f"/v1/{noun}s", params={"all_projects": "yes"})
            assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (400, "all_projects")


def test_a_stranger_sees_nothing(stranger: Person, made: list[JSON]) -> None:
    for path in ("/v1/images", "/v1/jobs"):
        assert stranger.get(path).json()["links"] == []
        for query in ({}, {"name": "api-0"} if path == "/v1/images" else {"image_id": made[0]["image_id"]}):
            text = stranger.get(path, params=query).text
            assert not [job for job in made if job["id"] in text or job["image_id"] in text]
    for path in (f"/v1/images/{made[0]['image_id']}", f"/v1/jobs/{made[0]['id']}"):
        absent = re.sub(r"[\w-]{36}$", str(uuid.uuid4()), path)
        theirs, nobodys = stranger.get(path), stranger.get(absent)
        assert theirs.status_code == nobodys.status_code == 404
        assert _without_ids(theirs) == _without_ids(nobodys)     # nothing tells them apart


def _without_ids(answer: requests.Response) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", answer.text)


def test_clouds(member: Person) -> None:
    clouds = member.get("/v1/clouds").json()["clouds"]
    assert [cloud["name"] for cloud in clouds] == ["zone-a", "zone-b"]
    for cloud in clouds:
        name = cloud["name"]
        assert cloud == {
            "id": name,
            "name": name,
            "provider": "openstack",
            "region": name,
            "visibility": "public",
            "zone": True,
            "config": {},
            **dict.fromkeys(("project_id", "credential_ref", "created_at", "updated_at")),
        }
        assert member.get(f"/v1/clouds/{name}").json() == cloud
    answer = member.get("/v1/clouds/moon")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "cloud.not_found"


# Answers


def test_create_says_where_the_job_is(member: Person) -> None:
    answer = member.call("POST", "/v1/images", json={"name": "api", "clouds": ["zone-a"], "size": 512})
    assert answer.status_code == 202
    body = answer.json()
    image, job = body["image"], body["job"]
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert member.get(answer.headers["Location"]).json() == job
    assert member.image(image["id"]) == image
    assert (image["status"], job["status"], job["image_id"]) == ("uploading", "uploading", image["id"])
    assert job["request_id"] == answer.headers["X-Openstack-Request-Id"]
    assert image["digests"] == {"sha256": None, "sha512": None, "guest": None}
    assert image["links"] == [] and image["size"] == 512
    [target] = job["targets"]
    assert (target["cloud"], target["status"], target["step"]) == ("zone-a", "waiting", "receive")
    assert job["progress"] == {"bytes_done": 0, "bytes_total": 1024}
    assert member.put(image["id"], b"x" * 512).status_code == 204
    ended = member.wait(job["id"])
    assert ended["progress"] == {"bytes_done": 1024, "bytes_total": 1024}


IMAGE_FIELDS = {
    *("id", "name", "project_id", "status", "disk_format", "size", "virtual_size", "digests"),
    *("links", "tags", "hidden", "deprecated", "created_at", "updated_at"),
}
JOB_FIELDS = {
    *("id", "kind", "wanted", "status", "project_id", "image_id", "parent", "request_id", "progress"),
    *("targets", "error", "report", "created_at", "started_at", "finished_at"),
}
TARGET_FIELDS = {
    *("id", "cloud", "provider", "region", "status", "step", "bytes_done", "bytes_total"),
    *("attempts", "image_ref", "error", "remarks"),
}
LINK_FIELDS = {"cloud", "provider", "region", "image_ref", "proof", "verified_at"}


def test_fields(member: Person, made: list[JSON]) -> None:
    job, bad = made[0], made[-1]
    image = member.image(job["image_id"])
    assert image.keys() == IMAGE_FIELDS
    assert job.keys() == bad.keys() == JOB_FIELDS
    assert image["links"][0].keys() == LINK_FIELDS
    assert job["targets"][0].keys() == TARGET_FIELDS
    assert bad["error"].keys() >= {"code", "message"}
    assert bad["targets"][0]["error"].keys() == {"code", "message", "cloud_request_id"}
    assert job["error"] is None and job["targets"][0]["error"] is None


def test_times(member: Person, made: list[JSON]) -> None:
    image, job = member.image(made[0]["image_id"]), made[0]
    times = [
        *(job[name] for name in ("created_at", "started_at", "finished_at")),
        *(image[name] for name in ("created_at", "updated_at")),
        image["links"][0]["verified_at"],
    ]
    assert all(TIME.fullmatch(time) for time in times), times
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    age = datetime.now(UTC) - datetime.fromisoformat(job["finished_at"])
    assert timedelta(0) <= age < timedelta(minutes=10)


def test_every_answer_has_a_request_id_of_its_own(service: ciming.Ciming, member: Person) -> None:
    paths = ("/", "/healthcheck", "/v1/docs", "/v1/images", "/v1/images/nonsense", "/nowhere")
    answers = [member.get(path) for path in paths]
    found = [answer.headers["X-Openstack-Request-Id"] for answer in answers]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"req-[0-9a-f-]{36}", each) for each in found)


def test_a_request_id_is_not_the_callers_to_choose(member: Person) -> None:
    for theirs in (f"req-{uuid.uuid4()}", "x" * 5000, "<b>"):
        answer = member.get("/v1/images/nonsense", headers={"X-Openstack-Request-Id": theirs})
        assert theirs not in answer.text
        assert answer.headers["X-Openstack-Request-Id"] != theirs


def test_answers_vary_by_version(member: Person) -> None:
    for path in ("/", "/v1/clouds", "/v1/images/nonsense"):
        assert "OpenStack-API-Version" in member.get(path).headers["Vary"]


# Secrets


def test_no_secret_is_answered_logged_or_kept(
    cloud: sandbox.Sandbox, service: ciming.Ciming, member: Person, made: list[JSON]
) -> None:
    """The service logs at debug level here."""
    job = made[-1]
    answers = [
        *(member.get(path) for path in ("/", "/v1/clouds", "/v1/images", "/v1/jobs")),
        member.get(f"/v1/jobs/{job['id']}"),
        member.get("/v1/images", headers={"X-Auth-Token": "gAAAA-this-is-not-a-token-of-anyone"}),
        member.call("POST", "/v1/images", json={"name": "x", "clouds": ["moon"]}),
        member.get("/nowhere"),
    ]
    secrets = [member.token(), *cloud.state.passwords.values(), "gAAAA-this-is-not-a-token-of-anyone"]
    kept = {f"answer of {answer.url}": answer.content + str(answer.headers).encode() for answer in answers}
    ours = [file for file in service.folder.rglob("*") if file not in service.config_files]
    servers = [file for server in service.servers for file in (server / "data").rglob("*")]
    files = [file for file in (*ours, *servers) if file.is_file()]
    kept |= {str(file): file.read_bytes() for file in files}
    for pid in service.pids:
        process = pathlib.Path(f"/proc/{pid}")
        kept |= {str(process / name): (process / name).read_bytes() for name in ("cmdline", "environ")}
    assert any(file.suffix == ".log" and b"DEBUG" in kept[str(file)] for file in files)
    for where, text in kept.items():
        for secret in secrets:
            assert secret.encode() not in text, where
        assert not FERNET.search(text), where


def test_nothing_is_kept_of_what_ended_well(service: ciming.Ciming, made: list[JSON]) -> None:
    """Spec, trust and TaskFlow's book of a success are gone; all that a failure needs is not."""
    with sa.create_engine(service.database_url, poolclass=sa.NullPool).connect() as connection:
        for job in made[:-1]:
            of_job = f"FROM jobs WHERE id = '{job['id']}'"
            [row] = connection.execute(sa.text(f"SELECT spec, trust_id, owner {of_job}"))
            assert tuple(row) == (None, None, None)
            books = sa.text(f"SELECT count(*) FROM logbooks WHERE uuid = '{job['id']}'")
            assert connection.scalar(books) == 0
