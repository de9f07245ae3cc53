"""Faults of an S3 service, and what a source makes of them: a complete file or a clear error."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

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
from datasources_object_store import S3Connector
from tests.object_store.conftest import KEYS, Connect, local_options
from tests.servers.blob_server import Fault, Request, S3Service

CHUNK = 64 * 1024


@pytest.fixture
async def connector(service: S3Service, connect: Connect) -> S3Connector:
    connector = await connect(local_options(service, chunk_size=CHUNK))
    service.requests.clear()
    return connector


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


async def fetched(connector: S3Connector, name: str, folder: Path) -> bytes:
    workspace = Workspace(folder)
    path = await connector.fetch_data(name, workspace)
    content = Path(path).read_bytes()
    assert workspace.written[path].sha256 == hashlib.sha256(content).hexdigest()
    return content


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("size", [CHUNK, 5 * CHUNK + 17])
async def test_body_cut_at_any_byte_goes_on_from_there(
    reset: bool, size: int, service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
    content = os.urandom(size)
    cuts = [0, 1, CHUNK // 2, CHUNK - 1, *random.Random(7).sample(range(CHUNK), 10)]
    faults = {f"cut{cut}": iter([Fault(cut=cut, reset=reset)]) for cut in cuts}
    for name in faults:
        service.put(name, content)
    service.fault = lambda request: next(faults.get(request.blob, iter(())), None)
    contents = await asyncio.gather(*(fetched(connector, name, tmp_path) for name in faults))
    assert all(one == content for one in contents)


async def test_body_always_cut_at_once_ends_after_the_attempts_allowed(
    service: S3Service, connect: Connect, tmp_path: Path
) -> None:
    service.put("a", os.urandom(CHUNK))
    connector = await connect(local_options(service, retries=3))
    service.requests.clear()
    service.fault = of_object(Fault(cut=100))
    with pytest.raises(DataFetchError, match=r"object 'a' of bucket 'data': reading stopped at by"):
        await connector.fetch_data("a", str(tmp_path))
    assert service.counts()["a"] == 4
    assert list(tmp_path.iterdir()) == []


async def test_body_that_stalls_goes_on(
    service: S3Service, connect: Connect, tmp_path: Path
) -> None:
    content = os.urandom(3 * CHUNK)
    service.put("a", content)
    connector = await connect(local_options(service, chunk_size=CHUNK, read_timeout=0.5))
    service.fault = of_object(Fault(stall=1000), times=2)
    assert await fetched(connector, "a", tmp_path) == content


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_throttling_is_weathered(
    status: int, service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
    content = os.urandom(20 * CHUNK)
    service.put("a", content)
    count = 0

    def every_fourth(request: Request) -> Fault | None:
        nonlocal count
        count += 1
        return Fault(status=status, code="SlowDown") if count % 4 == 1 else None

    service.fault = every_fourth
    assert await fetched(connector, "a", tmp_path) == content


REFUSALS = [
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
]


@pytest.mark.parametrize(("status", "code", "kind", "reason"), REFUSALS)
async def test_final_refusal_midway_is_told_and_not_tried_again(
    status: int,
    code: str,
    kind: type[ConnectorError],
    reason: str,
    service: S3Service,
    connector: S3Connector,
    tmp_path: Path,
) -> None:
    service.put("a", os.urandom(10 * CHUNK))
    service.fault = lambda request: (
        Fault(status=status, code=code)
        if request.headers.get("range", "bytes=0-")[:8] != "bytes=0-"
        else None
    )
    with pytest.raises(kind, match=f"object 'a' of bucket 'data': .*{reason}") as caught:
        await connector.fetch_data("a", str(tmp_path))
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []
    asked = [r.headers["range"] for r in service.requests if "range" in r.headers]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(("status", "code", "kind", "reason"), REFUSALS[:-2])
async def test_refusal_of_a_head_request_has_the_reason_of_the_body(
    status: int,
    code: str,
    kind: type[ConnectorError],
    reason: str,
    service: S3Service,
    connector: S3Connector,
) -> None:
    service.put("a", b"content")
    service.fault = of_object(Fault(status=status, code=code))
    with pytest.raises(kind, match=reason):
        await connector.get_metadata("a")


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (301, {"x-amz-bucket-region": "eu-west-1"}, "PermanentRedirect"),
        (307, {"x-amz-bucket-region": "eu-west-1", "Location": "http://x/"}, "TemporaryRedirect"),
        (400, {"x-amz-bucket-region": "eu-west-1"}, "AuthorizationHeaderMalformed"),
    ],
)
async def test_bucket_of_another_region_is_named_and_no_redirect_is_followed(
    status: int, headers: dict[str, str], code: str, service: S3Service, connect: Connect
) -> None:
    service.fault = lambda request: Fault(status=status, code=code, headers=headers)
    with pytest.raises(ConnectError, match="in the region 'eu-west-1'; set 'region'"):
        await connect(local_options(service))


async def test_clock_that_is_off_is_told(service: S3Service, connect: Connect) -> None:
    date = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    service.fault = lambda _: Fault(status=403, code="RequestTimeTooSkewed", headers=date)
    with pytest.raises(AuthenticationError, match=r"this machine's clock is \d+ minutes off"):
        await connect(local_options(service))


@pytest.mark.parametrize("size", [CHUNK, 10 * CHUNK])
async def test_object_that_changes_is_an_error_and_never_a_mixture(
    size: int, service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
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
    service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
    service.put("a", bytes(3 * CHUNK))
    other = service.put("b", b"\1" * 3 * CHUNK)

    def change(request: Request) -> None:
        if request.headers.get("range", "bytes=0-")[:8] != "bytes=0-":
            request.headers.pop("if-match", None)
            service.blobs["a"] = other

    service.fault = change
    with pytest.raises(DataFetchError, match="it changed while it was read"):
        await connector.fetch_data("a", str(tmp_path))


async def test_damaged_byte_is_found_by_the_etag(
    service: S3Service, connector: S3Connector, connect: Connect, tmp_path: Path
) -> None:
    service.put("a", os.urandom(CHUNK))
    service.fault = of_object(Fault(damage=True))
    with pytest.raises(DataFetchError, match=r"its md5 is not .*'check_md5' = false"):
        await connector.fetch_data("a", str(tmp_path))
    unchecked = await connect(local_options(service, check_md5=False))
    await unchecked.fetch_data("a", str(tmp_path))


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ],
)
async def test_etag_that_is_no_md5_is_not_checked(
    headers: dict[str, str], service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
    service.put("a", b"content", **headers).etag = f'"{"0" * 32}"'
    assert await fetched(connector, "a", tmp_path) == b"content"


@pytest.mark.parametrize(
    "answer", ["", "{}", "<html>Log in.</html>", "<ListBucketResult><Contents>", "<!DOCTYPE x>"]
)
async def test_answer_that_is_no_listing_is_an_error_and_not_an_empty_one(
    answer: str, service: S3Service, connect: Connect
) -> None:
    connector = await connect(local_options(service, retries=1))
    service.page = lambda query: answer.encode()  # type: ignore[method-assign]
    with pytest.raises(ConnectError, match="the answer is not a whole listing"):
        await connector.list_items()


async def test_names_with_dots_are_read_by_their_listed_etags(
    service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
    service.put("a/../b", b"asked for")
    other = service.put("b", b"another")
    assert await fetched(connector, "a/../b", tmp_path) == b"asked for"
    service.find = lambda request: other  # type: ignore[method-assign]  # as a proxy resolves it
    for call in (connector.fetch_data("a/../b", str(tmp_path)), connector.get_metadata("a/../b")):
        with pytest.raises(DataFetchError, match="changed while it was read"):
            await call


NAMES = [
    "é/🦆.csv",
    "a b+c%20d.csv",
    "a//b",
    "/lead",
    "b\\c",
    "q?x=1#f&y",
    "~*[x]",
    "%2F",
    "a\x01b",
    "tab\t",
    "nl\n",
    "\x7f",
    " ",
    "<&'\">",
    "x" * 1000,
]


@pytest.mark.parametrize("name", NAMES)
async def test_awkward_name_is_listed_described_and_fetched(
    name: str, service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
    service.put(name, b"content")
    assert [item.path for item in await connector.list_items()] == [name]
    assert (await connector.get_metadata(name))["path"] == name
    if len(name) < 200:
        assert await fetched(connector, name, tmp_path) == b"content"


async def test_disconnect_ends_a_fetch_with_an_error(
    service: S3Service, connector: S3Connector, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize("name", ["a", ""])
async def test_no_error_shows_a_secret(
    name: str, service: S3Service, connector: S3Connector
) -> None:
    secret = KEYS["secret_access_key"]
    service.put("a", b"content")
    service.fault = lambda request: Fault(status=400, code=f"Echo {secret}")
    call = connector.get_metadata(name) if name else connector.list_items()
    with pytest.raises(ConnectorError) as caught:
        await call
    errors: Sequence[object] = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any(secret in repr(error) for error in errors)
