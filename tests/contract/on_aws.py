# SPDX-License-Identifier: Apache-2.0
"""AWS under the contract: the sandbox's stand-in, as one who may do all, and by a role."""

import contextlib
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from ciming import cmd, config, disk_image
from ciming.providers import base
from ciming.providers.aws import provider as door
from tests.contract import subjects
from tests.sandbox import aws, sandbox

assert cmd  # imported first, as the processes do: it settles how they are concurrent

REGION, OTHER_REGION = "us-east-1", "eu-west-1"
AROUND = ("allow_http", "allow_loopback")
NOBODY = "http://127.0.0.1:1"


def keys(standin: aws.StandIn, account: str) -> dict[str, str]:
    """A credential as a secret has it."""
    known = standin.accounts[account]
    return {"access_key_id": known["access_key"], "secret_access_key": known["secret_key"]}


def configure() -> None:
    """Let a process go where the stand-in is."""
    config.register()
    config.CONF([], project="ciming", default_config_files=[], default_config_dirs=[])
    for option in AROUND:
        config.CONF.set_override(option, True, group="egress")


class Counted:
    """How often each call was made since."""

    def __init__(self, subject: "AWS") -> None:
        self._subject = subject
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        found = self._subject.standin.counters()
        return {**found["calls"], "puts": found["puts"]}

    def __getitem__(self, call: str) -> int:
        return self._now().get(call, 0) - self._before.get(call, 0)


class Anywhere(subjects.Subject):
    """What is true of the stand-in and of AWS itself."""

    name = "aws"
    proof = "guest"
    foreign_format = "qcow2"
    unit = 1 << 30
    knows_digests = False

    def __init__(self) -> None:
        self._made: list[door.AWS] = []

    def new(self, place: Mapping[str, Any], credential: Mapping[str, str]) -> door.AWS:
        made = door.AWS({"cloud": "amazon", "timeout": 30.0, **place}, credential)
        self._made.append(made)
        return made

    def says(self, provider: base.Provider, image_ref: str, what: str) -> bool:
        """It is deprecated minutes later."""
        assert isinstance(provider, door.AWS) and what == "deprecated"
        return bool((provider._show(image_ref) or {}).get("DeprecationTime"))

    def secrets(self) -> list[str]:
        return [secret for each in self._made for secret in each._account._secrets]


def squat(ebs: Any, ec2: Any, spec: base.ImageSpec, key: str, whom: Mapping[str, str]) -> str:
    """A stranger's image with all our tags, of our name, that we may use.

    :param ebs: a client of theirs, as `ec2`
    :param whom: we, as EC2 has it
    """
    tags = [{"Key": "ciming:target", "Value": key}, {"Key": "ciming:image", "Value": spec.image_id}]
    snapshot = ebs.start_snapshot(VolumeSize=1, Tags=tags)["SnapshotId"]
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
    made: str = ec2.register_image(
        Name=spec.name,
        RootDeviceName="/dev/sda1",
        VirtualizationType="hvm",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
        TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
    )["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[made], WaiterConfig={"Delay": 1})
    ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [whom]})
    return made


