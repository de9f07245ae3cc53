"""Containers that are refused, missing or busy are told apart, by each type of object stores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datasources import ConnectError, ConnectorError, PermissionDeniedError
from datasources.objects import ObjectConnector
from tests.object_store.conftest import KEYS, connector_of
from tests.servers.scripted import Answer, refusal, scripted

S3_CODES = {403: "AccessDenied", 404: "NoSuchBucket", 503: "SlowDown"}
GCS_MESSAGES = {403: "no access", 404: "The specified bucket does not exist.", 503: "Backend Error"}
REFUSALS: list[tuple[int, type[ConnectorError], str]] = [
    (403, PermissionDeniedError, "not allow|no access"),
    (404, ConnectError, "the bucket does not exist|there is no such folder"),
    (503, ConnectError, "SlowDown|Backend Error|status 503"),
]


def refused(kind: str, status: int) -> Answer:
    """Return the refusal of a container as that service sends it."""
    if kind == "s3":
        return refusal(status, S3_CODES[status], S3_CODES[status])
    error = {"code": status, "message": GCS_MESSAGES[status]}
    return status, {}, json.dumps({"error": error}).encode() if kind == "gcs" else b""


def make(kind: str, port: int) -> ObjectConnector:
    url = f"http://127.0.0.1:{port}"
    options: dict[str, dict[str, Any]] = {
        "s3": {"bucket": "data", "endpoint": url, **KEYS},
        "gcs": {"bucket": "data", "endpoint": url, "credential": "anonymous"},
        "http_files": {"url": url},
    }
    return connector_of(kind, {**options[kind], "retries": 0})


def container(kind: str, port: int) -> str:
    """Return the container as errors name it."""
    return f"server 'http://127.0.0.1:{port}'" if kind == "http_files" else "bucket 'data'"


async def connect_and_list(connector: ObjectConnector) -> None:
    """List as well, since keys that may not list are accepted: they may fetch objects by name."""
    await connector.connect()
    await connector.list_items()


@pytest.mark.parametrize(("status", "error_class", "reason"), REFUSALS)
@pytest.mark.parametrize("kind", ["s3", "gcs", "http_files"])
async def test_refusals_of_a_container_are_told_apart(
    kind: str, status: int, error_class: type[ConnectorError], reason: str
) -> None:
    async with scripted(lambda _: refused(kind, status)) as (port, _):
        connector = make(kind, port)
        with pytest.raises(error_class, match=reason) as caught:
            await connect_and_list(connector)
        await connector.disconnect()
    assert type(caught.value) is error_class
    assert str(caught.value).startswith(container(kind, port))
