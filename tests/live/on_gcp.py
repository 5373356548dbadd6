# SPDX-License-Identifier: Apache-2.0
"""Google Cloud itself under the contract. All that is made is removed; archives are kept until then.

The environment says with what: `CIMING_LIVE_GCP_BUCKET`, and `CIMING_LIVE_GCP_KEY`, a file with the key of
a service account. Some tests need others: `CIMING_LIVE_GCP_READER_KEY`, of the same project, that may only
look, and `CIMING_LIVE_GCP_STRANGER_KEY`, of another project, with a bucket
`CIMING_LIVE_GCP_STRANGER_BUCKET`. `CIMING_LIVE_GCP_ENDPOINT_URL` is where it is, if it is not Google.
"""

import functools
import io
import json
import os
import pathlib
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest
from google.cloud import compute_v1, storage

from ciming import config
from ciming.providers import base
from ciming.providers.gcp import images
from ciming.providers.gcp import provider as door
from tests.contract import on_aws, on_gcp

PREFIX = "CIMING_LIVE_GCP_"


def said(name: str) -> str:
    return os.environ.get(PREFIX + name, "")


def key_of(who: str = "") -> dict[str, Any]:
    """The key of somebody; a test that needs one that there is not is skipped."""
    if not (said(f"{who}KEY") and said("BUCKET")):
        pytest.skip(f"needs {PREFIX}BUCKET and {PREFIX}{who}KEY")
    found: dict[str, Any] = json.loads(pathlib.Path(said(f"{who}KEY")).read_text())
    return found


class GCP(on_gcp.Anywhere):
    def __init__(self) -> None:
        super().__init__()
        self._key = key_of()
        on_aws.configure()
        if said("ENDPOINT_URL"):
            config.CONF.set_override("token_urls", [self._key["token_uri"]], group="egress")

    def provider(self) -> door.GCP:
        return self._at(self._key)

    def forbidden(self) -> door.GCP:
        return self._at(key_of("READER_"))

    def unreachable(self) -> door.GCP:
        return self._at(self._key, endpoint_url=on_aws.NOBODY)

    def _at(self, key: Mapping[str, Any], **more: Any) -> door.GCP:
        place = {"project_id": self._project, "bucket": said("BUCKET"), "keep_archive": True}
        return self.new({**place, **_options("endpoint_url"), **more}, key)

    @property
    def _project(self) -> str:
        return str(self._key["project_id"])

    def refs(self, key: str) -> set[str]:
        """Of what is in the bucket, only what is not an image's."""
        listed = self._client(compute_v1.ImagesClient).list(
            request={"project": self._project, "filter": f"labels.ciming-target={key}"}
        )
        made = {images.ref_in(self._project, each.name) for each in listed}
        names = [each.name for each in self._bucket.list_blobs(prefix=f"ciming/{key}")]
        return made or {f"ciming/{key}.tar.gz" for name in names if key in name}

    def parts(self, image_ref: str) -> set[str]:
        return {image_ref, self._archive(image_ref)}

    def _archive(self, image_ref: str) -> str:
        project, name = images.parse(image_ref) or ("", "")
        found = self._client(compute_v1.ImagesClient).get(project=project, image=name)
        return f"ciming/{found.labels['ciming-target']}.tar.gz"

    def read(self, image_ref: str) -> bytes:
        """Of the archive, which is kept: Google lets no image out."""
        packed = io.BytesIO(self._bucket.blob(self._archive(image_ref)).download_as_bytes())
        with tarfile.open(fileobj=packed, mode="r:gz") as opened:
            member = opened.next()
            file = opened.extractfile(member) if member else None
            assert member and file
            runs: Any = member.sparse
            return file.read(max(offset + size for offset, size in runs if size)).rstrip(b"\0")

    def absent(self) -> str:
        return images.ref_in(self._project, "absent")

    def squat(self, spec: base.ImageSpec, key: str) -> str:
        """Its archive stays in the stranger's bucket."""
        theirs = key_of("STRANGER_")
        project, name = str(theirs["project_id"]), images.name(spec.name, spec.image_id)
        made = self._client(compute_v1.ImagesClient, theirs)
        operations = self._client(compute_v1.GlobalOperationsClient, theirs)
        labels, bucket = {"ciming-target": key}, said("STRANGER_BUCKET")
        on_gcp.make_empty(self._storage(theirs), made, operations, project, bucket, name, labels)
        on_gcp.let_use(made, project, name, self._key["client_email"])
        return images.ref_in(project, name)

    def squatted(self, image_ref: str) -> bool:
        project, name = images.parse(image_ref) or ("", "")
        client = self._client(compute_v1.ImagesClient, key_of("STRANGER_"))
        return bool(client.get(project=project, image=name).name)

    @functools.cached_property
    def _bucket(self) -> Any:
        return self._storage(self._key).bucket(said("BUCKET"))

    def _client(self, kind: Any, key: Mapping[str, Any] | None = None) -> Any:
        """Google's own."""
        return kind.from_service_account_info(key or self._key, client_options=_options("api_endpoint"))

    def _storage(self, key: Mapping[str, Any]) -> Any:
        options = _options("api_endpoint") or None
        return storage.Client.from_service_account_info(key, client_options=options)


def _options(name: str) -> dict[str, str]:
    return {name: said("ENDPOINT_URL")} if said("ENDPOINT_URL") else {}
