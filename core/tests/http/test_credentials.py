"""What is sent to whom, and how it is signed."""

from __future__ import annotations

import base64

import pytest

from podctl.http.aws import region_of, sign
from podctl.http.credentials import Keyring
from podctl.http.urls import parse
from podctl.model.fetching import Credential

BASIC = Credential("good.example", "basic", {"user": "ü", "password": "p:w"})


@pytest.mark.parametrize(
    "url, sent",
    [
        ("https://good.example/a", True),
        ("https://GOOD.example/a", True),
        ("https://good.example.:443/a", True),
        ("https://good.example:8443/a", False),
        ("https://sub.good.example/a", False),
        ("https://notgood.example/a", False),
        ("https://good.example.evil.example/a", False),
        ("http://good.example/a", False),
    ],
)
def test_credential_is_for_its_host_alone(url: str, sent: bool) -> None:
    assert bool(Keyring((BASIC,)).headers("GET", parse(url), {})) is sent


def test_credential_with_port() -> None:
    keyring = Keyring((Credential("good.example:8443", "oauth", {"token": "t"}),))
    assert keyring.headers("GET", parse("https://good.example:8443/a"), {}) == {
        "Authorization": "Bearer t"
    }
    assert keyring.headers("GET", parse("https://good.example/a"), {}) == {}


def test_basic_is_utf8() -> None:
    header = Keyring((BASIC,)).headers("GET", parse("https://good.example/"), {})["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "ü:p:w"


def test_aws_signature_is_amazon_s() -> None:
    """The GET Object example of Amazon's S3 documentation on signing."""
    headers = sign(
        "GET",
        parse("https://examplebucket.s3.amazonaws.com/test.txt"),
        {"Range": "bytes=0-9", "Accept": "*/*"},
        {
            "accessKeyID": "AKIAIOSFODNN7EXAMPLE",
            "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        },
        now=1369353600,
    )
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert headers["x-amz-date"] == "20130524T000000Z"


@pytest.mark.parametrize(
    "host, region",
    [
        ("s3.amazonaws.com", "us-east-1"),
        ("bucket.s3.amazonaws.com", "us-east-1"),
        ("s3-eu-west-1.amazonaws.com", "eu-west-1"),
        ("bucket.s3-eu-west-1.amazonaws.com", "eu-west-1"),
        ("s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("bucket.s3.dualstack.eu-central-1.amazonaws.com", "eu-central-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("s3-external-1.amazonaws.com", "us-east-1"),
        ("minio.example.com", "us-east-1"),
    ],
)
def test_region_is_guessed_from_the_host(host: str, region: str) -> None:
    assert region_of(host) == region
