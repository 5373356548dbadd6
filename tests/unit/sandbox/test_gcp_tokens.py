# SPDX-License-Identifier: Apache-2.0
"""The stand-in of Google Cloud: keys, tokens, scopes, permissions."""

import time
from collections.abc import Iterator
from typing import Any

import google.auth.crypt
import google.auth.exceptions
import google.auth.jwt
import pytest
import requests

from tests.sandbox import gcp
from tests.unit.sandbox.gcp_calls import (
    SCOPE,
    bucket,
    check,
    images,
    project,
    put,
    refused,
    session,
    storage,
)

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
HOUR = 3600


def signed(cloud: gcp.StandIn, account: str = "owner", *, signer: Any = None, **claims: Any) -> str:
    """An assertion by an account's key; None takes a claim away."""
    info = cloud.accounts[account]
    signer = signer or google.auth.crypt.RSASigner.from_service_account_info(info)
    now = int(time.time())
    said = {"iss": info["client_email"], "iat": now, "exp": now + HOUR} | claims
    kept = {key: one for key, one in said.items() if one is not None}
    return str(google.auth.jwt.encode(signer, kept).decode())


def ask(cloud: gcp.StandIn, assertion: str, grant: str = GRANT) -> requests.Response:
    form = {"grant_type": grant, "assertion": assertion}
    return requests.post(f"{cloud.url}/token", data=form, timeout=10)


def good(cloud: gcp.StandIn, **more: Any) -> str:
    return signed(cloud, **{"aud": AUDIENCE, "scope": SCOPE} | more)


def test_a_token_for_an_assertion(cloud: gcp.StandIn) -> None:
    cloud.settings(token_seconds=1234)
    response = ask(cloud, good(cloud))
    assert response.status_code == 200
    answer = response.json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 1234)
    assert storage(cloud).project == project(cloud)


@pytest.mark.parametrize(
    ("claims", "error", "text"),
    [
        ({"iss": "nobody@nowhere.iam.gserviceaccount.com"}, "invalid_grant", "account not found"),
        ({"aud": "https://example.org/token"}, "invalid_grant", "audience"),
        ({"aud": None}, "invalid_grant", "audience"),
        ({"exp": None}, "invalid_grant", "short-lived"),
        ({"iat": None}, "invalid_grant", "short-lived"),
        ({"exp": int(time.time()) + HOUR + 600}, "invalid_grant", "short-lived"),
        (
            {"iat": int(time.time()) - 2 * HOUR, "exp": int(time.time()) - HOUR},
            "invalid_grant",
            "short-lived",
        ),
        ({"iat": int(time.time()) + 900, "exp": int(time.time()) + 1800}, "invalid_grant", "short-lived"),
        ({"iat": int(time.time()) + 60, "exp": int(time.time())}, "invalid_grant", "short-lived"),
        ({"scope": None}, "invalid_scope", ""),
        ({"scope": "https://www.googleapis.com/auth/moon"}, "invalid_scope", ""),
    ],
)
def test_assertions_that_are_refused(
    cloud: gcp.StandIn, claims: dict[str, Any], error: str, text: str
) -> None:
    response = ask(cloud, good(cloud, **claims))
    assert (response.status_code, response.json()["error"]) == (400, error)
    assert text in response.json()["error_description"]


