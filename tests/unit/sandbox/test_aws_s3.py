# SPDX-License-Identifier: Apache-2.0
"""The stand-in of AWS: what S3 checks before moto has its turn."""

import base64
import hashlib
import http.client
import itertools
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest

from tests.sandbox import aws
from tests.sandbox.aws import s3 as stand_in
from tests.unit.sandbox.calls import checksum, refused

_numbers = itertools.count()
WRONG = base64.b64encode(bytes(32)).decode()


@pytest.fixture
def s3(standin: aws.StandIn) -> Any:
    return standin.client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


def test_objects(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a b/ü+c.raw", Body=b"0123456789")
    assert s3.get_object(Bucket=bucket, Key="a b/ü+c.raw", Range="bytes=3-5")["Body"].read() == b"345"
    assert s3.head_object(Bucket=bucket, Key="a b/ü+c.raw")["ContentLength"] == 10
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a b/ü+c.raw"]
    s3.delete_object(Bucket=bucket, Key="a b/ü+c.raw")
    with refused("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="a b/ü+c.raw")


def test_marker_of_what_is_not_there(standin: aws.StandIn, s3: Any) -> None:
    """To remove it needs another permission."""
    s3.create_bucket(Bucket="with-versions")
    s3.put_bucket_versioning(Bucket="with-versions", VersioningConfiguration={"Status": "Enabled"})
    where = {"Bucket": "with-versions", "Key": "a b"}
    made = s3.delete_object(**where)
    assert made["DeleteMarker"]
    listed = s3.list_object_versions(Bucket="with-versions")
    assert [one["VersionId"] for one in listed["DeleteMarkers"]] == [made["VersionId"]]
    assert "Versions" not in listed
    standin.allow("owner", "s3:DeleteObject")
    with refused("AccessDenied"):
        s3.delete_object(**where, VersionId=made["VersionId"])
    standin.reset()
    s3.delete_object(**where, VersionId=made["VersionId"])
    assert "DeleteMarkers" not in s3.list_object_versions(Bucket="with-versions")


def test_if_none_match(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="once", Body=b"1", IfNoneMatch="*")
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ChecksumSHA256": WRONG},
        {"ChecksumSHA1": base64.b64encode(bytes(20)).decode()},
        {"ChecksumCRC32": "AAAAAA=="},
        {"ContentMD5": base64.b64encode(bytes(16)).decode()},
    ],
)
def test_checksums(s3: Any, bucket: str, wrong: dict[str, str]) -> None:
    with refused("BadDigest"):
        s3.put_object(Bucket=bucket, Key="x", Body=b"data", **wrong)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="x", Body=b"data", ChecksumAlgorithm="SHA256")


def test_checksum_that_is_not_done(s3: Any, bucket: str) -> None:
    with refused("NotImplemented"):
        s3.put_object(Bucket=bucket, Key="x", Body=b"data", ChecksumCRC32C="AAAAAA==")


def sent(standin: aws.StandIn, path: str, body: bytes, **headers: str) -> tuple[int, str]:
    """What is answered to a PUT whose body the signature does not cover, or covers wrongly."""
    keys = standin.accounts["owner"]
    request = botocore.awsrequest.AWSRequest("PUT", standin.url + path, headers, body)
    credentials = botocore.credentials.Credentials(keys["access_key"], keys["secret_key"])
    botocore.auth.SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(standin.url).netloc)
    connection.request("PUT", path, body, dict(request.headers))
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.mark.parametrize(
    ("chunks", "length", "trailer", "code"),
    [
        ([b"hello ", b"world"], "11", "x-amz-checksum-crc32:DUoRhQ==", ""),
        ([b"hello ", b"world"], "11", "x-amz-checksum-crc32:AAAAAA==", "BadDigest"),
        ([b"hello ", b"world"], "12", "x-amz-checksum-crc32:DUoRhQ==", "IncompleteBody"),
    ],
)
def test_trailers(
    standin: aws.StandIn, s3: Any, bucket: str, chunks: list[bytes], length: str, trailer: str, code: str
) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    body += b"0\r\n" + trailer.encode() + b"\r\n\r\n"
    headers = {"X-Amz-Content-SHA256": stand_in.CHUNKED, "x-amz-decoded-content-length": length}
    status, text = sent(standin, f"/{bucket}/chunked", body, **headers)
    assert code in text
    assert status == (400 if code else 200)
    if not code:
        assert s3.get_object(Bucket=bucket, Key="chunked")["Body"].read() == b"hello world"


def test_body_that_was_changed(standin: aws.StandIn, bucket: str) -> None:
    status, text = sent(standin, f"/{bucket}/x", b"data", **{"X-Amz-Content-SHA256": "0" * 64})
    assert (status, "XAmzContentSHA256Mismatch" in text) == (400, True)
    status, text = sent(standin, f"/{bucket}/x", b"data")
    assert (status, "x-amz-content-sha256" in text) == (400, True)


def test_upload_in_parts(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "big"}
    data = os.urandom(5 << 20)
    upload = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in ((1, data), (2, b"end"))
    ]
    with refused("BadDigest"):
        s3.upload_part(**where, UploadId=upload, PartNumber=3, Body=b"x", ChecksumSHA256=WRONG)
    assert len(s3.list_parts(**where, UploadId=upload)["Parts"]) == 2
    wrong = [parts[0], parts[1] | {"ETag": parts[0]["ETag"]}]
    with refused("InvalidPart"):
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": wrong})
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(**where)["Body"].read() == data + b"end"
    for call in over(s3, where, upload):
        with refused("NoSuchUpload"):
            call()


