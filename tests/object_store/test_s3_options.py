"""Options of S3 sources: the servers they lead to, and combinations that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import OptionError
from datasources_object_store import S3Options
from tests.object_store.conftest import KEYS

ROLE = "arn:aws:iam::123456789012:role/reader"


def load(**options: Any) -> S3Options:
    return S3Options.load({"bucket": "data", **options})


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://data.s3.us-east-1.amazonaws.com"),
        ({"region": "eu-west-1"}, "https://data.s3.eu-west-1.amazonaws.com"),
        ({"region": "cn-north-1"}, "https://data.s3.cn-north-1.amazonaws.com.cn"),
        ({"addressing": "path"}, "https://s3.us-east-1.amazonaws.com/data"),
        ({"bucket": "a.b"}, "https://s3.us-east-1.amazonaws.com/a.b"),
        ({"endpoint": "http://minio:9000/"}, "http://minio:9000/data"),
        ({"endpoint": "https://r2.example.com/base"}, "https://r2.example.com/base/data"),
        (
            {"endpoint": "https://s.example.com", "addressing": "virtual"},
            "https://data.s.example.com",
        ),
    ],
)
def test_bucket_has_its_url(options: dict[str, Any], url: str) -> None:
    assert load(**KEYS, **options).bucket_url == url


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"access_key_id": "a"},
        {"secret_access_key": "a"},
        {**KEYS, "profile": "p"},
        {**KEYS, "credential": "anonymous"},
        {"profile": "p", "credential": "default"},
        {"profile": "p", "session_token": "t"},
        {"credential": "anonymous", "role_arn": ROLE},
        {"credential": "anonymous", "requester_pays": True},
        {**KEYS, "external_id": "x"},
        {**KEYS, "sts_endpoint": "https://sts.example.com"},
        {**KEYS, "role_arn": "reader"},
        {**KEYS, "region": "evil.example.com/"},
        {**KEYS, "bucket": "evil.example.com/"},
        {**KEYS, "bucket": "a..b"},
        {**KEYS, "bucket": "ab"},
        {**KEYS, "endpoint": "minio:9000"},
        {**KEYS, "endpoint": "https://user:secret@minio"},
        {**KEYS, "endpoint": "https://minio?x=1"},
        {**KEYS, "endpoint": "ftp://minio"},
        {**KEYS, "endpoint": "https://mi nio"},
        {**KEYS, "endpoint": "https://minio/x", "addressing": "virtual"},
        {**KEYS, "bucket": "a.b", "addressing": "virtual"},
    ],
)
def test_wrong_combination_is_refused_without_its_values(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        load(**options)
    assert KEYS["secret_access_key"] not in str(caught.value)
    assert "user:secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "ambient"),
    [
        (KEYS, False),
        ({"credential": "anonymous"}, False),
        ({"profile": "p"}, True),
        ({"credential": "default"}, True),
        ({"credential": "environment"}, True),
        ({"credential": "web_identity"}, True),
        ({"credential": "instance"}, True),
    ],
)
def test_credentials_of_the_machine_are_ambient(options: dict[str, str], ambient: bool) -> None:
    assert load(**options).ambient() is ambient


def test_hosts_are_those_that_are_connected_to() -> None:
    aws = ["s3.us-east-1.amazonaws.com", "data.s3.us-east-1.amazonaws.com"]
    assert list(load(**KEYS).hosts()) == aws
    role = load(**KEYS, role_arn=ROLE)
    assert list(role.hosts()) == [*aws, "sts.us-east-1.amazonaws.com"]
    assert list(load(**KEYS, endpoint="http://10.0.0.7:9000").hosts()) == ["10.0.0.7"]


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "https://other"},
        {"sts_endpoint": "https://other", "role_arn": ROLE},
        {"role_arn": ROLE},
        {"access_key_id": "other"},
    ],
)
def test_destination_changes_with_who_receives_the_credentials(change: dict[str, str]) -> None:
    first = load(**KEYS, endpoint="https://minio")
    assert load(**{**KEYS, "endpoint": "https://minio", **change}).destination() != (
        first.destination()
    )


def test_bucket_in_the_host_name_is_part_of_the_destination() -> None:
    virtual = {**KEYS, "endpoint": "https://s.example.com", "addressing": "virtual"}
    assert load(**virtual).destination() != load(**{**virtual, "bucket": "other"}).destination()
    assert load(**KEYS).destination() == load(**{**KEYS, "bucket": "other"}).destination()