class AWS(Anywhere):
    place: Mapping[str, Any] = {}

    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        super().__init__()
        configure()
        for option in AROUND:
            stack.callback(config.CONF.clear_override, option, group="egress")
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ciming-aws-")))
        self.standin = stack.enter_context(aws.start(folder))

    def provider(self) -> door.AWS:
        return self.at("owner")

    def forbidden(self) -> door.AWS:
        return self.at("reader")

    def unreachable(self) -> door.AWS:
        return self.at("owner", endpoint_url=NOBODY)

    def at(self, account: str, **more: Any) -> door.AWS:
        """As somebody, with another place."""
        place = {"region": REGION, "endpoint_url": self.standin.url, **self.place, **more}
        return self.new(place, self.credential(account))

    def credential(self, account: str) -> dict[str, str]:
        return keys(self.standin, account)

    def refs(self, key: str) -> set[str]:
        images = [each for each in self.standin.images() if self._is_ours(each, key)]
        used = {snapshot for image in images for snapshot in image["snapshots"]}
        ours = [each for each in self.standin.snapshots() if self._is_ours(each, key)]
        return {image["id"] for image in images} | {each["id"] for each in ours} - used

    def _is_ours(self, thing: Mapping[str, Any], key: str) -> bool:
        owner = self.standin.accounts["owner"]["account_id"]
        return bool(thing["owner"] == owner and thing["tags"].get("ciming:target") == key)

    def parts(self, image_ref: str) -> set[str]:
        return {image_ref, self._snapshot(image_ref)}

    def _snapshot(self, image_ref: str) -> str:
        ((found,),) = (each["snapshots"] for each in self.standin.images() if each["id"] == image_ref)
        return str(found)

    def read(self, image_ref: str) -> bytes:
        snapshot = self._snapshot(image_ref)
        end = (max(self.standin.block_digests(snapshot)) + 1) * disk_image.BLOCK
        return self.standin.read_snapshot(snapshot, length=end).rstrip(b"\0")

    def squat(self, spec: base.ImageSpec, key: str) -> str:
        ebs, ec2 = (self.standin.client(service, "stranger") for service in ("ebs", "ec2"))
        return squat(ebs, ec2, spec, key, {"Group": "all"})

    def squatted(self, image_ref: str) -> bool:
        return image_ref in {each["id"] for each in self.standin.images()}


class Role(AWS):
    """By a role that is assumed, for one of several projects; of another one's keys."""

    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        super().__init__(cloud, stack)
        project = self.standin.role.external_id.removeprefix("ciming-")
        self.place = {"project": project, "tenant": project}

    def credential(self, account: str) -> dict[str, str]:
        if account == "owner":
            return {**keys(self.standin, "broker"), "role_arn": self.standin.role.arn}
        return super().credential(account)


class Bucket:
    """What of imports is in a bucket, and goes on, by boto3's own clients."""

    bucket: str
    s3: Any
    ec2: Any

    def begun(self, key: str) -> set[str]:
        """Of one kind in the bucket, whole or not, there is one; of imports only those that go on."""
        tasks = {each["ImportTaskId"] for each in self.tasks(key) if _detail(each)["Status"] == "active"}
        return self.objects(key) | tasks

    def used(self, image_ref: str) -> set[str]:
        """What an image has come by."""
        (image,) = self.ec2.describe_images(ImageIds=[image_ref])["Images"]
        (key,) = (tag["Value"] for tag in image["Tags"] if tag["Key"] == "ciming:target")
        return {f"ciming/{key}.raw", *(each["ImportTaskId"] for each in self.tasks(key))}

    def objects(self, key: str) -> set[str]:
        """Names in the bucket that have to do with the key, and of what was begun there."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {each["Key"] for each in [*listed, *self.uploads(key)] if key in each["Key"]}

    def uploads(self, key: str) -> list[dict[str, Any]]:
        found = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [each for each in found if key in each["Key"]]

    def tasks(self, key: str) -> list[dict[str, Any]]:
        found = self.ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]
        return [each for each in found if {"Key": "ciming:target", "Value": key} in each["Tags"]]


class Import(Bucket, AWS):
    """By an object in a bucket, which AWS imports."""

    bucket = "contract"
    place: Mapping[str, Any] = {"route": "s3-import", "bucket": bucket}

    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        super().__init__(cloud, stack)
        self.s3, self.ec2 = self.standin.client("s3"), self.standin.client("ec2")
        self.s3.create_bucket(Bucket=self.bucket)

    def refs(self, key: str) -> set[str]:
        return super().refs(key) | self.begun(key)

    def parts(self, image_ref: str) -> set[str]:
        return super().parts(image_ref) | self.used(image_ref)


def _detail(task: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = task["SnapshotTaskDetail"]
    return found
