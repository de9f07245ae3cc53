"""The example of a web server's directory keeps the contract on a real server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasources import (
    ConnectError,
    DataFetchError,
    DataSourceConfig,
    DataSourceType,
    ItemNotFoundError,
    OptionError,
)
from datasources.testing import ConnectorContract, Subject, serve
from tests.conftest import IN_CI
from tests.servers.process import free_port

if not IN_CI:
    pytest.importorskip(
        "datasources_http_directory", reason="examples/http_directory is not installed"
    )
from datasources_http_directory.connector import HttpDirectoryConnector

USER, PASSWORD = "ann", "open-sesame"
ITEMS = {
    "sales.csv": b"x,y\n1,2\n3,4\n",
    "2024/january/sales report #1 100%.csv": b"x\n",
    "2024/empty": b"",
    "large.bin": bytes(range(256)) * 12_288,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the server serves."""
    return tmp_path_factory.mktemp("www")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A server of the items, with a file beside them that nobody may reach."""
    (folder / "secret.txt").write_bytes(b"beside the source\n")
    for name, content in ITEMS.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with (folder / "files" / "heavy.bin").open("wb") as file:
        file.truncate(64 << 20)
    program = [sys.executable, str(Path(__file__).with_name("http_server.py"))]
    with serve([*program, "{port}", str(folder), USER, PASSWORD]) as server:
        yield f"http://127.0.0.1:{server.port}/files/"


def change(folder: Path) -> tuple[str, bytes]:
    """Put another file in place of one."""
    path, new = folder / "files" / "changing.bin", folder / "changing.bin"
    former = path.read_bytes()[:1] if path.exists() else b"\0"
    content = bytes([former[0] + 1]) * (5 << 20)
    new.write_bytes(content)
    new.replace(path)
    return path.name, content


class TestContract(ConnectorContract):
    connector_class = HttpDirectoryConnector

    @pytest.fixture
    def subject(self, url: str, folder: Path) -> Subject:
        options = {"url": url, "user": USER, "password": PASSWORD}
        return Subject(
            connector_class=HttpDirectoryConnector,
            type="http_directory",
            options=options,
            items=ITEMS,
            missing="2024/nothing.csv",
            tables={"sales.csv": 2},
            counts_rows=False,
            abilities={"iter_items"},
            wrong_credentials={**options, "password": "something-else"},
            unreachable={**options, "url": f"http://127.0.0.1:{free_port()}/"},
            large="heavy.bin",
            change=lambda: change(folder),
        )


def connector_of(url: str) -> HttpDirectoryConnector:
    options = {"url": url, "user": USER, "password": PASSWORD}
    return HttpDirectoryConnector(
        DataSourceConfig("h", DataSourceType("http_directory"), "", options)
    )


@pytest.mark.parametrize("path", ["../secret.txt", "2024/../../secret.txt", "..%2fsecret.txt"])
async def test_nothing_above_the_url_is_reached(url: str, tmp_path: Path, path: str) -> None:
    connector = connector_of(url)
    await connector.connect()
    try:
        with pytest.raises(ItemNotFoundError):
            await connector.fetch_data(path, str(tmp_path))
    finally:
        await connector.disconnect()


async def test_a_folder_is_no_file_and_its_redirect_is_not_followed(
    url: str, tmp_path: Path
) -> None:
    connector = connector_of(url)
    await connector.connect()
    try:
        with pytest.raises(DataFetchError, match="301"):
            await connector.fetch_data("2024", str(tmp_path))
    finally:
        await connector.disconnect()


async def test_a_url_that_is_not_there_is_a_connect_error(url: str) -> None:
    with pytest.raises(ConnectError, match="does not exist"):
        await connector_of(f"{url}nothing/").connect()


@pytest.mark.parametrize("url", ["ftp://h/", "file:///etc", "http://a:b@h/", "http://h/?q", "h"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(OptionError, match="'url'"):
        connector_of(url)
