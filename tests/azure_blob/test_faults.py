"""A service that cuts, stalls, refuses and lies: a whole file, or a clear error and no file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from email.utils import formatdate
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from pydantic import SecretStr

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    ItemNotFoundError,
    PermissionDeniedError,
    Workspace,
)
from datasources.objects import failures
from datasources_azure_blob import AzureBlobConnector, authorization
from datasources_azure_blob.authorization import Token
from datasources_azure_blob.errors import Subject
from tests.azure_blob.conftest import make
from tests.servers.blob_server import BlobService, Fault, Request

CHUNK = 64 * 1024
KEY = "a2V5IG9mIGEgc2VydmVyIHRoYXQgYXNrcyBmb3Igbm9uZQ=="


@pytest.fixture
async def connector(service: BlobService) -> AsyncIterator[AzureBlobConnector]:
    """With small chunks."""
    connector = connected(service)
    await connector.connect()
    service.requests.clear()
    yield connector
    await connector.disconnect()


def connected(service: BlobService, **options: Any) -> AzureBlobConnector:
    return make(
        {
            "account_url": service.url,
            "account_name": "account",
            "account_key": KEY,
            "container": "data",
            "chunk_size": CHUNK,
            **options,
        },
        max_size=50,
    )


class Faults:
    """Gives each blob its faults in order, then none."""

    def __init__(self, **faults: Sequence[Fault | None]) -> None:
        self._faults = {blob: iter(given) for blob, given in faults.items()}

    def __call__(self, request: Request) -> Fault | None:
        return next(self._faults.get(request.blob, iter(())), None)


async def fetched(connector: AzureBlobConnector, name: str, folder: Path) -> bytes:
    workspace = Workspace(folder)
    path = await connector.fetch_data(name, workspace)
    content = Path(path).read_bytes()
    assert workspace.written[path].sha256 == hashlib.sha256(content).hexdigest()
    return content


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("size", [CHUNK, 5 * CHUNK + 17])
async def test_body_cut_at_any_byte_goes_on_from_there(
    reset: bool, size: int, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    content = os.urandom(size)
    cuts = [0, 1, 2, CHUNK // 2, CHUNK - 1, *random.Random(7).sample(range(CHUNK), 25)]
    for cut in cuts:
        service.put(f"cut{cut}", content)
    faults = Faults(**{f"cut{cut}": [Fault(cut=cut, reset=reset)] for cut in cuts})
    service.fault = faults
    contents = await asyncio.gather(*(fetched(connector, f"cut{cut}", tmp_path) for cut in cuts))
    assert all(one == content for one in contents)
    if not reset:
        # What had arrived was not asked for again.
        second = [r for r in service.requests if r.blob == "cut1" and "if-match" in r.headers]
        assert any(r.headers["range"].startswith("bytes=1-") for r in second)


async def test_body_cut_again_and_again_arrives(service: BlobService, tmp_path: Path) -> None:
    content = os.urandom(2_000_000)
    service.put("a", content)
    connector = connected(service, chunk_size=4_000_000, retries=1)
    await connector.connect()
    service.fault = lambda request: Fault(cut=70_000)
    assert await fetched(connector, "a", tmp_path) == content
    await connector.disconnect()


async def test_body_always_cut_at_once_ends_after_the_attempts_allowed(
    service: BlobService, tmp_path: Path
) -> None:
    service.put("a", os.urandom(CHUNK))
    connector = connected(service, retries=3)
    await connector.connect()
    service.requests.clear()
    service.fault = lambda request: Fault(cut=100)
    with pytest.raises(DataFetchError, match=r"blob 'a' of .*reading stopped at byte 400"):
        await connector.fetch_data("a", str(tmp_path))
    assert service.counts()["a"] == 4
    assert list(tmp_path.iterdir()) == []
    await connector.disconnect()


async def test_stalled_body_goes_on_from_there(service: BlobService, tmp_path: Path) -> None:
    content = os.urandom(3 * CHUNK)
    service.put("a", content)
    connector = connected(service, read_timeout=0.5)
    await connector.connect()
    service.fault = Faults(a=[Fault(stall=1000), None, Fault(stall=0)])
    assert await fetched(connector, "a", tmp_path) == content
    await connector.disconnect()


async def test_body_that_always_stalls_is_an_error(service: BlobService, tmp_path: Path) -> None:
    service.put("a", os.urandom(CHUNK))
    connector = connected(service, retries=2, read_timeout=0.1)
    await connector.connect()
    service.fault = lambda request: Fault(stall=0)
    with pytest.raises(DataFetchError, match=r"blob 'a' of .*no byte from .* within 0\.1 s"):
        await connector.fetch_data("a", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    await connector.disconnect()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_storm_of_refusals_is_weathered(
    status: int, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    content = os.urandom(40 * CHUNK)
    service.put("a", content)
    count = 0

    def every_fourth(request: Request) -> Fault | None:
        nonlocal count
        count += 1
        return Fault(status=status, code="ServerBusy") if count % 4 == 1 else None

    service.fault = every_fourth
    assert await fetched(connector, "a", tmp_path) == content


async def test_service_that_stays_busy_is_an_error_after_the_attempts_allowed(
    service: BlobService, tmp_path: Path
) -> None:
    service.put("a", b"content")
    connector = connected(service, retries=3)
    await connector.connect()
    service.requests.clear()
    service.fault = lambda request: Fault(status=503, code="ServerBusy")
    with pytest.raises(DataFetchError, match=r"blob 'a' of container 'data': ServerBusy") as caught:
        await connector.fetch_data("a", str(tmp_path))
    assert caught.value.code == "ServerBusy"
    assert service.counts()["a"] == 4
    with pytest.raises(ConnectError, match="container 'data': ServerBusy"):
        await connector.list_items()
    await connector.disconnect()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which somebody would sleep, and does not."""
    asked: list[float] = []
    turn = asyncio.sleep

    async def sleep(delay: float) -> None:
        if delay:  # else only a turn of the loop
            asked.append(delay)
        await turn(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return asked


async def test_attempts_end_with_their_time(
    service: BlobService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(failures, "monotonic", lambda: sum(pauses))  # nothing else takes time
    service.put("a", b"content")
    connector = connected(service, retries=6, retry_timeout=0.5)
    await connector.connect()
    service.requests.clear()
    service.fault = lambda request: Fault(status=503, code="ServerBusy")
    with pytest.raises(DataFetchError):
        await connector.fetch_data("a", str(tmp_path))
    assert 1 < service.counts()["a"] < 7
    await connector.disconnect()


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_waited_for(
    form: str,
    service: BlobService,
    connector: AzureBlobConnector,
    pauses: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = int(time.time())
    # However long the answer takes.
    monkeypatch.setattr("datasources.objects.http.time", lambda: now)
    service.put("a", b"content")
    after = "7" if form == "seconds" else formatdate(now + 7, usegmt=True)
    busy = Fault(status=503, code="ServerBusy", headers={"Retry-After": after})
    service.fault = Faults(a=[busy])
    assert await fetched(connector, "a", tmp_path) == b"content"
    assert pauses == [7]


async def test_retry_after_beyond_the_timeout_is_not_waited_for(
    service: BlobService, connector: AzureBlobConnector, pauses: list[float], tmp_path: Path
) -> None:
    service.put("a", b"content")
    busy = Fault(status=503, code="ServerBusy", headers={"Retry-After": "3600"})
    service.fault = Faults(a=[busy])
    with pytest.raises(DataFetchError, match="ServerBusy"):
        await fetched(connector, "a", tmp_path)
    assert pauses == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "InvalidAuthenticationInfo", AuthenticationError),
        (403, "AuthenticationFailed", AuthenticationError),
        (403, "SomethingNew", AuthenticationError),
        (403, "AuthorizationPermissionMismatch", PermissionDeniedError),
        (403, "AuthorizationSourceIPMismatch", PermissionDeniedError),
        (404, "ContainerNotFound", ConnectError),
        (409, "ContainerBeingDeleted", ConnectError),
        (409, "BlobArchived", DataFetchError),
        (409, "BlobUsesCustomerSpecifiedEncryption", PermissionDeniedError),
        (412, "ConditionNotMet", DataFetchError),
        (400, "InvalidHeaderValue", DataFetchError),
    ],
)
async def test_final_refusal_midway_is_not_tried_again(
    status: int,
    code: str,
    kind: type[ConnectorError],
    service: BlobService,
    connector: AzureBlobConnector,
    tmp_path: Path,
) -> None:
    service.put("a", os.urandom(10 * CHUNK))
    service.fault = lambda request: (
        Fault(status=status, code=code) if "bytes=0-" not in request.headers["range"] else None
    )
    with pytest.raises(kind, match="blob 'a' of container 'data'") as caught:
        await connector.fetch_data("a", str(tmp_path))
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []
    asked = [request.headers["range"] for request in service.requests]
    assert len(asked) == len(set(asked))


