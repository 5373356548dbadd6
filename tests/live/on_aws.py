# SPDX-License-Identifier: Apache-2.0
"""AWS itself under the contract. All that is made is removed.

The environment says with what: `CIMING_LIVE_AWS_REGION`, `CIMING_LIVE_AWS_ACCESS_KEY_ID` and
`CIMING_LIVE_AWS_SECRET_ACCESS_KEY`; for a session also `CIMING_LIVE_AWS_SESSION_TOKEN`. Some tests need
others: `CIMING_LIVE_AWS_READER_…`, the same account's keys that may only look, and
`CIMING_LIVE_AWS_STRANGER_…`, another account's. `CIMING_LIVE_AWS_ENDPOINT_URL` is where it is, if it is not
AWS.

The route s3-import is tried where `CIMING_LIVE_AWS_BUCKET` is a bucket for it; the role is `vmimport`, or
`CIMING_LIVE_AWS_IMPORT_ROLE`.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import boto3.session
import pytest

from ciming.providers import base
from ciming.providers.aws import provider as door
from tests.contract import on_aws

PREFIX = "CIMING_LIVE_AWS_"
KEYS = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")


def said(name: str) -> str:
    return os.environ.get(PREFIX + name, "")


def credential(who: str = "") -> dict[str, str]:
    """The keys of somebody; a test that needs those that there are not is skipped."""
    found = {name.lower(): said(who + name) for name in KEYS if said(who + name)}
    if len(found) < 2 or not said("REGION"):
        pytest.skip(f"needs {PREFIX}REGION and {PREFIX}{who}{KEYS[0]}, {PREFIX}{who}{KEYS[1]}")
    return found


class AWS(on_aws.Anywhere):
    def __init__(self) -> None:
        super().__init__()
        on_aws.configure()
        self._keys = credential()
        self._place = {"region": said("REGION")}
        if said("ENDPOINT_URL"):
            self._place["endpoint_url"] = said("ENDPOINT_URL")

    def provider(self) -> door.AWS:
        return self._at(self._keys)

    def forbidden(self) -> door.AWS:
        return self._at(credential("READER_"))

    def unreachable(self) -> door.AWS:
        return self._at(self._keys, endpoint_url=on_aws.NOBODY)

    def _at(self, keys: Mapping[str, str], **more: Any) -> door.AWS:
        return self.new({**self._place, **more}, keys)

    def refs(self, key: str) -> set[str]:
        filters = [{"Name": "tag:ciming:target", "Values": [key]}]
        images = self._ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
        snapshots = self._ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]
        alive = [each for each in images if each["State"] != "deregistered"]
        used = {snapshot for image in alive for snapshot in _snapshots(image)}
        return {each["ImageId"] for each in alive} | {each["SnapshotId"] for each in snapshots} - used

    def parts(self, image_ref: str) -> set[str]:
        return {image_ref, self._snapshot(image_ref)}

    def _snapshot(self, image_ref: str) -> str:
        (image,) = self._ec2.describe_images(ImageIds=[image_ref])["Images"]
        (snapshot,) = _snapshots(image)
        return snapshot

    def read(self, image_ref: str) -> bytes:
        snapshot, whole = self._snapshot(image_ref), bytearray()
        page = self._ebs.list_snapshot_blocks(SnapshotId=snapshot)      # of so few blocks there is one
        for block in page["Blocks"]:
            token, index = block["BlockToken"], block["BlockIndex"]
            answer = self._ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockToken=token)
            whole.extend(bytes(index * page["BlockSize"] - len(whole)))
            whole += answer["BlockData"].read()
        return bytes(whole).rstrip(b"\0")

    def squat(self, spec: base.ImageSpec, key: str) -> str:
        keys = credential("STRANGER_")
        ours = self._client("sts", self._keys).get_caller_identity()["Account"]
        return on_aws.squat(
            self._client("ebs", keys), self._client("ec2", keys), spec, key, {"UserId": ours}
        )

    def squatted(self, image_ref: str) -> bool:
        """It is removed at the same time."""
        ec2 = self._client("ec2", credential("STRANGER_"))
        return bool(ec2.describe_images(ImageIds=[image_ref])["Images"])

    @functools.cached_property
    def _ec2(self) -> Any:
        return self._client("ec2", self._keys)

    @functools.cached_property
    def _ebs(self) -> Any:
        return self._client("ebs", self._keys)

    def _client(self, service: str, keys: Mapping[str, str]) -> Any:
        """Boto3's own."""
        return boto3.session.Session().client(
            service,
            region_name=said("REGION"),
            endpoint_url=said("ENDPOINT_URL") or None,
            **{f"aws_{name}": value for name, value in keys.items()},
        )


class Import(on_aws.Bucket, AWS):
    def __init__(self) -> None:
        super().__init__()
        self.bucket = said("BUCKET")
        if not self.bucket:
            pytest.skip(f"needs {PREFIX}BUCKET")
        self._place |= {"route": "s3-import", "bucket": self.bucket}
        if said("IMPORT_ROLE"):
            self._place["import_role"] = said("IMPORT_ROLE")
        self.s3, self.ec2 = self._client("s3", self._keys), self._ec2

    def refs(self, key: str) -> set[str]:
        return super().refs(key) | self.begun(key)

    def parts(self, image_ref: str) -> set[str]:
        return super().parts(image_ref) | self.used(image_ref)


def _snapshots(image: Mapping[str, Any]) -> Iterator[str]:
    for device in image.get("BlockDeviceMappings", ()):
        if "SnapshotId" in device.get("Ebs", {}):
            yield str(device["Ebs"]["SnapshotId"])
