"""Buckets of one's own on real services, and connectors to them that are closed afterwards."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from datasources import DataSourceConfig, PoolConfig
from datasources.objects import ObjectConnector
from datasources_object_store import GCSConnector, HTTPFilesConnector, S3Connector
from tests.servers.blob_server import BlobService, S3Service
from tests.servers.s3 import MotoServer, S3Server, SeaweedServer

Connect = Callable[..., Awaitable[S3Connector]]
KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "the-secret-of-the-key"}


@dataclass
class Bucket:
    """A bucket, and the client of boto3 that fills it."""

    server: S3Server
    name: str
    client: Any

    def put(self, key: str, content: bytes, **more: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content, **more)

    @property
    def options(self) -> dict[str, str]:
        return {**self.server.options, "bucket": self.name}


def connector_of(kind: str, options: dict[str, Any]) -> ObjectConnector:
    """Return a connector of a type, not connected."""
    classes: dict[str, type[ObjectConnector]] = {
        "s3": S3Connector,
        "gcs": GCSConnector,
        "http_files": HTTPFilesConnector,
    }
    return classes[kind](DataSourceConfig("lake", kind, "Lake", options))


def make(options: dict[str, Any], *, max_size: int = 10) -> S3Connector:
    """Return a connector, not connected."""
    connector = S3Connector(DataSourceConfig("lake", "s3", "Lake", options))
    connector.pool_config = PoolConfig(max_size=max_size)
    return connector


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """A SeaweedFS for the whole session."""
    with SeaweedServer() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """A moto for the whole session."""
    with MotoServer() as server:
        yield server


@pytest.fixture(params=["seaweed", "moto"])
def server(request: pytest.FixtureRequest) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    return server


def new_bucket(server: S3Server) -> Iterator[Bucket]:
    """Yield a new, empty bucket, which stays until the server ends."""
    with closing(server.client()) as client:
        name = f"test-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=name)
        yield Bucket(server, name, client)


@pytest.fixture
def bucket(server: S3Server) -> Iterator[Bucket]:
    """A bucket on each of the services."""
    yield from new_bucket(server)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect with options."""
    opened: list[S3Connector] = []

    async def connect(options: dict[str, Any], **more: Any) -> S3Connector:
        connector = make({**options, **more})
        opened.append(connector)
        await connector.connect()
        return connector

    yield connect
    for connector in opened:
        await connector.disconnect()


@pytest.fixture
async def service() -> AsyncIterator[S3Service]:
    """A server of our own, which counts requests and fails when told to."""
    async with S3Service() as service:
        yield service


def local_options(service: BlobService, **more: Any) -> dict[str, Any]:
    """Return the options of a source on that server."""
    return {"endpoint": service.url, "bucket": "data", **KEYS, **more}