async def test_clock_that_is_off_is_named(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", b"content")
    late = {"Date": formatdate(time.time() + 3600, usegmt=True)}
    service.fault = Faults(a=[Fault(status=403, code="AuthenticationFailed", headers=late)])
    with pytest.raises(AuthenticationError, match="this machine's clock is 60 minutes off"):
        await connector.fetch_data("a", str(tmp_path))


@pytest.mark.parametrize("size", [CHUNK, 10 * CHUNK])
async def test_blob_changed_after_a_cut_is_an_error_never_a_mixture(
    size: int, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", b"o" * size)

    def change(request: Request) -> Fault | None:
        if "if-match" not in request.headers:
            return Fault(cut=1000)
        service.put("a", b"n" * size)
        service.fault = lambda request: None
        return None

    service.fault = change
    with pytest.raises(DataFetchError, match="changed while it was read") as caught:
        await connector.fetch_data("a", str(tmp_path))
    assert caught.value.code == "ConditionNotMet"
    assert list(tmp_path.iterdir()) == []


async def test_blob_overwritten_all_the_time_is_old_or_new_or_an_error(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    versions = 0
    service.put("a", bytes(5 * CHUNK))
    service.put("small", bytes(1000))

    async def overwrite() -> None:
        nonlocal versions
        while True:
            await asyncio.sleep(0.01)
            versions += 1
            service.put("a", bytes([versions % 256]) * 5 * CHUNK)
            service.put("small", bytes([versions % 256]) * 1000)

    writer = asyncio.create_task(overwrite())
    complete, failed = 0, []
    for number in range(200):
        name = "a" if number % 2 else "small"
        try:
            content = await fetched(connector, name, tmp_path)
        except DataFetchError as exc:
            failed.append(exc.code)
        else:
            assert len(set(content)) == 1
            complete += 1
    writer.cancel()
    assert versions > 10
    assert complete >= 100  # a small one is a single answer
    assert set(failed) <= {"ConditionNotMet"}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(headers={"Content-Range": "bytes 5-65535/655360"}), "another part"),
        (Fault(headers={"Content-Range": "nonsense"}), "another part|length"),
        (Fault(headers={"ETag": ""}), "ETag"),
        (Fault(headers={"Content-Length": "100"}), "not answer|another part|stopped|lost"),
    ],
)
async def test_answer_that_contradicts_itself_is_an_error(
    fault: Fault, reason: str, service: BlobService, tmp_path: Path
) -> None:
    service.put("a", os.urandom(10 * CHUNK))
    connector = connected(service, retries=1)
    await connector.connect()
    service.fault = lambda request: fault
    with pytest.raises(ConnectorError, match=reason):
        await connector.fetch_data("a", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    await connector.disconnect()


async def test_server_without_ranges_is_read_in_one(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    content = b"a,b\n" * 200_000
    service.put("a.csv", content)
    service.ranges = False
    assert await fetched(connector, "a.csv", tmp_path) == content
    assert service.counts()["a.csv"] == 1
    preview = await connector.preview("a.csv", 2)
    assert list(preview.rows) == [("a", "b")] * 2


async def test_refusals_do_not_cost_connections(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    for _ in range(5):
        with pytest.raises(ItemNotFoundError):
            await connector.fetch_data("missing", str(tmp_path))
    assert service.connected == 1


async def test_error_of_the_progress_callback_ends_the_fetch_as_it_is(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", bytes(10 * CHUNK))

    def fail(done: int, total: int | None) -> None:
        raise TimeoutError("of the host's own")

    with pytest.raises(TimeoutError, match="of the host's own"):
        await connector.fetch_data("a", Workspace(tmp_path, progress=fail))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1000, 10 * CHUNK])
async def test_damaged_byte_is_found_where_the_service_gives_a_digest(
    size: int, service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", os.urandom(size), md5=True)
    assert len(await fetched(connector, "a", tmp_path)) == size
    service.put("b", os.urandom(size), md5=True)
    service.fault = Faults(b=[Fault(damage=True)])
    with pytest.raises(DataFetchError, match="'b' arrived damaged: its md5"):
        await connector.fetch_data("b", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


async def test_cancelled_pause_leaves_no_task(
    service: BlobService, connector: AzureBlobConnector, tmp_path: Path
) -> None:
    service.put("a", os.urandom(10 * CHUNK))
    busy = Fault(status=503, code="ServerBusy", headers={"Retry-After": "30"})
    refused = asyncio.Event()

    def refuse_all_but_the_first(request: Request) -> Fault | None:
        if "bytes=0-" in request.headers["range"]:
            return None
        refused.set()
        return busy

    service.fault = refuse_all_but_the_first
    before = asyncio.all_tasks()
    task = asyncio.create_task(connector.fetch_data("a", str(tmp_path)))
    await refused.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
    assert list(tmp_path.iterdir()) == []


async def test_listing_survives_cuts_and_refusals(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    names = [f"{number:04}" for number in range(7000)]
    for name in names:
        service.put(name, b"")
    faults = [Fault(cut=100_000), Fault(status=503), None, Fault(cut=10, reset=True), Fault(cut=0)]
    service.fault = lambda request: faults.pop(0) if faults else None
    assert [item.path for item in await connector.list_items()] == names


async def test_first_items_arrive_with_the_first_page(
    service: BlobService, connector: AzureBlobConnector
) -> None:
    for number in range(12_000):
        service.put(f"{number:05}", b"x")
    items = connector.iter_items()
    assert (await anext(items)).path == "00000"
    assert len(service.requests) == 1
    rest = [item.path async for item in items]
    assert len(rest) == 11_999
    assert len(service.requests) == 3


async def test_any_mixture_of_faults_ends_in_a_whole_file_or_a_clear_error(
    service: BlobService, tmp_path: Path
) -> None:
    chance = random.Random(20)
    contents = {f"blob{n}": chance.randbytes(chance.randrange(4 * CHUNK)) for n in range(300)}
    for name, content in contents.items():
        service.put(name, content, md5=chance.random() < 0.5)
    connector = connected(service, read_timeout=1, retries=4)
    await connector.connect()

    def fault(request: Request) -> Fault | None:
        if chance.random() > 0.35:
            return None
        some = chance.randrange(CHUNK)
        return chance.choice(
            [
                Fault(cut=some),
                Fault(cut=some, reset=True),
                Fault(reset=True),
                Fault(stall=some),
                Fault(status=503, code="ServerBusy"),
                Fault(status=500, code="InternalError"),
                Fault(status=403, code="AuthenticationFailed"),
            ]
        )

    service.fault = fault
    results = await asyncio.gather(
        *(fetched(connector, name, tmp_path) for name in contents), return_exceptions=True
    )
    await connector.disconnect()
    survived = 0
    for (name, content), result in zip(contents.items(), results, strict=True):
        if isinstance(result, bytes):
            assert result == content
            survived += 1
        else:
            assert isinstance(result, ConnectorError), result
            assert repr(name) in str(result)
            assert not (tmp_path / name).exists()
    assert survived >= 200
    assert len(list(tmp_path.iterdir())) == survived


async def test_refusal_that_comes_after_the_renewal_of_the_token_is_not_final(
    service: BlobService, connector: AzureBlobConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed, refusals, given = asyncio.Event(), 0, 0

    class Credential:
        async def get_token(self, _scope: str) -> Any:
            nonlocal given
            given += 1
            return SimpleNamespace(token=str(given), expires_on=time.time() + 3600)

        async def close(self) -> None:
            pass

    async def no_newer_credential() -> None:
        pass

    def refuse_the_first_token(request: Request) -> Fault | None:
        if request.headers["authorization"] != "Bearer 1":
            renewed.set()
        return None if renewed.is_set() else Fault(status=401, code="InvalidAuthenticationInfo")

    async def read_error(response: Any) -> bytes:
        nonlocal refusals
        refusals += 1
        if refusals == 1:
            await renewed.wait()
        return await read(response)

    blobs = connector._connection
    blobs.authorization = token = Token(Credential(), blobs.subject(), no_newer_credential)
    await token.get_token()
    token._received_at = 0.0
    read = blobs.http.read_error
    monkeypatch.setattr(blobs.http, "read_error", read_error)
    service.put("a", b"content")
    service.fault = refuse_the_first_token
    described = await asyncio.gather(*(connector.get_metadata("a") for _ in range(2)))
    assert [metadata["size"] for metadata in described] == [7, 7]
    assert (refusals, given) == (2, 2)


class SecretCredential:
    """A credential that is refused if its secret is `refused`."""

    def __init__(self, secret: str, closing: Callable[[], Awaitable[None]]) -> None:
        self._secret = secret
        self._closing = closing

    async def get_token(self, _scope: str) -> Any:
        if self._secret == "refused":
            raise ClientAuthenticationError("refused")
        return SimpleNamespace(token="t", expires_on=time.time() + 3600)

    async def close(self) -> None:
        await self._closing()


@pytest.mark.parametrize("point", ["made", "refused closed"])
async def test_new_client_secret_is_not_lost_with_the_request_that_read_it(
    point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def stop_at(name: str) -> None:
        if name == point and not reached.is_set():
            reached.set()
            await asyncio.Event().wait()

    async def make_credential(_options: Any, secret: str, *_: Any) -> SecretCredential:
        if secret == "new":
            await stop_at("made")
        return SecretCredential(secret, partial(stop_at, "refused closed"))

    async def read_secret(_name: str) -> str:
        return "new"

    monkeypatch.setattr(authorization, "_identity_credential", make_credential)
    options: Any = SimpleNamespace(client_secret=SecretStr("refused"))
    session: Any = None
    token = await authorization.token_authorization(options, session, Subject("data"), read_secret)
    assert isinstance(token, Token)
    leaving = asyncio.create_task(token.get_token())
    await reached.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await token.get_token()).token == "t"
