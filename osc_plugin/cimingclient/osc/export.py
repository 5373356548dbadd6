# SPDX-License-Identifier: Apache-2.0
"""What images are called in clouds, as files of tools that launch workloads. No file has a credential."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from cimingclient.sdk import cloud as _cloud

Found = Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]
"""Images, each with what it is in those clouds where it is available."""
Clouds = Mapping[str, _cloud.Cloud]


def _json(found: Found, _clouds: Clouds) -> str:
    """By Image, what it is in each cloud."""
    images = [
        {
            "id": image["id"],
            "name": image["name"],
            "tags": image["tags"],
            "clouds": {
                cell["cloud"]: {name: cell[name] for name in ("provider", "region", "image_ref")}
                for cell in cells
            },
        }
        for image, cells in found
    ]
    return json.dumps({"images": images}, indent=2) + "\n"


def _terraform(found: Found, _clouds: Clouds) -> str:
    """A file to lie beside others: local.multicloud_images["demo"]["zone-a"] is an id."""
    lines = ["locals {", "  multicloud_images = {"]
    for key, cells in _keyed(found):
        lines.append(f"    {_hcl(key)} = {{")
        lines += [f"      {_hcl(cell['cloud'])} = {_hcl(cell['image_ref'])}" for cell in cells]
        lines.append("    }")
    return "\n".join([*lines, "  }", "}"]) + "\n"


def _hcl(text: str) -> str:
    """A string of HCL, in which nothing is to be replaced."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")


def _clouds_yaml(found: Found, clouds: Clouds) -> str:
    """What openstacksdk reads, without logins: of each OpenStack where it is, and `images`, ids by names."""
    written: dict[str, Any] = {}
    for key, cells in _keyed(found):
        for cell in cells:
            if cell["provider"] == "openstack":
                entry = written.setdefault(cell["cloud"], _entry(cell, clouds.get(cell["cloud"])))
                entry["images"][key] = cell["image_ref"]
    return str(yaml.safe_dump({"clouds": written}, sort_keys=True, allow_unicode=True))


def _entry(cell: Mapping[str, Any], cloud: _cloud.Cloud | None) -> dict[str, Any]:
    url = (cloud.config or {}).get("auth_url") if cloud else None
    return {"region_name": cell["region"], **({"auth": {"auth_url": url}} if url else {}), "images": {}}


def _keyed(found: Found) -> list[tuple[str, list[dict[str, Any]]]]:
    """By the Image's name, or its id where several have that name."""
    names = Counter(image["name"] for image, _cells in found)
    return [
        (image["name"] if names[image["name"]] == 1 else image["id"], cells) for image, cells in found
    ]


FORMATS: Mapping[str, Callable[[Found, Clouds], str]] = {
    "terraform": _terraform,
    "clouds-yaml": _clouds_yaml,
    "json": _json,
}
