# SPDX-License-Identifier: Apache-2.0
"""Google Cloud under the contract: the sandbox's stand-in, as an account that may do all."""

import contextlib
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from google.cloud import compute_v1

from ciming import cmd, config, disk_image
from ciming.providers import base
from ciming.providers.gcp import archive, images
from ciming.providers.gcp import provider as door
from tests.contract import on_aws, subjects
from tests.sandbox import gcp, sandbox

assert cmd  # imported first, as the processes do: it settles how they are concurrent

BUCKET = "contract"


def let_use(client: Any, project: str, name: str, email: str) -> None:
    """Let a service account use an image.

    :param client: of images, of who may say so
    """
    binding = compute_v1.Binding(role=images.USER, members=[f"serviceAccount:{email}"])
    wanted = compute_v1.GlobalSetPolicyRequest(policy=compute_v1.Policy(bindings=[binding]))
    client.set_iam_policy(project=project, resource=name, global_set_policy_request_resource=wanted)


def make_empty(
    storage: Any, made: Any, operations: Any, project: str, bucket: str, name: str, labels: Mapping[str, str]
) -> None:
    """An image of an empty disk, by three clients of Google's."""
    header = archive._header(archive.runs([], archive.GIB), archive.GIB)
    found = archive.Sum()
    found.add_plain(archive.crc32(header), len(header))
    data = archive.pack(archive.Piece(0, header, ()), header) + archive.end(found)
    storage.bucket(bucket).blob(f"{name}.tar.gz").upload_from_string(data, retry=None)
    source = f"https://storage.googleapis.com/{bucket}/{name}.tar.gz"
    disk = {"source": source, "container_type": "TAR"}
    image = {"name": name, "labels": dict(labels), "raw_disk": disk}
    operation = made.insert_unary(project=project, image_resource=image)
    while operation.status != compute_v1.Operation.Status.DONE:
        operation = operations.wait(project=project, operation=operation.name)
    assert not operation.error.errors, operation


class Anywhere(subjects.Subject):
    """What is true of the stand-in and of Google Cloud itself."""

    name = "gcp"
    proof = "guest"
    foreign_format = "qcow2"
    unit = 1 << 30
    knows_digests = False

    def __init__(self) -> None:
        self._made: list[door.GCP] = []

    def new(self, place: Mapping[str, Any], key: Mapping[str, Any]) -> door.GCP:
        made = door.GCP({"cloud": "google", "timeout": 30.0, **place}, key)
        self._made.append(made)
        return made

    def secrets(self) -> list[str]:
        tokens = [each._account._credentials.token for each in self._made]
        return [*(secret for each in self._made for secret in each._account._secrets), *filter(None, tokens)]


class GCP(Anywhere):
    """Images whose archives go when they are made."""

    lets_out = False
    place: Mapping[str, Any] = {}

    def __init__(self, cloud: sandbox.Sandbox, stack: contextlib.ExitStack) -> None:
        super().__init__()
        on_aws.configure()
        for option in (*on_aws.AROUND, "token_urls"):
            stack.callback(config.CONF.clear_override, option, group="egress")
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ciming-gcp-")))
        self.standin = stack.enter_context(gcp.start(folder))
        config.CONF.set_override("token_urls", [f"{self.standin.url}/token"], group="egress")
        self.standin.make_bucket(BUCKET)

    def provider(self) -> door.GCP:
        return self.at("owner")

    def forbidden(self) -> door.GCP:
        return self.at("reader")

    def unreachable(self) -> door.GCP:
        return self.at("owner", endpoint_url=on_aws.NOBODY)

    def at(self, account: str, **more: Any) -> door.GCP:
        """As somebody, with another place."""
        project = self.standin.accounts["owner"]["project_id"]
        known = {"project_id": project, "bucket": BUCKET, "endpoint_url": self.standin.url}
        return self.new({**known, **self.place, **more}, self.standin.accounts[account])

    def refs(self, key: str) -> set[str]:
        """Images, and of what is in the bucket one name: that of the archive, whole or not."""
        project = self.standin.accounts["owner"]["project_id"]
        made = [each for each in self.standin.images() if each["project"] == project]
        ours = {
            f"projects/{project}/global/images/{each['name']}"
            for each in made
            if each.get("labels", {}).get("ciming-target") == key
        }
        return ours | self.archives(key) if not (ours and self.place.get("keep_archive")) else ours

    def absent(self) -> str:
        return f"projects/{self.standin.accounts['owner']['project_id']}/global/images/absent"

    def archives(self, key: str) -> set[str]:
        found = {each["name"] for each in self.standin.objects(BUCKET) if key in each["name"]}
        return {f"ciming/{key}.tar.gz"} if found else set()

    def parts(self, image_ref: str) -> set[str]:
        (image,) = (each for each in self.standin.images() if image_ref.endswith(f"/{each['name']}"))
        return {image_ref, f"ciming/{image['labels']['ciming-target']}.tar.gz"}

    def read(self, image_ref: str) -> bytes:
        name = image_ref.rpartition("/")[2]
        (file,) = (each["file"] for each in self.standin.images() if each["name"] == name)
        last = max(index for index, _ in disk_image.blocks(pathlib.Path(file)))
        return self.standin.read_image(name, 0, (last + 1) * disk_image.BLOCK).rstrip(b"\0")

    def squat(self, spec: base.ImageSpec, key: str) -> str:
        """A stranger's image of our name with our labels, that we may use."""
        project, name = self.standin.accounts["stranger"]["project_id"], images.name(spec.name, spec.image_id)
        self.standin.make_bucket(f"theirs-{key[:8]}", "stranger")
        made = self.make_image("stranger", f"theirs-{key[:8]}", name, {"ciming-target": key})
        us = str(self.standin.accounts["owner"]["client_email"])
        let_use(self.standin.images_client("stranger"), project, made, us)
        return f"projects/{project}/global/images/{made}"

    def make_image(self, account: str, bucket: str, name: str, labels: Mapping[str, str]) -> str:
        """Of an empty disk, by Google's clients alone."""
        project = self.standin.accounts[account]["project_id"]
        clients = (self.standin.storage_client, self.standin.images_client, self.standin.operations_client)
        storage, made, operations = (client(account) for client in clients)
        make_empty(storage, made, operations, project, bucket, name, labels)
        return name

    def squatted(self, image_ref: str) -> bool:
        project, name = images.parse(image_ref) or ("", "")
        return any((each["project"], each["name"]) == (project, name) for each in self.standin.images())


class Kept(GCP):
    """Images that can be read, since their archives stay."""

    lets_out = True
    place: Mapping[str, Any] = {"keep_archive": True}


class Shared(Kept):
    """One project for several of OpenStack's."""

    place: Mapping[str, Any] = {"keep_archive": True, "tenant": "9b347fc8113a3bc7dc9648f8f985358a"}