def test_whose_signature_it_is(cloud: gcp.StandIn) -> None:
    other, mine = cloud.accounts["reader"], cloud.accounts["owner"]["private_key_id"]
    assertions = [
        good(cloud, signer=google.auth.crypt.RSASigner.from_string(other["private_key"], key_id))
        for key_id in (other["private_key_id"], mine, "no-such-key")
    ]
    assertions.append(good(cloud)[:-8] + "AAAAAAAA")
    for assertion in assertions:
        response = ask(cloud, assertion)
        assert response.status_code == 400
        assert response.json() == {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    for nonsense in ("", "a.b", "a.b.c", "é.b.c", "e30.e30.e30"):
        assert ask(cloud, nonsense).json()["error"] == "invalid_grant"


def test_another_grant(cloud: gcp.StandIn) -> None:
    assert ask(cloud, good(cloud), "password").json()["error"] == "unsupported_grant_type"


def test_nobody_speaks_for_another(cloud: gcp.StandIn) -> None:
    response = ask(cloud, good(cloud, sub="somebody@example.org"))
    assert (response.status_code, response.json()["error"]) == (401, "unauthorized_client")


def test_revoked_and_new_keys(cloud: gcp.StandIn) -> None:
    before = dict(cloud.accounts["reader"])
    token = ask(cloud, good(cloud, account="reader")).json()["access_token"]
    cloud.revoke("reader")
    try:
        assert get(cloud, f"Bearer {token}").status_code == 200  # it is good until it ends
        credentials = cloud.credentials("reader", scopes=[SCOPE])
        with pytest.raises(google.auth.exceptions.RefreshError, match="Invalid JWT Signature"):
            credentials.refresh(google.auth.transport.requests.Request())
        with refused(401, "authError"):
            cloud.images_client("reader").get(project=project(cloud), image="none")
    finally:
        cloud.accounts["reader"] = cloud.add_key("reader")
    assert cloud.accounts["reader"]["private_key_id"] != before["private_key_id"]
    with refused(404, "notFound"):
        cloud.images_client("reader").get(project=project(cloud), image="none")
    assert cloud.accounts["reader"]["private_key_id"] in cloud.callers()


def get(cloud: gcp.StandIn, authorization: str | None) -> requests.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    target = f"{cloud.url}/storage/v1/b?project={project(cloud)}"
    return requests.get(target, headers=headers, timeout=10)


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Bearer a.b.c", "Basic YTpi"])
def test_who_is_not_known(cloud: gcp.StandIn, authorization: str | None) -> None:
    response = get(cloud, authorization)
    error = response.json()["error"]
    assert response.status_code == error["code"] == 401
    assert error["status"] == "UNAUTHENTICATED"
    assert error["errors"][0]["reason"] == ("authError" if authorization else "required")
    assert response.headers["X-GUploader-UploadID"]


def test_a_token_ends(cloud: gcp.StandIn) -> None:
    cloud.settings(token_seconds=0)
    token = ask(cloud, good(cloud)).json()["access_token"]
    response = get(cloud, f"Bearer {token}")
    assert response.status_code == 401
    assert response.json()["error"]["details"][0]["reason"] == "ACCESS_TOKEN_EXPIRED"


def test_a_client_fetches_another_token(cloud: gcp.StandIn) -> None:
    client = cloud.storage_client()
    list(client.list_buckets())
    cloud.expire_tokens()
    session.cache_clear()  # these fetch no other one
    list(client.list_buckets())


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "https://storage.googleapis.com/"}, 200),
        ({"scope": SCOPE}, 200),
        ({"aud": "https://compute.googleapis.com/"}, 401),
        ({"aud": "https://storage.googleapis.com"}, 401),
        ({"aud": "https://storage.googleapis.com/", "scope": SCOPE}, 401),
        ({}, 401),
        ({"aud": "https://storage.googleapis.com/", "sub": None}, 401),
        ({"aud": "https://storage.googleapis.com/", "exp": int(time.time()) + HOUR + 600}, 401),
        ({"scope": "https://www.googleapis.com/auth/compute"}, 403),
    ],
)
def test_self_signed(cloud: gcp.StandIn, claims: dict[str, Any], code: int) -> None:
    token = signed(cloud, **{"sub": cloud.accounts["owner"]["client_email"]} | claims)
    assert get(cloud, f"Bearer {token}").status_code == code


def test_clients_of_compute_sign_themselves(cloud: gcp.StandIn) -> None:
    before = cloud.counters()["calls"].get("token", 0)
    client = cloud.images_client()
    with refused(404, "notFound"):
        client.get(project=project(cloud), image="none")
    assert cloud.counters()["calls"].get("token", 0) == before


@pytest.mark.parametrize(
    ("scope", "reads", "writes"),
    [
        ("devstorage.read_only", 200, 403),
        ("devstorage.read_write", 200, 200),
        ("devstorage.full_control", 200, 200),
        ("compute", 403, 403),
    ],
)
def test_scopes(cloud: gcp.StandIn, scope: str, reads: int, writes: int) -> None:
    where = bucket(cloud)
    caller = session(cloud, "owner", f"https://www.googleapis.com/auth/{scope}")
    assert caller.get(f"{cloud.url}/storage/v1/b/{where.name}", timeout=10).status_code == reads
    target = f"{cloud.url}/upload/storage/v1/b/{where.name}/o?uploadType=media&name=a"
    response = caller.post(target, data=b"a", timeout=10)
    assert response.status_code == writes
    if writes == 403:
        assert response.json()["error"]["errors"][0]["reason"] == "insufficientPermissions"


