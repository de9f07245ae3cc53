"""The contract, kept by the connector of Google Cloud Storage on fake-gcs-server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import ClassVar

import pytest

from datasources.testing import ConnectorContract, Subject
from datasources_object_store import GCSConnector, gcs_options, gcs_reading, gcs_tokens
from tests.object_store.test_s3_contract import ITEMS, MANY, PAGE
from tests.servers.gcs import FakeGCSServer, TokenService, service_account, token_service
from tests.servers.process import HOST, free_port

EMAIL = "reader@my-project.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeGCSServer]:
    with FakeGCSServer() as server:
        yield server


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenService]:
    with token_service(EMAIL) as service:
        yield service


@pytest.fixture(scope="module")
def accounts() -> dict[str, str]:
    """The key of a service account that gets tokens, and that of one which gets none."""
    return {"right": service_account(EMAIL), "wrong": service_account(f"not-{EMAIL}")}


@pytest.fixture(scope="module")
def bucket(server: FakeGCSServer) -> str:
    """A bucket for the whole contract, which adds to it and removes nothing."""
    name = f"contract-{secrets.token_hex(6)}"
    server.create_bucket(name)
    for path, content in ITEMS.items():
        server.put(name, path, content)
    for path in MANY:
        server.put(name, path, b"")
    server.put(name, "heavy.bin", bytes(64 << 20))
    return name


class TestContract(ConnectorContract):
    connector_class = GCSConnector
    waived: ClassVar = {
        "test_pages_together_are_the_listing": "fake-gcs-server does not count folders in a page",
        "test_calls_on_one_connection_leave_nothing": (
            "fake-gcs-server closes the connection of an answer 416, which an empty object has"
        ),
    }

    @pytest.fixture(autouse=True)
    def local_tokens_and_small_pages(
        self, tokens: TokenService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (gcs_options, gcs_tokens):
            monkeypatch.setattr(module, "TOKEN_URL", tokens.url)
        monkeypatch.setattr(gcs_reading, "_MAX_PAGE", PAGE)

    @pytest.fixture
    def subject(self, server: FakeGCSServer, bucket: str, accounts: dict[str, str]) -> Subject:
        options = {
            "bucket": bucket,
            "endpoint": server.endpoint,
            "service_account": accounts["right"],
            "project": "my-project",
            "chunk_size": 1 << 20,
            "retries": 1,
        }
        number = 0

        def change() -> tuple[str, bytes]:
            nonlocal number
            number += 1
            content = bytes([number]) * (5 << 20)
            server.put(bucket, "changing.bin", content)
            return "changing.bin", content

        return Subject(
            connector_class=GCSConnector,
            type="gcs",
            options=options,
            items=ITEMS,
            missing="2024/nothing.csv",
            tables={"sales.csv": 2, "numbers.parquet": 3},
            counts_rows=False,
            abilities={
                "discover",
                "iter_items",
                "pages",
                "glob",
                "preview",
                "statistics",
                "upload",
                "stream",
                "splits",
            },
            wrong_credentials={**options, "service_account": accounts["wrong"]},
            unreachable={**options, "endpoint": f"http://{HOST}:{free_port()}"},
            large="heavy.bin",
            many=MANY,
            change=change,
            upload_size=20_000_000,
        )
