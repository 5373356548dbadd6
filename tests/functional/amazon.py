# SPDX-License-Identifier: Apache-2.0
"""Clouds at AWS of all tempers, which a stand-in plays, and what an Image left there."""

import hashlib
import json
import pathlib
from typing import Any, Self

from tests.contract.on_aws import keys
from tests.functional.test_clouds import secret
from tests.person import JSON, Person
from tests.sandbox import aws

BUCKET = "ciming-imports-"
EVER = 10**9
CLOUDS: dict[str, JSON] = {
    "virginia": {"region": "us-east-1"},
    "frankfurt": {"region": "eu-central-1"},
    "ireland": {"region": "eu-west-1", "route": "s3-import", "bucket": BUCKET + "ireland"},
    "oregon": {"region": "us-west-2", "route": "s3-import", "bucket": BUCKET + "oregon"},
    "portland": {"region": "us-west-2"},
}
"""Configs by name. Virginia shares with a stranger, Oregon takes no bytes, Portland registers nothing."""


class Amazon:
    """The stand-in and, once a person has registered them, their Clouds there."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self.standin = aws.start(self._folder)
        for kind, action in (("denied", "UploadPart"), ("quota", "RegisterImage")):     # both after the check
            self.standin.fault(kind, action, region="us-west-2", times=EVER)
        for config in CLOUDS.values():
            if "bucket" in config:
                place = {"LocationConstraint": config["region"]}
                self._s3(config).create_bucket(Bucket=config["bucket"], CreateBucketConfiguration=place)
        return self

    def __exit__(self, *_: object) -> None:
        self.standin.stop()

    def register(self, person: Person) -> None:
        ref = secret(person, json.dumps(keys(self.standin, "owner")))
        stranger = self.standin.accounts["stranger"]["account_id"]
        for name, config in CLOUDS.items():
            shared = {"share_with": [stranger]} if name == "virginia" else {}
            config = {**config, **shared, "endpoint_url": self.standin.url}
            body = {"name": name, "provider": "aws", "config": config, "credential_ref": ref}
            made = person.call("POST", "/v1/clouds", json=body)
            assert made.status_code == 201, made.text

    def imports(self, image_id: str) -> list[str]:
        """Of an Image, those that go on."""
        tasks = [task for config in CLOUDS.values() for task in self._tasks(config, image_id)]
        return [each["ImportTaskId"] for each in tasks if each["SnapshotTaskDetail"]["Status"] == "active"]

    def left(self, image_id: str, target_ids: list[str]) -> JSON:
        """All that there is of an Image, but for names that differ from run to run."""
        snapshots = [each for each in self.standin.snapshots() if _is_of(each, image_id)]
        images = [each for each in self.standin.images() if _is_of(each, image_id)]
        used = {snapshot for image in images for snapshot in image["snapshots"]}
        assert used <= {each["id"] for each in snapshots}
        return {
            "images": _sorted([_kept(each) for each in images]),
            "snapshots": _sorted(
                [
                    {**_kept(each), "used": each["id"] in used, "disk": self._disk(each["id"])}
                    for each in snapshots
                ]
            ),
            "imports": len(self.imports(image_id)),
            "bucket": [name for name in self._objects() if any(each in name for each in target_ids)],
        }

    def _disk(self, snapshot_id: str) -> str:
        digests = sorted(self.standin.block_digests(snapshot_id).items())
        return hashlib.sha256(repr(digests).encode()).hexdigest()

    def _tasks(self, config: JSON, image_id: str) -> list[JSON]:
        ec2 = self.standin.client("ec2", region=config["region"])
        found = ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]
        return [each for each in found if {"Key": "ciming:image", "Value": image_id} in each["Tags"]]

    def _objects(self) -> list[str]:
        """Names of objects, and of what was begun of them."""
        found = []
        for config in CLOUDS.values():
            if "bucket" in config:
                s3, bucket = self._s3(config), {"Bucket": config["bucket"]}
                found += s3.list_objects_v2(**bucket).get("Contents", [])
                found += s3.list_multipart_uploads(**bucket).get("Uploads", [])
        return sorted(each["Key"] for each in found)

    def _s3(self, config: JSON) -> Any:
        return self.standin.client("s3", region=config["region"])


def _is_of(thing: JSON, image_id: str) -> bool:
    return bool(thing["tags"].get("ciming:image") == image_id)


def _kept(thing: JSON) -> JSON:
    tags = {name: value for name, value in thing["tags"].items() if name != "Name"}
    return {**{name: thing.get(name) for name in ("region", "state", "users", "deprecated")}, "tags": tags}


def _sorted(things: list[JSON]) -> list[JSON]:
    return sorted(things, key=lambda each: json.dumps(each, sort_keys=True))
