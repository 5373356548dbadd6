# SPDX-License-Identifier: Apache-2.0
"""Whatever the API can do, the SDK and the command line can do too."""

import argparse
import inspect
from importlib import metadata
from typing import Any, NamedTuple

import pytest
from oslo_config import cfg

from ciming import config
from ciming.api import app
from cimingclient.sdk import _proxy

COMMANDS = "openstack.multicloud.v1"


class Client(NamedTuple):
    """The method of `conn.multicloud`, and the words (and options) after `openstack`."""

    method: str
    command: str


CLIENTS = {
    "list_clouds": Client("clouds", "multicloud cloud list"),
    "show_cloud": Client("get_cloud", "multicloud cloud show"),
    "create_cloud": Client("create_cloud", "multicloud cloud create --config"),
    "update_cloud": Client("update_cloud", "multicloud cloud set"),
    "delete_cloud": Client("delete_cloud", "multicloud cloud delete"),
    "check_cloud": Client("check_cloud", "multicloud cloud check"),
    "update_image": Client("update_image", "multicloud image set --tag --wait"),
    "list_cloud_images": Client("cloud_images", "multicloud cloud image list --untracked"),
    "list_availability": Client("availability", "multicloud availability list --missing-in"),
    "show_availability": Client("get_availability", "multicloud availability list --image"),
    "delete_image": Client("delete_image", "multicloud image delete --keep-remote"),
    "sync_image": Client("sync_image", "multicloud image sync --wait"),
    "link_image": Client("link_image", "multicloud image link --wait"),
    "unlink_image": Client("unlink_image", "multicloud image unlink"),
    "create_image": Client("create_image", "multicloud image create"),
    "upload_image": Client("upload_image", "multicloud image create --file"),
    "show_upload": Client("upload_offset", "multicloud image upload"),
    "continue_upload": Client("resume_upload", "multicloud image upload --file"),
    "list_images": Client("images", "multicloud image list"),
    "show_image": Client("get_image", "multicloud image show"),
    "list_jobs": Client("jobs", "multicloud job list"),
    "show_job": Client("get_job", "multicloud job show"),
    "cancel_job": Client("cancel_job", "multicloud job cancel --wait"),
    "retry_job": Client("retry_job", "multicloud job retry --wait"),
    "sync_zones": Client("sync_zones", "multicloud zone sync --wait"),
    "resume_job": Client("resume_job", "multicloud job resume --credential"),
}
"""By operationId."""

EXEMPT = {
    "list_versions": "the SDK's discovery asks for it by itself",
    "show_version": "the SDK's discovery asks for it by itself",
    "show_upload_options": "for tus clients that do not know what the service can do",
    "terminate_upload": "a method, terminate_upload; the command is job cancel",
}
"""Operations without a method and command of their own, and why."""

BESIDE = {
    "multicloud availability export": "list_availability, in other words",
    "multicloud image adopt": "create_image without clouds; a method, adopt_image",
    "multicloud job wait": "asks show_job again and again",
    "multicloud image unset": "update_image with fewer tags",
}
"""Commands that are no operation of their own."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    config.register(cfg.CONF)
    found: dict[str, Any] = app.create_flask_app().test_client().get("/v1/openapi.json").get_json()
    return found


def test_every_operation_has_a_method_and_a_command(document: dict[str, Any]) -> None:
    served = {
        operation["operationId"]
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
    }
    assert not CLIENTS.keys() & EXEMPT.keys()
    assert served == CLIENTS.keys() | EXEMPT.keys()


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
def test_the_method_is_there_and_explained(client: Client) -> None:
    method = getattr(_proxy.Proxy, client.method)
    assert callable(method) and inspect.getdoc(method)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
def test_the_command_is_there_and_explained(client: Client) -> None:
    words = [word for word in client.command.split() if not word.startswith("--")]
    [entry] = metadata.entry_points(group=COMMANDS, name="_".join(words))
    command = entry.load()(argparse.Namespace(), None)
    assert command.get_description()
    options = command.get_parser("x").format_help()
    for option in set(client.command.split()) - set(words):
        assert f"{option} " in options


def test_every_command_is_for_an_operation() -> None:
    commands = {entry.name.replace("_", " ") for entry in metadata.entry_points(group=COMMANDS)}
    known = {client.command.partition(" --")[0] for client in CLIENTS.values()}
    assert commands == known | BESIDE.keys()


def test_the_filters_of_a_list_are_those_of_the_method(document: dict[str, Any]) -> None:
    for noun, resource in _proxy.Proxy._resource_registry.items():
        parameters = document["paths"][f"/v1/{noun}s"]["get"].get("parameters", [])
        offered = {parameter["name"] for parameter in parameters if parameter.get("in") == "query"}
        assert offered <= set(resource._query_mapping._mapping.values()), noun
