"""The contract, kept by the connector of S3 on two services of different make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from datasources.testing import ConnectorContract, Subject
from datasources_object_store import S3Connector, s3_listing
from tests.object_store.conftest import Bucket, new_bucket
from tests.parquet import parquet
from tests.servers.process import HOST, free_port
from tests.servers.s3 import MotoServer, SeaweedServer

ITEMS = {
    "sales.csv": b"x,y\n1,2\n3,4\n",
    "2024/january/sales report.csv": b"x\n",
    "2024/empty": b"",
    "large.bin": bytes(range(256)) * 12_288,
    "numbers.parquet": parquet(n=[3, None, 5], x=[0.5, 1.5, None]),
}
PAGE = 20  # items, here; the services have 1,000
MANY = [f"many/{number}" for number in range(2 * PAGE + 1)]


def filled(bucket: Bucket) -> Bucket:
    for path, content in ITEMS.items():
        bucket.put(path, content)
    for path in MANY:
        bucket.put(path, b"")
    bucket.put("heavy.bin", bytes(64 << 20))
    return bucket


class System:
    """The bucket, as one who may change it sees it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._number = 0

    def change(self) -> tuple[str, bytes]:
        self._number += 1
        content = bytes([self._number]) * (5 << 20)
        self._bucket.put("changing.bin", content)
        return "changing.bin", content


def subject_of(bucket: Bucket, **more: Any) -> Subject:
    options = {**bucket.options, "chunk_size": 1 << 20, "retries": 1}
    abilities = {"discover", "iter_items", "pages", "glob", "preview", "statistics", "upload"}
    return Subject(
        connector_class=S3Connector,
        type="s3",
        options=options,
        items=ITEMS,
        missing="2024/nothing.csv",
        tables={"sales.csv": 2, "numbers.parquet": 3},
        counts_rows=False,
        abilities={*abilities, "stream", "splits"},
        unreachable={**options, "endpoint": f"http://{HOST}:{free_port()}"},
        large="heavy.bin",
        many=MANY,
        change=System(bucket).change,
        upload_size=20_000_000,
        **more,
    )


@pytest.fixture(scope="module")
def seaweed_bucket(seaweed: SeaweedServer) -> Iterator[Bucket]:
    """A bucket for the whole contract, which adds to it and removes nothing."""
    yield from map(filled, new_bucket(seaweed))


@pytest.fixture(scope="module")
def moto_bucket(moto: MotoServer) -> Iterator[Bucket]:
    yield from map(filled, new_bucket(moto))


class Pages:
    @pytest.fixture(autouse=True)
    def small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ask the service for smaller pages."""
        monkeypatch.setattr(s3_listing, "_MAX_PAGE", PAGE)


class TestContractOnSeaweedFS(Pages, ConnectorContract):
    connector_class = S3Connector

    @pytest.fixture
    def subject(self, seaweed_bucket: Bucket) -> Subject:
        wrong = {**seaweed_bucket.options, "secret_access_key": "not-the-secret-of-this-key"}
        return subject_of(seaweed_bucket, wrong_credentials=wrong)


class TestContractOnMoto(Pages, ConnectorContract):
    connector_class = S3Connector
    waived: ClassVar = {
        "test_wrong_credentials_are_an_authentication_error": "moto takes any key",
        "test_discover_with_wrong_credentials_is_refused_without_the_secret": "moto takes any key",
    }

    @pytest.fixture
    def subject(self, moto_bucket: Bucket) -> Subject:
        # moto takes any key; a bucket that is missing stands for it.
        return subject_of(moto_bucket, wrong_credentials={**moto_bucket.options, "bucket": "none"})
