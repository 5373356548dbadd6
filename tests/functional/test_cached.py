# SPDX-License-Identifier: Apache-2.0
"""What the client kept answers as the service would: the same filters and orders, on the same rows."""

import datetime
import pathlib
import uuid
from typing import Any

import openstack
import pytest

from cimingclient import sdk
from cimingclient.sdk import cache, exceptions
from tests.person import Person

pytestmark = pytest.mark.usefixtures("service")
NAMES = ("b", "a", "B", "in:a", 'say "a, b"', "é")


@pytest.fixture(scope="module")
def made(service: object, member: Person) -> list[str]:
    """Images of all kinds of names, and of known and unknown sizes; none of them comes to be."""
    tag = str(uuid.uuid4())[:8]
    ids = []
    for number, name in enumerate(NAMES):
        more = {"size": 1000 + number % 2} if number < 4 else {}
        begun = member.create(name=f"{name} {tag}", **more)
        member.call("POST", f"/v1/jobs/{begun['job']['id']}/cancel")
        member.wait(begun["job"]["id"])
        ids.append(begun["image"]["id"])
    return [*ids, tag]


def same_matrix(client: Any, kept: cache.Cache, ids: list[str]) -> None:
    """What is where, by what it was a moment ago."""
    kept.refresh("availability")
    queries: list[dict[str, Any]] = [
        {},
        {"status": "available"},
        {"status": "nin:available,missing"},
        {"cloud": "zone-a", "sort": "name"},
        {"provider": "neq:openstack"},
        {"available_in": ["zone-a"], "cloud": "in:zone-a,zone-b"},
        {"missing_in": "zone-b", "available_in": "zone-a"},
        {"property": ["architecture=x86_64"]},
        {"tag": "golden"},
        {"id": ids[0]},
    ]
    for query in queries:
        theirs, ours = (
            [(row.image["id"], [each["cloud"] for each in row.clouds]) for row in of.availability(**query)]
            for of in (client, kept)
        )
        assert ours == theirs, query
    assert list(kept.availability(available_in="zone-a"))
    with pytest.raises(exceptions.QueryError, match="No Cloud nowhere"):
        kept.availability(missing_in="nowhere")


def test_the_same_answers(
    member: Person,
    made: list[str],
    qcow2: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"tags": ["golden"], "properties": {"architecture": "x86_64"}}
    assert member.bring(qcow2, name="there", **there)["status"] == "success"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = [str(member.cloud.clouds_file)]
    login = openstack.config.OpenStackConfig(config_files=files, load_envvars=False).get_one(member.name)
    conn = openstack.connection.Connection(config=login)
    client = sdk.add_to(conn).multicloud
    kept = cache.of(conn)
    for what in ("images", "clouds", "jobs"):
        kept.refresh(what)
    *ids, tag = made
    said = client.get_image(ids[0]).created_at
    later = (datetime.datetime.fromisoformat(said) + datetime.timedelta(hours=1)).isoformat()
    quoted = f'"say \\"a, b\\" {tag}",a {tag}'
    queries: list[dict[str, Any]] = [
        {},
        *({"sort": order} for order in ("name", "name:desc", "size,name", "size:desc,id:desc", "status,id")),
        *({"sort": "created_at", "marker": each} for each in ids[:2]),
        {"name": f"eq:in:a {tag}"},
        {"name": f"in:{quoted}"},
        {"name": f"nin:{quoted}"},
        {"name": f"neq:b {tag}", "sort": "name"},
        {"size": "gte:1001"},
        {"size": ["gt:1", "lt:1001"]},
        {"size": "neq:1000"},
        {"id": f"in:{ids[0]},{ids[1].upper()}"},
        {"status": "error", "created_at": f"gte:{said}", "sort": "updated_at"},
        {"created_at": f"lt:{later}"},
        {"cloud": "zone-a"},
        {"cloud": "nin:zone-a,zone-b"},
        {"disk_format": "neq:raw"},
    ]
    for query in queries:
        theirs, ours = ([each.id for each in source.images(**query)] for source in (client, kept))
        assert ours == theirs, query
    assert len(list(kept.images(size="gte:1000", name=f"neq:a {tag}"))) >= 3
    for query in ({"kind": "create", "sort": "finished_at:desc"}, {"cloud": "zone-a"}, {"image_id": ids[0]}):
        theirs, ours = ([each.id for each in source.jobs(**query)] for source in (client, kept))
        assert ours == theirs, query
    for query in ({}, {"name": "zone-a"}, {"provider": "neq:openstack"}, {"region": "in:zone-a,zone-b"}):
        theirs, ours = ([each.id for each in source.clouds(**query)] for source in (client, kept))
        assert ours == theirs, query
    job, same = client.get_job(next(client.jobs()).id), next(iter(kept.jobs()))
    assert (same.targets, same.progress, same.parent) == (job.targets, job.progress, job.parent)
    same_matrix(client, kept, ids)
    secrets = [member.token(), member.cloud.clouds["member"]["auth"]["password"]]
    for file in tmp_path.rglob("*.json"):
        assert not [secret for secret in secrets if secret in file.read_text()]
