"""Faults that only a service of S3 has; `test_faults.py` has those of the services of all types."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
)
from datasources_object_store import S3Connector
from tests.object_store.conftest import KEYS, Connect, local_options
from tests.object_store.test_faults import CHUNK, fetched, of_object
from tests.servers.blob_server import Fault, S3Service


@pytest.fixture
async def connector(service: S3Service, connect: Connect) -> S3Connector:
    connector = await connect(local_options(service, chunk_size=CHUNK))
    service.requests.clear()
    return connector


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


async def test_listing_that_breaks_off_is_an_error_and_not_the_end(
    service: S3Service, connector: S3Connector
) -> None:
    page = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    service.page = lambda query: page  # type: ignore[method-assign]
    with pytest.raises(ConnectError, match="the listing goes on, and not where"):
        await connector.list_items()


@pytest.mark.parametrize("marker", ["", "<NextKeyMarker>a</NextKeyMarker>"])
async def test_list_of_versions_that_does_not_go_on_ends(
    marker: str, service: S3Service, connector: S3Connector
) -> None:
    service.put("a", b"content")
    page = f"<ListVersionsResult><IsTruncated>true</IsTruncated>{marker}</ListVersionsResult>"
    service.page = lambda query: page.encode()  # type: ignore[method-assign]
    with pytest.raises(ConnectError, match="the listing goes on, and not where"):
        await connector.list_versions("a")
