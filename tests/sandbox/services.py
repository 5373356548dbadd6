# SPDX-License-Identifier: Apache-2.0
"""What a sandbox runs, on which ports, and the configuration of each service."""

import json
import pathlib
import shutil
from typing import Literal, NamedTuple

from tests.sandbox import files, processes
from tests.sandbox import state as sandbox_state

Kind = Literal["keystone", "glance", "barbican"]
ZONES = {"zone-a": "glance-a", "zone-b": "glance-b"}
SECOND_REGION = "RegionOne"

PORTS = {
    "keystone": 0,
    "glance-a": 1,
    "glance-b": 2,
    "barbican": 3,
    "ciming": 4,
    "keystone2": 5,
    "glance2": 6,
    "google": 7,
}
"""Where in the sandbox's block of ports each service listens. Google's stand-in others may start there."""

LOGIN = (
    "auth_url",
    "auth_type",
    "username",
    "password",
    "project_name",
    "user_domain_name",
    "project_domain_name",
)
"""What of an […_authtoken] section another section needs for a login as the same user."""

PROBES: dict[Kind, tuple[str, str]] = {
    "keystone": ("/v3", "/v3/auth/projects"),
    "glance": ("/healthcheck", "/v2/images?limit=1"),
    "barbican": ("/healthcheck", "/v1/secrets?limit=1"),
}
"""What shows that a service is up, and a read that shows that it works."""


class Service(NamedTuple):
    """One OpenStack service of the sandbox."""

    name: str
    kind: Kind
    port: int
    keystone: str
    """Name of the Keystone it belongs to: of the first or of the second cloud."""


def services(state: sandbox_state.State) -> list[Service]:
    """Return what this sandbox runs, each Keystone before the services that need it."""
    first: list[tuple[str, Kind]] = [
        ("keystone", "keystone"),
        ("glance-a", "glance"),
        ("glance-b", "glance"),
    ]
    if state.barbican:
        first.append(("barbican", "barbican"))
    second: list[tuple[str, Kind]] = [("keystone2", "keystone"), ("glance2", "glance")]
    found = [Service(name, kind, port(state, name), "keystone") for name, kind in first]
    if state.second:
        found += [Service(name, kind, port(state, name), "keystone2") for name, kind in second]
    return found


def port(state: sandbox_state.State, name: str) -> int:
    """Return the port of a service, of CIMinG's too."""
    return state.port_base + PORTS[name]


def url(state: sandbox_state.State, name: str) -> str:
    """Return the base URL of a service."""
    return f"http://{processes.HOST}:{port(state, name)}"


def egress(state: sandbox_state.State) -> dict[str, object]:
    """Return the options that let CIMinG go to what is on this host."""
    return {"allow_http": "true", "allow_loopback": "true", "token_urls": f"{url(state, 'google')}/token"}


def configure(
    service: Service, state: sandbox_state.State, folder: pathlib.Path, venv: pathlib.Path
) -> None:
    """Write the configuration of a service into its folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if service.kind == "keystone":
        _keystone(service, state, folder)
    elif service.kind == "glance":
        shutil.copy(venv / "etc/glance/glance-api-paste.ini", folder)
        _glance(service, state, folder)
    else:
        shutil.copy(venv / "etc/barbican/barbican-api-paste.ini", folder)
        _barbican(service, state, folder)


def authtoken(
    state: sandbox_state.State, keystone: str, user: str, service_type: str
) -> dict[str, object]:
    """Return the [keystone_authtoken] section of a service user."""
    keystone_url = f"{url(state, keystone)}/v3"
    return {
        "www_authenticate_uri": keystone_url,
        "auth_url": keystone_url,
        "auth_type": "password",
        "username": user,
        "password": state.passwords[user],
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "interface": "public",
        "service_type": service_type,
        "service_token_roles": "service",
        "service_token_roles_required": "true",
    }


def _keystone(service: Service, state: sandbox_state.State, folder: pathlib.Path) -> None:
    conf: files.Sections = {
        "DEFAULT": {
            "log_file": folder / "service.log",
            "public_endpoint": url(state, service.name),
        },
        "database": {"connection": f"sqlite:///{folder}/keystone.db"},
        "fernet_tokens": {"key_repository": folder / "fernet-keys"},
        "credential": {"key_repository": folder / "credential-keys"},
        "token": {"expiration": state.token_seconds},
        "identity": {"password_hash_rounds": 4},
        "cache": {"backend": "dogpile.cache.memory_pickle"},  # a request takes 10 ms, not 45
    }
    files.write(folder / "keystone.conf", files.ini(conf))
    bootstrap = {
        "password": state.passwords["admin"],
        "region": next(iter(ZONES)) if service.name == "keystone" else SECOND_REGION,
        "url": f"{url(state, service.name)}/v3",
    }
    files.write(folder / "bootstrap.json", json.dumps(bootstrap))


def _glance(service: Service, state: sandbox_state.State, folder: pathlib.Path) -> None:
    stores = ("fast", "cold", "staging", "tasks")
    for store in stores:
        (folder / store).mkdir(exist_ok=True)
    sections = ("fast", "cold", "os_glance_staging_store", "os_glance_tasks_store")
    conf: files.Sections = {
        "DEFAULT": {
            "log_file": folder / "service.log",
            "bind_host": processes.HOST,
            "enabled_backends": "fast:file, cold:file",
            "enabled_import_methods": "[glance-direct,web-download,copy-image,glance-download]",
            "worker_self_reference_url": url(state, service.name),
            "node_staging_uri": f"file://{folder}/staging",
        },
        "glance_store": {"default_backend": "fast"},
        **{
            section: {
                "filesystem_store_datadir": folder / store,
                "filesystem_store_chunk_size": 1 << 20,
            }
            for section, store in zip(sections, stores, strict=True)
        },
        "database": {"connection": f"sqlite:///{folder}/glance.db"},
        "paste_deploy": {
            "flavor": "keystone",
            "config_file": folder / "glance-api-paste.ini",
        },
        "oslo_policy": {"policy_file": folder / "policy.yaml"},
        "import_filtering_opts": {  # loopback is refused by default
            "allowed_hosts": f"[{processes.HOST}]",
            "allowed_ports": "[]",
            "allowed_schemes": "[http,https]",
        },
        "task": {"work_dir": folder / "tasks"},
        "taskflow_executor": {"engine_mode": "parallel"},
        "keystone_authtoken": authtoken(state, service.keystone, "glance", "image"),
    }
    files.write(folder / "glance-api.conf", files.ini(conf))


def _barbican(service: Service, state: sandbox_state.State, folder: pathlib.Path) -> None:
    conf: files.Sections = {
        "DEFAULT": {
            "log_file": folder / "service.log",
            "host_href": url(state, service.name),
        },
        "database": {"connection": f"sqlite:///{folder}/barbican.db"},
        "secretstore": {"enabled_secretstore_plugins": "store_crypto"},
        "crypto": {"enabled_crypto_plugins": "simple_crypto"},
        "simple_crypto_plugin": {"kek": state.barbican_key},
        "queue": {"enable": False},
        "keystone_authtoken": authtoken(state, service.keystone, "barbican", "key-manager"),
    }
    # Barbican looks for its configuration in $HOME/.barbican when it is imported.
    files.write(folder / ".barbican/barbican.conf", files.ini(conf))
