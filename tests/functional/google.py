# SPDX-License-Identifier: Apache-2.0
"""Clouds at Google, which a stand-in plays, and what an Image left there."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Self

from ciming import disk_image
from tests.functional.test_clouds import secret
from tests.person import JSON, Person
from tests.sandbox import gcp

BUCKET = "images"
CLOUDS: dict[str, JSON] = {
    "google": {"share_with": ["group:everybody@example.com"], "family": "ours"},
    "keeping": {"keep_archive": True},
}
"""Configs by name. google shares what it has, keeping keeps archives."""
ONLY_ARCHIVES = ("storage.*", "compute.*.[gl]*")


class Google:
    """The stand-in and, once a person has registered them, their Clouds there.

    :param port: where CIMinG may exchange keys
    """

    def __init__(self, folder: pathlib.Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def __enter__(self) -> Self:
        self.standin = gcp.start(self._folder, port=self._port)
        self.standin.make_bucket(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self.standin.stop()

    def register(self, person: Person) -> None:
        key = self.standin.accounts["owner"]
        place = {"project_id": key["project_id"], "bucket": BUCKET, "endpoint_url": self.standin.url}
        ref = secret(person, json.dumps(key))
        for name, config in CLOUDS.items():
            body = {"name": name, "provider": "gcp", "config": {**place, **config}, "credential_ref": ref}
            made = person.call("POST", "/v1/clouds", json=body)
            assert made.status_code == 201, made.text

    @contextlib.contextmanager
    def making_none(self) -> Iterator[None]:
        """The account may make no image."""
        self.standin.allow("owner", *ONLY_ARCHIVES)
        yield
        self.standin.reset()

    @contextlib.contextmanager
    def stuck(self) -> Iterator[None]:
        """The next image is not ready before the end of this."""
        self.standin.fault("stuck", "compute.images.insert")
        yield
        self.standin.reset()

    def images(self, image_id: str) -> list[JSON]:
        """Those of an Image."""
        return [each for each in self.standin.images() if each["labels"].get("ciming-image") == image_id]

    def objects(self, target_ids: list[str]) -> list[JSON]:
        """Those of Targets."""
        found = self.standin.objects(BUCKET)
        return [each for each in found if any(key in each["name"] for key in target_ids)]

    def left(self, image_id: str, target_ids: list[str]) -> JSON:
        """All that there is of an Image, but for what differs from run to run."""
        images, objects = self.images(image_id), self.objects(target_ids)
        return {
            "images": _sorted([{**_kept(each), "disk": _disk(each)} for each in images]),
            "bucket": _sorted(
                [
                    {"object": each["name"], **{name: each.get(name) for name in ("crc32c", "metadata")}}
                    for each in objects
                ]
            ),
        }


def _kept(image: JSON) -> JSON:
    users = [binding["members"] for binding in image["policy"].get("bindings", ())]
    kept = ("project", "status", "labels", "family", "diskSizeGb", "architecture", "deprecated")
    return {"image": image["name"], "users": users, **{name: image.get(name) for name in kept}}


def _disk(image: JSON) -> str:
    path = pathlib.Path(image["file"])
    if not path.exists():
        return "none"
    records = [(index, hashlib.sha256(block).digest()) for index, block in disk_image.blocks(path)]
    return disk_image.digest_of(records)


def _sorted(things: list[JSON]) -> list[JSON]:
    return sorted(things, key=lambda each: json.dumps(each, sort_keys=True))
