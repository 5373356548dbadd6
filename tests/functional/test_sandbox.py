# SPDX-License-Identifier: Apache-2.0
"""The sandbox bears load: what fails in a test is CIMinG's, and not that of a service on SQLite."""

import os
from concurrent import futures

import requests

from tests.person import Person
from tests.sandbox import sandbox

THREADS = 8
ROUNDS = 200 if "CIMING_TEST_ALL" in os.environ else 5


def test_glance_takes_many_at_once(cloud: sandbox.Sandbox, member: Person) -> None:
    """Each thread creates an image, uploads it, looks at all of them and deletes it, again and again."""
    headers = {"X-Auth-Token": member.token()}
    images = f"{cloud.url('glance-a')}/v2/images"
    wanted = {"name": "load", "disk_format": "raw", "container_format": "bare"}
    octets = {"Content-Type": "application/octet-stream"}

    def work(_thread: int) -> list[int]:
        statuses = []
        with requests.Session() as session:
            session.headers.update(headers)
            for _ in range(ROUNDS):
                made = session.post(images, json=wanted, timeout=60)
                url = f"{images}/{made.json()['id']}" if made.status_code == 201 else images
                put = session.put(f"{url}/file", data=bytes(1024), headers=octets, timeout=60)
                looks = [session.get(each, timeout=60) for each in (url, images)]
                deleted = session.delete(url, timeout=60)
                statuses += [answer.status_code for answer in (made, put, *looks, deleted)]
        return statuses

    with futures.ThreadPoolExecutor(THREADS) as pool:
        found = [status for statuses in pool.map(work, range(THREADS)) for status in statuses]
    assert found == [201, 204, 200, 200, 204] * (len(found) // 5)
    assert len(found) == 5 * THREADS * ROUNDS