def test_checksums_of_parts(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "summed"}
    upload = s3.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    bodies = [os.urandom(5 << 20), b"end"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(
                **where, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=checksum(body)
            )["ETag"],
            "ChecksumSHA256": checksum(body),
        }
        for number, body in enumerate(bodies, 1)
    ]
    listed = s3.list_parts(**where, UploadId=upload)["Parts"]
    assert [one["ChecksumSHA256"] for one in listed] == [checksum(body) for body in bodies]
    for wrong, code in (({"ChecksumSHA256": WRONG}, "InvalidPart"), ({}, "InvalidRequest")):
        one = {name: parts[1][name] for name in ("PartNumber", "ETag")} | wrong
        with refused(code):
            s3.complete_multipart_upload(
                **where, UploadId=upload, MultipartUpload={"Parts": [parts[0], one]}
            )
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    digests = b"".join(hashlib.sha256(body).digest() for body in bodies)
    found = s3.head_object(**where, ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"] == f"{checksum(digests)}-2"


def over(s3: Any, where: dict[str, str], upload: str) -> list[Callable[[], Any]]:
    """What can not be done with an upload that has ended."""
    return [
        lambda: s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"late"),
        lambda: s3.list_parts(**where, UploadId=upload),
        lambda: s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": []}),
        lambda: s3.abort_multipart_upload(**where, UploadId=upload),
    ]


def test_upload_that_was_aborted(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "big"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    with refused("NoSuchUpload"):
        s3.upload_part(Bucket=bucket, Key="another", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(**where, UploadId=upload)
    for call in over(s3, where, upload):
        with refused("NoSuchUpload"):
            call()


def test_parts_that_are_too_small(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "small"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**where, UploadId=upload, PartNumber=number, Body=b"x")["ETag"],
        }
        for number in (1, 2)
    ]
    with refused("EntityTooSmall"):
        s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


def test_whose_bucket(standin: aws.StandIn, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"1")
    stranger = standin.client("s3", "stranger")
    calls: list[Callable[[], Any]] = [
        lambda: stranger.get_object(Bucket=bucket, Key="x"),
        lambda: stranger.put_object(Bucket=bucket, Key="y", Body=b"2"),
        lambda: stranger.list_objects_v2(Bucket=bucket),
    ]
    for call in calls:
        with refused("AccessDenied"):
            call()
    with refused("BucketAlreadyExists"):
        stranger.create_bucket(Bucket=bucket)
    reader = standin.client("s3", "reader")
    assert reader.get_object(Bucket=bucket, Key="x")["Body"].read() == b"1"
    with refused("AccessDenied", "s3:PutObject"):
        reader.put_object(Bucket=bucket, Key="y", Body=b"2")
    with refused("AccessDenied", "s3:PutObject"):
        reader.create_multipart_upload(Bucket=bucket, Key="y")


def test_region_of_a_bucket(standin: aws.StandIn) -> None:
    name = f"bucket-{next(_numbers)}"
    there = standin.client("s3", region="eu-central-1")
    there.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    there.put_object(Bucket=name, Key="x", Body=b"1")
    here = standin.client("s3")
    assert here.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-central-1"
    status, text = sent(standin, f"/{name}/x", b"2", **{"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert (status, "<Region>eu-central-1</Region>" in text) == (400, True)
    assert here.head_bucket(Bucket=name)["BucketRegion"] == "eu-central-1"     # botocore goes there


def test_presigned(standin: aws.StandIn, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="x", Body=b"1")
    where = {"Bucket": bucket, "Key": "x"}
    url, short = (s3.generate_presigned_url("get_object", Params=where, ExpiresIn=each) for each in (600, 1))
    assert urllib.request.urlopen(url).read() == b"1"
    changed = url.replace("/x?", "/y?")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(changed)
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(short)
    too_long = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=604801)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(too_long)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aws_access_key_id": "AKIAAAAAAAAAAAAAAAAA"}, "InvalidAccessKeyId"),
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
    ],
)
def test_keys(standin: aws.StandIn, bucket: str, changes: dict[str, str], code: str) -> None:
    with refused(code):
        standin.client("s3", keys=changes).list_objects_v2(Bucket=bucket)


def test_faults(standin: aws.StandIn, s3: Any, bucket: str) -> None:
    put = {"Bucket": bucket, "Key": "x", "Body": b"123"}
    for kind, code in (("throttle", "SlowDown"), ("500", "InternalError"), ("503", "ServiceUnavailable")):
        standin.fault(kind, "PutObject")
        with refused(code):
            s3.put_object(**put)
    standin.fault("reset", "PutObject")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        s3.put_object(**put)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    standin.fault("lost", "PutObject")
    with pytest.raises(botocore.exceptions.HTTPClientError):
        s3.put_object(**put)
    assert s3.get_object(Bucket=bucket, Key="x")["Body"].read() == b"123"
    standin.fault("corrupt", "PutObject")
    s3.put_object(**put)
    standin.clear_faults()
    assert standin.client("s3").get_object(Bucket=bucket, Key="x")["ContentLength"] == 3
    assert standin.counters()["calls"]["s3:PutObject"] >= 6