# Permissions


@pytest.fixture
def narrowed(cloud: gcp.StandIn) -> Iterator[gcp.StandIn]:
    cloud.allow("owner")
    yield cloud
    cloud.reset()


def test_nothing_is_allowed(narrowed: gcp.StandIn) -> None:
    here, client, stored = project(narrowed), images(narrowed), storage(narrowed)
    with refused(
        403, "forbidden", f"Required 'compute.images.get' permission for 'projects/{here}/global/images/a'"
    ):
        client.get(project=here, image="a")
    with refused(403, "forbidden", f"Required 'compute.images.list' permission for 'projects/{here}'"):
        list(client.list(project=here))
    email = narrowed.accounts["owner"]["client_email"]
    with refused(
        403,
        "forbidden",
        f"{email} does not have storage.buckets.list access to the Google Cloud project. "
        "Permission 'storage.buckets.list' denied on resource (or it may not exist).",
    ):
        list(stored.list_buckets())
    with refused(403, "forbidden", "storage.buckets.create"):
        stored.create_bucket("another")


@pytest.mark.parametrize(
    ("permission", "call"),
    [
        ("storage.objects.create", lambda blob: put(blob.bucket, b"b")),
        ("storage.objects.delete", lambda blob: put(blob.bucket, b"b", blob.name)),
        ("storage.objects.get", lambda blob: blob.reload()),
        ("storage.objects.get", lambda blob: blob.download_as_bytes()),
        ("storage.objects.get", lambda blob: blob.bucket.blob("new").compose([blob])),
        ("storage.objects.delete", lambda blob: blob.compose([blob])),
        ("storage.objects.create", lambda blob: blob.bucket.blob("new").compose([blob])),
        ("storage.objects.delete", lambda blob: blob.delete()),
        ("storage.objects.list", lambda blob: list(blob.bucket.list_blobs())),
        ("storage.buckets.get", lambda blob: blob.bucket.reload()),
    ],
)
def test_each_permission(cloud: gcp.StandIn, permission: str, call: Any) -> None:
    blob = put(bucket(cloud), b"a")
    every = {f"storage.objects.{one}" for one in ("create", "delete", "get", "list")} | {
        "storage.buckets.get"
    }
    cloud.allow("owner", *every - {permission})
    with pytest.raises(Exception, match=permission):
        call(blob)
    cloud.allow("owner", "*")
    call(blob)


def test_who_may_not_list_is_not_told(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    with refused(404, "notFound"):
        where.blob("none").reload()
    cloud.allow("owner", "storage.objects.get")
    with refused(403, "forbidden", "storage.objects.get"):
        where.blob("none").reload()


def test_reader_and_stranger(cloud: gcp.StandIn) -> None:
    blob = put(bucket(cloud), b"a")
    mine = storage(cloud, "reader").bucket(blob.bucket.name)
    assert mine.blob(blob.name).download_as_bytes() == b"a"
    with pytest.raises(Exception, match=r"storage\.objects\.create"):
        put(mine, b"a")
    theirs = storage(cloud, "stranger").bucket(blob.bucket.name)
    with pytest.raises(Exception, match=r"storage\.objects\.get"):
        theirs.blob(blob.name).reload()
    with pytest.raises(Exception, match=r"compute\.images\.list") as caught:
        list(images(cloud, "stranger").list(project=project(cloud)))
    check(caught.value, 403, "forbidden")


def test_permissions_that_one_has(cloud: gcp.StandIn) -> None:
    where = bucket(cloud)
    asked = ["storage.objects.get", "storage.objects.create"]
    assert storage(cloud).bucket(where.name).test_iam_permissions(asked) == asked
    assert storage(cloud, "reader").bucket(where.name).test_iam_permissions(asked) == asked[:1]
    assert storage(cloud, "stranger").bucket(where.name).test_iam_permissions(asked) == []
    with refused(400, "invalid"):
        where.test_iam_permissions(["compute.images.get"])
