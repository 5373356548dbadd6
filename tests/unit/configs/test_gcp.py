# SPDX-License-Identifier: Apache-2.0
"""What may be said of a project of Google Cloud, and what a credential for it may say."""

import json
from typing import Any

import marshmallow as ma
import pytest
from oslo_config import cfg

from ciming import configs
from ciming.configs import gcp

CONFIG = {"project_id": "my-project-1", "bucket": "my-images"}
SECRET = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----\n"
KEY = {
    "type": "service_account",
    "project_id": "my-project-1",
    "private_key_id": "2c5f0b0a7f6d4c1e",
    "private_key": SECRET,
    "client_email": "images@my-project-1.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}
POOL: dict[str, Any] = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {
        "url": "https://keystone.example/token",
        "headers": {"X-Auth-Key": SECRET},
        "format": {"type": "json", "subject_token_field_name": "id_token"},
    },
}
SOURCE = POOL["credential_source"]
KMS = "projects/my-project-1/locations/europe-west1/keyRings/ring/cryptoKeys/key"


@pytest.fixture(autouse=True)
def _options(conf: cfg.ConfigOpts) -> None:
    """With their defaults."""


def test_it_is_found_by_the_providers_name() -> None:
    assert isinstance(configs.load("gcp"), gcp.GCP)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"project_id": "example.com:my-project-1", "bucket": "images.example.com"},
        {"endpoint_url": "https://google.example"},
        {"storage_location": "eu", "deprecate_to": "OBSOLETE"},
        {"storage_location": "northamerica-northeast1", "family": "debian-12", "keep_archive": True},
        {"labels": ["team=images", "empty="]},
        {"guest_os_features": ["UEFI_COMPATIBLE", "GVNIC"]},
        {"kms_key": KMS},
        {"kms_key": f"{KMS}/cryptoKeyVersions/7"},
        {"share_with": ["user:a.b@example.com", "group:c@example.com", "domain:example.com"]},
        {"share_with": ["serviceAccount:i@my-project-1.iam.gserviceaccount.com"]},
    ],
    ids=str,
)
def test_a_config(more: dict[str, Any]) -> None:
    assert gcp.GCP().load({**CONFIG, **more}) == {**CONFIG, **more}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"project_id": "p" * 10_000}, "project_id"),
        ({"project_id": "My-Project"}, "project_id"),
        ({"project_id": "123456789012"}, "project_id"),
        ({"project_id": "a/../b-c-d"}, "project_id"),
        ({"project_id": "my-project-1\n"}, "project_id"),
        ({"project_id": ""}, "project_id"),
        ({"project_id": None}, "project_id"),
        ({"bucket": "My-Images"}, "bucket"),
        ({"bucket": "gs://my-images"}, "bucket"),
        ({"bucket": "my-images/folder"}, "bucket"),
        ({"bucket": "b" * 10_000}, "bucket"),
        ({"bucket": "ab"}, "bucket"),
        ({"storage_location": "Europe"}, "storage_location"),
        ({"deprecate_to": "DELETED"}, "deprecate_to"),
        ({"storage_location": "europe-west1-b"}, "storage_location"),
        ({"family": "Debian"}, "family"),
        ({"family": "d" * 64}, "family"),
        ({"labels": ["nothing"]}, "labels"),
        ({"labels": ["Team=images"]}, "labels"),
        ({"labels": ["team=Images"]}, "labels"),
        ({"labels": ["=x"]}, "labels"),
        ({"labels": ["ciming-target=x"]}, "labels"),
        ({"labels": ["a=1", "a=2"]}, "labels"),
        ({"labels": ["a=1\n"]}, "labels"),
        ({"labels": [f"k{number}=" for number in range(gcp.MOST_LABELS + 1)]}, "labels"),
        ({"labels": []}, "labels"),
        ({"guest_os_features": ["WARP_DRIVE"]}, "guest_os_features"),
        ({"guest_os_features": ["GVNIC", "GVNIC"]}, "guest_os_features"),
        ({"guest_os_features": "GVNIC"}, "guest_os_features"),
        ({"kms_key": "key"}, "kms_key"),
        ({"kms_key": f"{KMS}/cryptoKeyVersions/x"}, "kms_key"),
        ({"kms_key": f"{KMS}\n"}, "kms_key"),
        ({"kms_key": KMS.replace("ring/", "a/b/")}, "kms_key"),
        ({"share_with": ["a@example.com"]}, "share_with"),
        ({"share_with": ["allUsers"]}, "share_with"),
        ({"share_with": ["allAuthenticatedUsers"]}, "share_with"),
        ({"share_with": ["user:a@example.com"] * 2}, "share_with"),
        ({"share_with": ["user:a b@example.com"]}, "share_with"),
        ({"share_with": []}, "share_with"),
        ({"keep_archive": "perhaps"}, "keep_archive"),
        ({"endpoint_url": "http://169.254.169.254/"}, "endpoint_url"),
        ({"endpoint_url": "https://metadata:x@google.example/"}, "endpoint_url"),
        ({"endpoint_url": "file:///etc/passwd"}, "endpoint_url"),
        ({"region": "europe-west1"}, "region"),
        ({"token_uri": "https://evil.example"}, "token_uri"),
    ],
    ids=lambda each: str(each)[:60],
)
def test_a_wrong_config(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ma.ValidationError) as refused:
        gcp.GCP().load({**CONFIG, **wrong})
    assert isinstance(refused.value.messages, dict)
    assert list(refused.value.messages) == [field]
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("missing", CONFIG)
def test_what_is_needed(missing: str) -> None:
    with pytest.raises(ma.ValidationError, match=missing):
        gcp.GCP().load({name: value for name, value in CONFIG.items() if name != missing})


