"""Files of web servers: the contract on two of them, WebDAV, names, faults and options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    DataSourceConfig,
    ItemNotFoundError,
    OptionError,
    PermissionDeniedError,
    Policy,
    PolicyError,
    PoolConfig,
)
from datasources.testing import ConnectorContract, Subject, serve
from datasources_object_store import HTTPFilesConnector, HTTPFilesOptions
from tests.core.fakes import registry_of
from tests.listeners import listening
from tests.object_store.conftest import new_bucket
from tests.object_store.test_s3_contract import ITEMS
from tests.resolvers import DENIED, NAME, ChangingResolver
from tests.servers.process import HOST, free_port
from tests.servers.s3 import SeaweedServer
from tests.servers.scripted import Answer, Received, scripted

# aiohttp leaves a connection open whose response is closed when its event loop is closed already,
# and warns of that at any later time. The contract's checks of leaks count the sockets themselves.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

USER, PASSWORD = "ann", "open-sesame"
MANY = [f"many/{number:02}" for number in range(41)]
AWKWARD = "2024/january/sales report #1 100%.csv"
SERVER = Path(__file__).parents[1] / "servers" / "http_files.py"


@contextmanager
def served(folder: Path, *more: str) -> Iterator[str]:
    """Serve the items, with a file beside them that nobody may reach."""
    (folder / "secret.txt").write_bytes(b"beside the source\n")
    for name, content in {**ITEMS, AWKWARD: b"x\n", **dict.fromkeys(MANY, b"")}.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with (folder / "files" / "heavy.bin").open("wb") as file:
        file.truncate(64 << 20)
    program = [sys.executable, str(SERVER), "{port}", str(folder), USER, PASSWORD, *more]
    with serve(program) as server:
        yield f"http://{HOST}:{server.port}/files"


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def ranges_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges")


@pytest.fixture(scope="module")
def plain(plain_folder: Path) -> Iterator[str]:
    """The URL of files on the server of the standard library."""
    with served(plain_folder) as url:
        yield url


@pytest.fixture(scope="module")
def ranges(ranges_folder: Path) -> Iterator[str]:
    """The URL of files on one that knows ranges and ETags."""
    with served(ranges_folder, "ranges") as url:
        yield url


def subject_of(url: str, folder: Path) -> Subject:
    options = {"url": url, "user": USER, "password": PASSWORD, "chunk_size": 1 << 20, "retries": 1}

    def change() -> tuple[str, bytes]:
        path, new = folder / "files" / "changing.bin", folder / "changing.bin"
        former = path.read_bytes()[:1] if path.exists() else b"\0"
        content = bytes([former[0] + 1]) * (5 << 20)
        new.write_bytes(content)
        new.replace(path)
        return path.name, content

    return Subject(
        connector_class=HTTPFilesConnector,
        type="http_files",
        options=options,
        items={**ITEMS, AWKWARD: b"x\n"},
        missing="2024/nothing.csv",
        tables={"sales.csv": 2, "numbers.parquet": 3},
        counts_rows=False,
        abilities={"iter_items", "pages", "glob", "preview", "statistics", "stream", "splits"},
        wrong_credentials={**options, "password": "something-else"},
        unreachable={**options, "url": f"http://{HOST}:{free_port()}"},
        large="heavy.bin",
        many=MANY,
        change=change,
    )


class TestContractOnPlainServer(ConnectorContract):
    connector_class = HTTPFilesConnector

    @pytest.fixture
    def subject(self, plain: str, plain_folder: Path) -> Subject:
        return subject_of(plain, plain_folder)


class TestContractOnServerWithRanges(ConnectorContract):
    connector_class = HTTPFilesConnector

    @pytest.fixture
    def subject(self, ranges: str, ranges_folder: Path) -> Subject:
        return subject_of(ranges, ranges_folder)


def make(url: str, **options: Any) -> HTTPFilesConnector:
    return HTTPFilesConnector(
        DataSourceConfig("files", "http_files", "Files", {"url": url, "retries": 2, **options})
    )


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("path", [None, "/", "many", "many/", "2024"])
async def test_pages_together_are_the_listing(path: str | None, limit: int, plain: str) -> None:
    connector = make(plain, user=USER, password=PASSWORD)
    await connector.connect()
    paths: list[str] = []
    cursor = None
    while True:
        page = await connector.list_page(path, limit=limit, cursor=cursor)
        paths += [item.path for item in page.items]
        if (cursor := page.cursor) is None:
            break
    assert paths == [item.path for item in await connector.list_items(path)]
    await connector.disconnect()


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "many/../../secret.txt", "..%2fsecret.txt", "//secret.txt", "many\\00"],
)
async def test_nothing_above_the_url_is_reached(path: str, plain: str, tmp_path: Path) -> None:
    connector = make(plain, user=USER, password=PASSWORD)
    await connector.connect()
    with pytest.raises(ItemNotFoundError):
        await connector.fetch_data(path, str(tmp_path))
    with pytest.raises(ItemNotFoundError):
        await connector.list_items("../")
    await connector.disconnect()


async def test_folder_is_no_file(plain: str, tmp_path: Path) -> None:
    connector = make(plain, user=USER, password=PASSWORD)
    await connector.connect()
    for call in (connector.fetch_data("2024", str(tmp_path)), connector.get_metadata("2024")):
        with pytest.raises(ItemNotFoundError, match=r"file '2024' of server .*: it is a f"):
            await call
    await connector.disconnect()


async def test_links_that_lead_elsewhere_are_no_items() -> None:
    page = (
        b'<a href="../">up</a><a href="http://169.254.169.254/files/x">x</a><a href="/other">x</a>'
        b'<a href="a%20b.csv?C=M#x">a</a><a href="sub/">s</a><a href="sub/deep.csv">d</a>'
        b'<a href="./">here</a><a href="%2e%2e%2fup">u</a><a name="x">n</a>'
    )
    async with scripted(lambda _: (200, {"Content-Type": "text/html"}, page)) as (port, _):
        connector = make(f"http://127.0.0.1:{port}/files")
        await connector.connect()
        assert [item.path for item in await connector.list_items("/")] == ["a b.csv", "sub/"]
        await connector.disconnect()


async def test_webdav_of_seaweedfs_is_listed_with_sizes(
    seaweed: SeaweedServer, tmp_path: Path
) -> None:
    bucket = next(new_bucket(seaweed))
    bucket.put("2024/a b.csv", b"x,y\n1,2\n")
    bucket.put("notes.txt", b"hello")
    connector = make(f"{seaweed.webdav_url}buckets/{bucket.name}", listing="webdav")
    await connector.connect()
    assert [(item.path, item.size) for item in await connector.list_items()] == [
        ("2024/a b.csv", 8),
        ("notes.txt", 5),
    ]
    assert [item.path for item in await connector.list_items("/")] == ["2024/", "notes.txt"]
    path = await connector.fetch_data("2024/a b.csv", str(tmp_path))
    assert Path(path).read_bytes() == b"x,y\n1,2\n"
    assert list((await connector.preview("2024/a b.csv")).rows) == [("1", "2")]
    await connector.disconnect()


async def test_without_listings_files_are_fetched_by_their_paths(
    plain: str, tmp_path: Path
) -> None:
    connector = make(plain, user=USER, password=PASSWORD, listing="none")
    await connector.connect()
    assert await connector.fetch_data("sales.csv", str(tmp_path))
    with pytest.raises(ConnectError, match="'listing' is 'none'"):
        await connector.list_items()
    await connector.disconnect()


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"token": "the-token"}, "authorization", "Bearer the-token"),
        ({"user": "ann", "password": "pw"}, "authorization", "Basic YW5uOnB3"),
        ({"headers": {"X-Api-Key": "the-key"}}, "x-api-key", "the-key"),
    ],
)
async def test_credentials_are_sent_and_masked(
    options: dict[str, Any], name: str, value: str
) -> None:
    async with scripted(lambda _: (400, {}, b"")) as (port, requests):
        connector = make(f"http://127.0.0.1:{port}", **options)
        with pytest.raises(ConnectorError) as caught:
            await connector.connect()
    assert requests[0].headers[name] == value
    secret = value.rpartition(" ")[2]
    assert secret not in str(caught.value)
    assert secret in connector.options.secret_values()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "files.example.com"},
        {"url": "https://user:pw@files.example.com"},
        {"url": "https://files.example.com/a/../b"},
        {"url": "https://files.example.com/?sig=x"},
        {"user": "ann"},
        {"password": "pw"},
        {"token": "t", "user": "ann", "password": "pw"},
        {"token": "a\r\nEvil: 1"},
        {"token": "t", "headers": {"authorization": "x"}},
        {"headers": {"Host": "x"}},
        {"headers": {"X y": "x"}},
        {"headers": {"X": "a\r\nEvil: 1"}},
    ],
)
def test_wrong_combination_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        HTTPFilesOptions.load({"url": "https://files.example.com", **options})


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (401, AuthenticationError, "refuses the credentials"),
        (403, PermissionDeniedError, "does not allow it"),
        (404, ItemNotFoundError, "does not exist"),
        (410, ItemNotFoundError, "it is gone"),
        (302, DataFetchError, "redirects to another address, which is not followed"),
        (503, DataFetchError, "status 503"),
    ],
)
async def test_refusals_are_told_apart(
    status: int, kind: type[ConnectorError], reason: str, tmp_path: Path
) -> None:
    def answer(request: Received) -> Answer:
        if request.target.endswith("/"):
            return 200, {"Content-Type": "text/html"}, b""
        return status, {"Location": "http://169.254.169.254/x"}, b""

    async with scripted(answer) as (port, _):
        connector = make(f"http://127.0.0.1:{port}")
        await connector.connect()
        for call in (connector.get_metadata("a"), connector.fetch_data("a", str(tmp_path))):
            with pytest.raises(kind, match=f"file 'a' of server .*: .*{reason}"):
                await call
        await connector.disconnect()


@pytest.mark.parametrize("marked", [True, False])
async def test_file_that_changes_is_an_error_and_never_a_mixture(
    marked: bool, tmp_path: Path
) -> None:
    size = 4 * 64 * 1024
    number = 0

    def answer(request: Received) -> Answer:
        nonlocal number
        if request.target.endswith("/"):
            return 200, {"Content-Type": "text/html"}, b""
        number += 1
        content = bytes([number]) * size
        mark = {"ETag": f'"{number}"'} if marked else {}
        if "range" not in request.headers:
            return 200, mark, content
        start, stop = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        part = {"Content-Range": f"bytes {start}-{stop}/{size}", **mark}
        return 206, part, content[start : stop + 1]

    async with scripted(answer) as (port, _):
        connector = make(f"http://127.0.0.1:{port}", chunk_size=64 * 1024)
        await connector.connect()
        if marked:
            with pytest.raises(DataFetchError, match="it changed while it was read"):
                await connector.fetch_data("a", str(tmp_path))
        else:
            path = Path(await connector.fetch_data("a", str(tmp_path)))
            assert len(set(path.read_bytes())) == 1
        await connector.disconnect()


@pytest.mark.parametrize("allowed_answers", [1, 0])
async def test_name_that_resolves_to_a_denied_address_meanwhile_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch, allowed_answers: int
) -> None:
    policy = Policy(denied_networks=(f"{DENIED}/32",))
    pool = PoolConfig(connect_attempts=1)
    async with (
        listening() as listeners,
        registry_of(HTTPFilesConnector, policy=policy, pool_config=pool) as registry,
    ):
        ChangingResolver(monkeypatch, allowed_answers=allowed_answers)
        options = {"url": f"http://{NAME}:{listeners.port}", "retries": 0}
        await registry.register_data_source(DataSourceConfig("s", "memory", "S", options))
        with pytest.raises(PolicyError, match=rf"may not use .*{DENIED}; denied"):
            await registry.list_items("s")
        assert listeners.connections == 0


async def links_of(page: str, **options: Any) -> list[str]:
    """Return the items that a page lists at the top of a server; `{url}` in it is the URL."""
    headers = {"Content-Type": options.pop("content_type", "text/html")}

    def answer(_: Received) -> Answer:
        return 200, headers, page.replace("{url}", url).encode()

    async with scripted(answer) as (port, _):
        url = f"http://127.0.0.1:{port}"
        connector = make(f"{url}/my%20files%20(1)", **options)
        await connector.connect()
        paths = [item.path for item in await connector.list_items("/")]
        await connector.disconnect()
    return paths


async def test_link_that_is_no_url_hides_no_other() -> None:
    assert await links_of('<a href="http://[x">x</a><a href="//[">x</a><a href="a.csv">a</a>') == [
        "a.csv"
    ]


@pytest.mark.parametrize(
    "link",
    [
        "/my files (1)/a.csv",
        "/my%20files%20%281%29/a.csv",
        "{url}/my%20files%20(1)/a.csv",
        "a%2ecsv",
    ],
)
async def test_link_in_another_encoding_is_found(link: str) -> None:
    assert await links_of(f'<a href="{link}">a</a>') == ["a.csv"]


async def test_page_in_an_unknown_encoding_is_read_as_utf_8() -> None:
    page = '<a href="a.csv">a</a>'
    assert await links_of(page, content_type="text/html; charset=x-none") == ["a.csv"]


@pytest.mark.parametrize(
    "place",
    [
        "{url}/my%20files%20(1)/a.csv",
        "/my%20files%20%281%29/a.csv",
        "http://proxied/my files (1)/a.csv",
    ],
)
async def test_webdav_entries_are_found_by_paths_and_by_urls(place: str) -> None:
    response = "<response><href>{}</href></response>"
    body = f'<multistatus xmlns="DAV:">{response.format("http://[x")}{response.format(place)}'
    assert await links_of(f"{body}</multistatus>", listing="webdav") == ["a.csv"]


@pytest.mark.parametrize("location", ["https://files.example.com/sub/", "/login/"])
async def test_folder_that_is_redirected_is_an_error_and_not_an_empty_one(location: str) -> None:
    def answer(request: Received) -> Answer:
        if request.target == "/sub/":
            return 302, {"Location": location}, b""
        return 200, {"Content-Type": "text/html"}, b'<a href="sub/">sub</a>'

    async with scripted(answer) as (port, _):
        connector = make(f"http://127.0.0.1:{port}")
        await connector.connect()
        with pytest.raises(ConnectError, match="redirects to another address"):
            await connector.list_items()
        await connector.disconnect()
        with pytest.raises(ConnectError, match="redirects to another address"):
            await make(f"http://127.0.0.1:{port}/sub").connect()


@pytest.mark.parametrize("date", ["yesterday", "Mon, 01 Jan 99999999999999 00:00:00 GMT"])
async def test_file_whose_date_cannot_be_read_is_never_a_mixture(date: str, tmp_path: Path) -> None:
    size = 4 * 64 * 1024
    number = 0

    def answer(request: Received) -> Answer:
        nonlocal number
        if request.target.endswith("/"):
            return 200, {"Content-Type": "text/html"}, b""
        number += 1
        content = bytes([number]) * size
        if "range" not in request.headers:
            return 200, {"Last-Modified": date}, content
        start, stop = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        part = {"Content-Range": f"bytes {start}-{stop}/{size}", "Last-Modified": date}
        return 206, part, content[start : stop + 1]

    async with scripted(answer) as (port, _):
        connector = make(f"http://127.0.0.1:{port}", chunk_size=64 * 1024)
        await connector.connect()
        path = Path(await connector.fetch_data("a", str(tmp_path)))
        assert len(set(path.read_bytes())) == 1
        await connector.disconnect()


async def test_page_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasources.objects.http._MAX_BODY", 1 << 20)
    with pytest.raises(ConnectError, match="the answer has more than 1 MiB"):
        await links_of("x" * (2 << 20))
