"""Faults of the services of all types, and what a source makes of them: a complete file or a clear error."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    ItemNotFoundError,
    PermissionDeniedError,
    Workspace,
)
from datasources.objects import ObjectConnector
from tests.object_store.conftest import connector_of, local_options
from tests.servers.blob_server import BlobService, Fault, Request, S3Service
from tests.servers.object_services import FilesService, GCSService

CHUNK = 64 * 1024
SERVICES: dict[str, type[BlobService]] = {
    "s3": S3Service,
    "gcs": GCSService,
    "http_files": FilesService,
}


@dataclass
class Store:
    """A service of one type, which fails when told to, and the connectors to it."""

    kind: str
    service: BlobService
    opened: list[ObjectConnector]

    async def connect(self, **options: Any) -> ObjectConnector:
        options = {"chunk_size": CHUNK, **options}
        if self.kind == "s3":
            options = local_options(self.service, **options)
        elif self.kind == "gcs":
            options |= {"endpoint": self.service.url, "bucket": "data", "credential": "anonymous"}
        else:
            options["url"] = f"{self.service.url}/data"
        connector = connector_of(self.kind, options)
        self.opened.append(connector)
        await connector.connect()
        self.service.requests.clear()
        return connector

    @property
    def object(self) -> str:
        """A pattern for the object `a` as errors name it."""
        return (
            "file 'a' of server '.*'"
            if self.kind == "http_files"
            else "object 'a' of bucket 'data'"
        )


@pytest.fixture(params=SERVICES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    async with SERVICES[request.param]() as service:
        store = Store(request.param, service, [])
        yield store
        for connector in store.opened:
            await connector.disconnect()


REFUSALS: dict[str, list[tuple[int, str, type[ConnectorError], str]]] = {
    "s3": [
        (403, "AccessDenied", PermissionDeniedError, "the credentials do not allow it"),
        (403, "ExpiredToken", AuthenticationError, "the session token has expired"),
        (403, "InvalidAccessKeyId", AuthenticationError, "it has no such key"),
        (403, "RequestTimeTooSkewed", AuthenticationError, "refuses the credentials"),
        (403, "SignatureDoesNotMatch", AuthenticationError, "not made with the secret"),
        (403, "InvalidObjectState", DataFetchError, "it is archived; restore it first"),
        (404, "NoSuchBucket", ConnectError, "the bucket does not exist"),
        (404, "NoSuchKey", ItemNotFoundError, "it does not exist"),
        (412, "PreconditionFailed", DataFetchError, "it changed while it was read"),
        (400, "SomethingNew", DataFetchError, "SomethingNew"),
    ],
    "gcs": [
        (401, "authError", AuthenticationError, "refuses the credentials"),
        (403, "forbidden", PermissionDeniedError, "forbidden"),
        (404, "notFound", ItemNotFoundError, "it does not exist"),
        (412, "conditionNotMet", DataFetchError, "it changed while it was read"),
        (400, "somethingNew", DataFetchError, "somethingNew"),
    ],
    "http_files": [
        (401, "", AuthenticationError, "refuses the credentials"),
        (403, "", PermissionDeniedError, "does not allow it"),
        (404, "", ItemNotFoundError, "it does not exist"),
        (410, "", ItemNotFoundError, "it is gone"),
        (412, "", DataFetchError, "it changed while it was read"),
        (302, "", DataFetchError, "redirects to another address"),
        (400, "", DataFetchError, "status 400"),
    ],
}
EVERY_REFUSAL = [(kind, *refusal) for kind, refusals in REFUSALS.items() for refusal in refusals]


def of_object(fault: Fault, times: int = 1_000_000) -> Callable[[Request], Fault | None]:
    """Return what gives the first answers about objects this fault."""
    left = times

    def next_fault(request: Request) -> Fault | None:
        nonlocal left
        if not request.blob or left == 0:
            return None
        left -= 1
        return fault

    return next_fault


async def fetched(connector: ObjectConnector, name: str, folder: Path) -> bytes:
    workspace = Workspace(folder)
    path = await connector.fetch_data(name, workspace)
    content = Path(path).read_bytes()
    assert workspace.written[path].sha256 == hashlib.sha256(content).hexdigest()
    return content


NAMES = [
    "é/🦆.csv",
    "a b+c%20d.csv",
    "a//b",
    "/lead",
    "b\\c",
    "q?x=1#f&y",
    "~*[x]",
    "%2F",
    "%2e%2e",
    "a:b",
    "a;b",
    "a\x01b",
    "tab\t",
    "nl\n",
    "\x7f",
    " ",
    "<&'\">",
    "x" * 1000,
]
NO_PATHS = {"a//b", "/lead", "b\\c"}  # below a URL, each of them could lead elsewhere
NO_LISTINGS = {
    "s3": ["", "{}", "<html>Log in.</html>", "<ListBucketResult><Contents>", "<!DOCTYPE x>"],
    "gcs": ["", "[]", "<html>Log in.</html>", '{"items": [', '{"items": [{}]}', '{"items": {}}'],
    "http_files": ["{}", "Log in."],
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("size", [CHUNK, 5 * CHUNK + 17])
async def test_body_cut_at_any_byte_goes_on_from_there(
    reset: bool, size: int, store: Store, tmp_path: Path
) -> None:
    service, connector = store.service, await store.connect()
    content = os.urandom(size)
    cuts = [0, 1, CHUNK // 2, CHUNK - 1, *random.Random(7).sample(range(CHUNK), 10)]
    faults = {f"cut{cut}": iter([Fault(cut=cut, reset=reset)]) for cut in cuts}
    for name in faults:
        service.put(name, content)
    service.fault = lambda request: next(faults.get(request.blob, iter(())), None)
    contents = await asyncio.gather(*(fetched(connector, name, tmp_path) for name in faults))
    assert all(one == content for one in contents)


async def test_body_always_cut_at_once_ends_after_the_attempts_allowed(
    store: Store, tmp_path: Path
) -> None:
    service, connector = store.service, await store.connect(retries=3)
    service.put("a", os.urandom(CHUNK))
    service.fault = of_object(Fault(cut=100))
    with pytest.raises(DataFetchError, match=f"{store.object}: reading stopped at byte"):
        await connector.fetch_data("a", str(tmp_path))
    assert service.counts()["a"] == 4
    assert list(tmp_path.iterdir()) == []


async def test_body_that_stalls_goes_on(store: Store, tmp_path: Path) -> None:
    service, connector = store.service, await store.connect(read_timeout=0.5)
    content = os.urandom(3 * CHUNK)
    service.put("a", content)
    service.fault = of_object(Fault(stall=1000), times=2)
    assert await fetched(connector, "a", tmp_path) == content


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_throttling_is_weathered(status: int, store: Store, tmp_path: Path) -> None:
    service, connector = store.service, await store.connect()
    content = os.urandom(20 * CHUNK)
    service.put("a", content)
    count = 0

    def every_fourth(request: Request) -> Fault | None:
        nonlocal count
        count += 1
        return Fault(status=status, code="SlowDown") if count % 4 == 1 else None

    service.fault = every_fourth
    assert await fetched(connector, "a", tmp_path) == content


@pytest.mark.parametrize(
    ("store", "status", "code", "kind", "reason"), EVERY_REFUSAL, indirect=["store"]
)
async def test_final_refusal_midway_is_told_and_not_tried_again(
    status: int,
    code: str,
    kind: type[ConnectorError],
    reason: str,
    store: Store,
    tmp_path: Path,
) -> None:
    service, connector = store.service, await store.connect()
    service.put("a", os.urandom(10 * CHUNK))
    service.fault = lambda request: (
        Fault(status=status, code=code)
        if request.headers.get("range", "bytes=0-")[:8] != "bytes=0-"
        else None
    )
    with pytest.raises(kind, match=f"{store.object}: .*{reason}") as caught:
        await connector.fetch_data("a", str(tmp_path))
    assert caught.value.code == (code or str(status))
    assert list(tmp_path.iterdir()) == []
    asked = [r.headers["range"] for r in service.requests if "range" in r.headers]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("store", "status", "code", "kind", "reason"),
    [refusal for refusal in EVERY_REFUSAL if refusal[1] not in (400, 412)],
    indirect=["store"],
)
async def test_refusal_of_a_head_request_has_the_reason_of_the_body(
    status: int,
    code: str,
    kind: type[ConnectorError],
    reason: str,
    store: Store,
) -> None:
    service, connector = store.service, await store.connect()
    service.put("a", b"content")
    service.fault = of_object(Fault(status=status, code=code))
    with pytest.raises(kind, match=reason):
        await connector.get_metadata("a")


@pytest.mark.parametrize("size", [CHUNK, 10 * CHUNK])
async def test_object_that_changes_is_an_error_and_never_a_mixture(
    size: int, store: Store, tmp_path: Path
) -> None:
    service, connector = store.service, await store.connect()
    service.put("a", bytes(size))
    changed = False

    def change(request: Request) -> Fault | None:
        nonlocal changed
        if request.headers.get("range", "bytes=0-")[:8] != "bytes=0-" and not changed:
            changed = True
            service.put("a", b"\1" * size)
        return Fault(cut=1000) if not changed else None

    service.fault = change
    with pytest.raises(DataFetchError, match="it changed while it was read"):
        await connector.fetch_data("a", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_service_that_ignores_conditions_gives_no_mixture(
    store: Store, tmp_path: Path
) -> None:
    service, connector = store.service, await store.connect()
    service.put("a", bytes(3 * CHUNK))
    other = service.put("b", b"\1" * 3 * CHUNK)

    def change(request: Request) -> None:
        if request.headers.get("range", "bytes=0-")[:8] != "bytes=0-":
            request.headers.pop("if-match", None)
            request.query.pop("ifGenerationMatch", None)
            service.blobs["a"] = other

    service.fault = change
    with pytest.raises(DataFetchError, match="it changed while it was read"):
        await connector.fetch_data("a", str(tmp_path))


@pytest.mark.parametrize(
    ("store", "answer"),
    [(kind, answer) for kind, answers in NO_LISTINGS.items() for answer in answers],
    indirect=["store"],
)
async def test_answer_that_is_no_listing_is_an_error_and_not_an_empty_one(
    answer: str, store: Store
) -> None:
    service, connector = store.service, await store.connect(retries=1)
    service.listing = lambda request: ("text/plain", answer.encode())  # type: ignore[method-assign]
    with pytest.raises(ConnectError, match=r"not a whole listing|no page of links|no document"):
        await connector.list_items()


@pytest.mark.parametrize("name", NAMES)
async def test_awkward_name_is_listed_described_and_fetched(
    name: str, store: Store, tmp_path: Path
) -> None:
    if store.kind == "http_files" and name in NO_PATHS:
        pytest.skip("no file of a web server can have this path")
    service, connector = store.service, await store.connect()
    service.put(name, b"content")
    assert [item.path for item in await connector.list_items()] == [name]
    assert (await connector.get_metadata(name))["path"] == name
    if len(name) < 200:
        assert await fetched(connector, name, tmp_path) == b"content"


async def test_disconnect_ends_a_fetch_with_an_error(store: Store, tmp_path: Path) -> None:
    service, connector = store.service, await store.connect()
    service.put("a", bytes(10 * CHUNK))
    stalled = asyncio.Event()

    def stall(request: Request) -> Fault | None:
        if request.headers.get("range", "bytes=0-")[:8] == "bytes=0-":
            return None
        stalled.set()
        return Fault(stall=10)

    service.fault = stall
    fetch = asyncio.create_task(connector.fetch_data("a", str(tmp_path)))
    await stalled.wait()
    await connector.disconnect()
    with pytest.raises(ConnectError, match="connected"):
        await fetch
    assert list(tmp_path.iterdir()) == []