def test_what_says_where_it_is_is_not_tuned() -> None:
    """A change of that is another Cloud: its credential is taken back."""
    assert set(gcp.GCP().fields) - gcp.GCP.tuning == {"project_id", "endpoint_url"}


IMPERSONATED = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b.c:generateAccessToken"
CREDENTIALS = [KEY, POOL, {**POOL, "service_account_impersonation_url": IMPERSONATED}]


@pytest.mark.parametrize("said", CREDENTIALS)
def test_a_credential(said: dict[str, Any]) -> None:
    """As Google's console gives it, what nobody asks for left out."""
    more = {
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/images",
        "client_id": "123456789012345678901",
        "universe_domain": "googleapis.com",
    }
    assert gcp.Credential().load(json.loads(json.dumps({**said, **more}))) == said


NO_SERVICE_ACCOUNT: dict[str, Any] = {
    "a user": {"type": "authorized_user", "client_id": "i", "client_secret": SECRET, "refresh_token": SECRET},
    "a client": {"installed": {"client_id": "i", "client_secret": SECRET}},
    "impersonated": {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": IMPERSONATED,
        "source_credentials": KEY,
    },
    "workforce": {"type": "external_account_authorized_user", "audience": "a", "refresh_token": SECRET},
    "an air gap": {**KEY, "type": "gdch_service_account"},
    "no type": {name: value for name, value in KEY.items() if name != "type"},
    "of AWS": {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET},
    "nothing": {},
    "without its key": {name: value for name, value in KEY.items() if name != "private_key"},
    "without its URL": {name: value for name, value in KEY.items() if name != "token_uri"},
    "a long key": {**KEY, "private_key": SECRET * 1000},
    "a list": {**KEY, "private_key": [SECRET]},
    "half of a character": {**KEY, "private_key": SECRET + "\ud800"},
    "a file": {**POOL, "credential_source": {"file": "/etc/passwd"}},
    "a file, too": {**POOL, "credential_source": {**SOURCE, "file": "/etc/passwd"}},
    "a command": {
        **POOL,
        "credential_source": {"executable": {"command": "/bin/sh", "timeout_millis": 5000}},
    },
    "a certificate": {
        **POOL,
        "credential_source": {"certificate": {"use_default_certificate_config": True}},
    },
    "of AWS's metadata": {
        **POOL,
        "credential_source": {"environment_id": "aws1", "url": "https://169.254.169.254/latest"},
    },
    "of a metadata service": {**POOL, "credential_source": {"url": "http://metadata.google.internal/"}},
    "of a pool without a source": {name: POOL[name] for name in POOL if name != "credential_source"},
    "of a pool without a URL": {**POOL, "credential_source": {}},
    "introspection": {**POOL, "client_secret": SECRET},
    "another field": {**KEY, "subject": "admin@example.com"},
}


@pytest.mark.parametrize("wrong", NO_SERVICE_ACCOUNT)
def test_a_wrong_credential(wrong: str) -> None:
    """What is said of it has nothing of it; neither a command nor a file is asked."""
    schema = gcp.Credential()
    with pytest.raises(ma.ValidationError) as refused:
        schema.load(NO_SERVICE_ACCOUNT[wrong])
    said = str(refused.value) + configs.why(schema, refused.value)
    for secret in (SECRET, "MIIEvQIBADANBgkq", "/bin/sh", "/etc/passwd"):
        assert secret not in said


@pytest.mark.parametrize("wrong", ["authorized_user", "impersonated_service_account", "x", None])
def test_a_key_that_is_no_service_account_is_called_that(wrong: str | None) -> None:
    schema = gcp.Credential()
    with pytest.raises(ma.ValidationError) as refused:
        schema.load({**KEY, "type": wrong})
    assert "type" in refused.value.messages
