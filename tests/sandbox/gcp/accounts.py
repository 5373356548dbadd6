# SPDX-License-Identifier: Apache-2.0
"""Projects, service accounts, and their keys.

- A key's file: https://cloud.google.com/iam/docs/keys-create-delete#creating
- A key that was deleted signs no more, but tokens that it was used for stay good until they end:
  https://cloud.google.com/iam/docs/keys-create-delete#deleting
"""

import secrets
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.sandbox.gcp.state import Account, Key, State

READS = (
    "compute.images.get", "compute.images.list", "compute.images.getFromFamily",
    "compute.images.getIamPolicy", "compute.images.useReadOnly", "compute.globalOperations.get",
    "compute.globalOperations.list", "storage.buckets.get", "storage.buckets.list",
    "storage.objects.get", "storage.objects.list",
)  # fmt: skip
ACCOUNTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "owner": ("ciming-images-1", ("*",)),
    "reader": ("ciming-images-1", READS),
    "stranger": ("somebody-else-2", ("*",)),
}
"""The accounts: their project, and what they may do there."""
PROJECTS = frozenset(project for project, _ in ACCOUNTS.values())
TOKEN_PATH = "/token"


def set_up(state: State) -> None:
    """Make the accounts; they have no key yet."""
    for name, (project, _) in ACCOUNTS.items():
        state.accounts[name] = Account(name, project, f"{name}@{project}.iam.gserviceaccount.com")
    allow_all(state)


def allow_all(state: State) -> None:
    """Let everybody do what they may do at the start."""
    state.allowed = {name: allowed for name, (_, allowed) in ACCOUNTS.items()}


def add_key(state: State, name: str) -> dict[str, Any]:
    """Give an account another key, and return what its file holds."""
    account = state.accounts[name]
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = Key(secrets.token_hex(20), account, private.public_key())
    state.keys[key.id] = key
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": key.id,
        "private_key": pem.decode(),
        "client_email": account.email,
        "client_id": str(10**20 + secrets.randbelow(10**20)),
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": f"{state.url}{TOKEN_PATH}",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": f"https://www.googleapis.com/robot/v1/metadata/x509/{account.email}",
        "universe_domain": "googleapis.com",
    }


def revoke(state: State, name: str) -> None:
    """Delete all keys of an account."""
    for key in list(state.keys.values()):
        if key.account.name == name:
            del state.keys[key.id]
