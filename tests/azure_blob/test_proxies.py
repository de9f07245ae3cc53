"""Proxies of the environment: for reads, uploads and tokens alike, and malformed ones."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import pytest

from datasources import ConnectError, ConnectorError
from datasources.objects import proxy_for
from datasources_azure_blob.errors import Subject
from tests.azure_blob.conftest import make
from tests.servers.scripted import EMPTY_LISTING, Answer, Received, scripted

SUBJECT = Subject("data")
STORED = {"ETag": '"1"', "Last-Modified": "Thu, 25 Jul 2024 14:07:26 GMT"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def service(request: Received) -> Answer:
    if request.method == "PUT":
        return 201, STORED, b""
    return 200, {}, EMPTY_LISTING


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_uploads_go_through_the_proxy_as_reads_do(
    size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "up").write_bytes(bytes(size))
    async with scripted(service) as (port, requests):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        connector = make(
            {
                "account_url": "http://blobs.invalid/a",
                "container": "data",
                "sas_token": "sv=1&sp=rwl&sig=c2ln",
            }
        )
        await connector.connect()
        await connector.list_items()
        await connector.upload_file(str(tmp_path / "up"))
        await connector.disconnect()
    assert {request.target.split("/")[2] for request in requests} == {"blobs.invalid"}
    assert [request for request in requests if request.method == "PUT"] != []


async def test_tokens_are_requested_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: Received) -> Answer:
        return 407, {"Proxy-Authenticate": "Basic"}, b""

    async with scripted(refuse) as (port, requests):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        connector = make(
            {
                "account_url": "https://a.blob.core.windows.net",
                "container": "data",
                "tenant_id": "tenant",
                "client_id": "client",
                "client_secret": "secret-of-the-client",
            }
        )
        with pytest.raises(ConnectorError, match="container 'data'"):
            await connector.connect()
    assert {request.method for request in requests} == {"CONNECT"}
    assert {request.target for request in requests} == {"login.microsoftonline.com:443"}


@pytest.mark.parametrize(
    ("status", "reason"),
    [(407, "the proxy asks for credentials"), (403, "the proxy refuses to connect .* status 403")],
)
async def test_refusal_of_a_proxy_is_told_at_once(
    status: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(lambda _: (status, {}, b"")) as (port, requests):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        connector = make(
            {
                "account_url": "https://a.blob.core.windows.net",
                "container": "data",
                "credential": "anonymous",
            }
        )
        with pytest.raises(ConnectError, match=reason) as caught:
            await connector.connect()
    assert caught.value.code == str(status)
    assert len(requests) == 1


@pytest.mark.parametrize(
    "proxy",
    [
        "http://[::1",
        "http://user:s3#cret@127.0.0.1:3128",
        "http://user:1#s3cret@127.0.0.1:3128",
        "http://user:s3/cret@127.0.0.1:3128",
        "http://user:s3?cret@127.0.0.1:3128",
        "http://user:s3 cret@127.0.0.1:3128",
        "http://user:s3-cret@127.0.0.1:port",
        "http://user:s3-cret@:3128",
        "http://",
        "socks5://user:s3-cret@127.0.0.1:1080",
        "nonsense://user:s3-cret@127.0.0.1:1080",
    ],
)
@pytest.mark.parametrize("name", ["http_proxy", "all_proxy", "ALL_PROXY"])
async def test_malformed_proxy_is_an_error_that_names_the_variable_and_no_password(
    name: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy)
    connector = make(
        {"account_url": "http://blobs.invalid/a", "container": "data", "credential": "anonymous"}
    )
    with pytest.raises(ConnectError, match=f"variable {name} holds no URL of an") as caught:
        await connector.connect()
    shown = "".join(traceback.format_exception(caught.value))
    assert not re.search("s3.?cret", shown)


@pytest.mark.parametrize(
    ("no_proxy", "url", "used"),
    [
        ("", "http://blobs.invalid/x", True),
        ("blobs.invalid", "http://blobs.invalid/x", False),
        ("invalid", "http://blobs.invalid/x", False),
        ("blobs.invalid:80", "http://blobs.invalid/x", False),
        ("blobs.invalid:81", "http://blobs.invalid/x", True),
        ("blobs.invalid:81", "http://blobs.invalid:81/x", False),
        ("*", "http://blobs.invalid/x", False),
        ("other, *.Invalid", "http://blobs.invalid/x", False),
        ("*.blobs.invalid", "http://blobs.invalid/x", True),
        ("10.0.0.0/8", "http://10.1.2.3/x", False),
        ("10.0.0.1/8,fd00::/8", "http://[fd00::1]:10000/x", False),
        ("10.0.0.0/8", "http://11.1.2.3/x", True),
        ("10.0.0.0/8", "http://blobs.invalid/x", True),
        ("", "http://169.254.169.254/metadata", False),
    ],
)
def test_hosts_without_a_proxy_are_those_of_no_proxy(
    no_proxy: str, url: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(url, SUBJECT) == ("http://proxy.invalid:3128" if used else None)
