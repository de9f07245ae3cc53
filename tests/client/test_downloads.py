"""A download is complete or absent, and continues after a break if the content is the same."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datasources.workspace.partfiles import delete_abandoned
from datasources_client import Client, DataSourceError, OptionError, ResponseError
from datasources_client.addresses import find_target
from datasources_client.files import PartFile
from datasources_client.transport import Transport
from tests.client import scripted
from tests.client.scripted import Answer, ScriptedServer, problem
from tests.server.conftest import ApiServer

BODY = bytes(range(256)) * 40
DIGEST = hashlib.sha256(BODY).hexdigest()


def content(
    body: bytes = BODY,
    *,
    name: str | None = "orders.csv",
    etag: str | None = f'"{DIGEST}"',
    total: int = len(BODY),
    part: tuple[int, int] | None = None,
    cut: int = 0,
    receipt: dict[str, Any] | None = None,
    extra: str = "",
) -> Answer:
    """Return an answer of content, without its last `cut` bytes."""
    described = {
        "size": total,
        "sha256": DIGEST,
        "rows": 3,
        "truncated": False,
        "version": None,
        "fetched_at": "2026-11-29T00:00:00+00:00",
        "duration": 0.5,
    } | (receipt or {})
    lines = ["HTTP/1.1 200 OK" if part is None else "HTTP/1.1 206 Partial"]
    lines += [f"Content-Length: {len(body)}", f"Datasources-Receipt: {json.dumps(described)}"]
    lines += [] if etag is None else [f"ETag: {etag}"]
    lines += [] if name is None else [f"Content-Disposition: attachment; filename*=UTF-8''{name}"]
    lines += [] if part is None else [f"Content-Range: bytes {part[0]}-{part[1]}/{total}"]
    lines += [extra] if extra else []
    head = "\r\n".join([*lines, "", ""]).encode()
    return Answer(head + (body[:-cut] if cut else body), close=bool(cut))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_file_is_below_the_name_of_its_source(folder: Path) -> None:
    items = {
        "public/orders.csv": "shop/public/orders.csv",
        "select a / b from orders": "shop/orders.csv",
        "../../orders.csv": "shop/orders.csv",
        "orders.csv": "shop/orders.csv",
        "orders.xlsx": "shop/orders.xlsx.csv",
    }
    with ScriptedServer(*[content()] * len(items)) as server, Client(server.url) as client:
        for item, path in items.items():
            receipt = client.fetch("shop", item)
            assert receipt.path == str(folder / path)
            assert Path(receipt.path).read_bytes() == BODY
    assert (receipt.size, receipt.sha256, receipt.rows) == (len(BODY), DIGEST, 3)
    assert receipt.truncated is False
    assert files(folder) == [
        "shop/orders.csv",
        "shop/orders.xlsx.csv",
        "shop/public/orders.csv",
    ]


@pytest.mark.parametrize(
    "name", [None, "", ".", "..", "..%2Fa", "%2Fetc%2Fpasswd", "a%00b", "a%0Ab", "a" * 256]
)
def test_name_that_leads_elsewhere_is_refused(folder: Path, name: str | None) -> None:
    with (
        ScriptedServer(content(name=name)) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match="file name"),
    ):
        client.fetch("shop", "orders")
    assert files(folder.parent) == []


def test_older_file_is_replaced_by_a_complete_one_only(folder: Path) -> None:
    path = folder / "a.csv"
    path.write_text("older")
    with (
        ScriptedServer(content(cut=1), content()) as server,
        Client(server.url, retries=0) as client,
    ):
        with pytest.raises(ResponseError, match="before it was complete"):
            client.fetch("shop", "orders", path="a.csv")
        assert (path.read_text(), files(folder)) == ("older", ["a.csv"])
        client.fetch("shop", "orders", path="a.csv")
    assert (path.read_bytes(), files(folder)) == (BODY, ["a.csv"])


def test_download_that_breaks_is_continued(folder: Path) -> None:
    size = len(BODY)
    scripts = [
        content(cut=size - 100),
        content(BODY[100:], part=(100, size - 1), cut=50),
        content(BODY[size - 50 :], part=(size - 50, size - 1)),
    ]
    with ScriptedServer(*scripts) as server, Client(server.url) as client:
        client.fetch("shop", "orders", path="a.csv")
        headers = [request.headers for request in server.requests]
    assert (folder / "a.csv").read_bytes() == BODY
    assert [entry.get("range") for entry in headers] == [None, "bytes=100-", f"bytes={size - 50}-"]
    assert [entry.get("if-range") for entry in headers] == [None, *[f'"{DIGEST}"'] * 2]


def test_content_that_has_changed_is_downloaded_from_its_beginning(folder: Path) -> None:
    old = content(b"x" * 500, cut=300, etag='"old"')
    with ScriptedServer(old, content()) as server, Client(server.url) as client:
        client.fetch("shop", "orders", path="a.csv")
    assert (folder / "a.csv").read_bytes() == BODY


@pytest.mark.parametrize(
    "second",
    [
        content(BODY[200:], part=(200, len(BODY) - 1)),
        content(BODY[100:], part=(100, len(BODY) - 1), etag='"other"'),
        content(BODY[100:], part=(100, len(BODY) - 2)),
        content(bytes(len(BODY) - 100), part=(100, len(BODY) - 1)),
        problem("item-not-found", 404),
    ],
)
def test_rest_that_does_not_fit_leaves_no_file(folder: Path, second: Answer) -> None:
    first = content(cut=len(BODY) - 100)
    with (
        ScriptedServer(first, second) as server,
        Client(server.url) as client,
        pytest.raises(DataSourceError),
    ):
        client.fetch("shop", "orders", path="a.csv")
    assert files(folder) == []


def test_continuing_ends(folder: Path) -> None:
    cut = content(cut=len(BODY) - 100)
    with (
        ScriptedServer(*[cut] * 9) as server,
        Client(server.url, retries=2) as client,
        pytest.raises(ResponseError),
    ):
        client.fetch("shop", "orders", path="a.csv")
    assert (len(server.lines), files(folder)) == (3, [])


@pytest.mark.parametrize(
    "script",
    [
        content(receipt={"sha256": "0" * 64}),
        content(receipt={"size": 3}),
        content(receipt={"rows": "many"}),
        content(extra="Content-Encoding: gzip"),
        content(etag=None, cut=1),
    ],
)
def test_content_that_is_not_what_it_should_be_leaves_no_file(folder: Path, script: Answer) -> None:
    with (
        ScriptedServer(script) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError),
    ):
        client.fetch("shop", "orders", path="a.csv")
    assert (len(server.lines), files(folder)) == (1, [])


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b"0",
        b"0\r\n",
        b"0\r\nA: b",
        b"5\r\nabc",
        b"zz\r\n",
        b"+0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_stream_without_its_last_chunk_leaves_no_file(folder: Path, end: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        ScriptedServer(Answer(head + b"3\r\nabc\r\n" + end, close=True)) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError),
    ):
        client.fetch("shop", "orders", path="a.csv", stream=True)
    assert (len(server.lines), files(folder)) == (1, [])


def test_stream_with_its_last_chunk_has_a_receipt(folder: Path) -> None:
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with ScriptedServer(Answer(body)) as server, Client(server.url) as client:
        receipt = client.fetch("shop", "orders", path="a.csv", stream=True)
    assert (receipt.size, receipt.sha256) == (3, hashlib.sha256(b"abc").hexdigest())
    assert (receipt.rows, receipt.truncated, receipt.content) == (None, False, None)
    assert (folder / "a.csv").read_bytes() == b"abc"


def test_wrong_paths_are_refused(folder: Path) -> None:
    (folder / "sub").mkdir()
    with ScriptedServer(content(), content()) as server, Client(server.url) as client:
        with pytest.raises(OptionError, match="directory"):
            client.fetch("shop", "orders", path="sub")
        with pytest.raises(FileNotFoundError):
            client.fetch("shop", "orders", path="none/a.csv")
        with pytest.raises(OptionError, match="'path'"):
            client.fetch("shop", "orders", stream=True)
        with pytest.raises(OptionError, match="ETag"):
            client.open_content("shop", "orders", start=1, etag="a\nb")
    assert files(folder) == []


def test_interrupt_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with (
        ScriptedServer(content()) as server,
        Client(server.url) as client,
        pytest.raises(KeyboardInterrupt),
    ):
        client.fetch("shop", "orders", path="a.csv")
    assert files(folder) == []


def test_bytes_are_synced_before_the_file_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: synced.append(
            (os.fstat(descriptor).st_size, (folder / "a.csv").exists())
        ),
    )
    with ScriptedServer(content()) as server, Client(server.url) as client:
        client.fetch("shop", "orders", path="a.csv")
    assert synced == [(len(BODY), False)]


def test_cleaning_deletes_the_part_file_of_a_killed_process_only(folder: Path) -> None:
    def clean() -> list[str]:
        command = [sys.executable, "-m", "datasources.cli", "clean", str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return files(folder)

    with PartFile("a.csv") as file:
        file.write(b"x")
        (part,) = files(folder)
        assert clean() == [part]
        file._file.close()  # as the end of the process does
        assert clean() == []


@pytest.fixture
def large(server: ApiServer, client: Client, lake: str) -> str:
    """The id of a source with `large.bin`, which has more bytes than the sockets' buffers hold."""
    client.update_source(lake, {"limits": {"max_bytes": None}}, version=None)
    with (server.data / lake / "large.bin").open("wb") as file:
        file.truncate(64 << 20)
    return lake


@pytest.mark.parametrize("stream", [False, True])
def test_memory_does_not_grow_with_the_content(
    client: Client, large: str, folder: Path, stream: bool
) -> None:
    client.types()  # what is imported and kept once
    tracemalloc.start()
    try:
        receipt = client.fetch(large, "large.bin", path="large.bin", stream=stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert receipt.size == (folder / "large.bin").stat().st_size == 64 << 20
    assert peak < 2 << 20


def test_memory_does_not_grow_with_what_is_sent() -> None:
    def body() -> Iterator[bytes]:
        yield from [bytes(1 << 16)] * 256

    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    received: list[int] = []

    def count(chunks: Iterator[bytes]) -> bytes:
        received.append(sum(map(len, chunks)))
        return b""

    with pytest.MonkeyPatch.context() as patch, ScriptedServer(Answer(reply)) as server:
        original = scripted.read_chunks
        patch.setattr(scripted, "read_chunks", lambda file: [count(original(file))])
        sender = Transport(find_target(server.url, None, None, None, {}), timeout=30, retries=0)
        tracemalloc.start()
        try:
            sender.send("POST", "/v1/upload", body=body()).read(10)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        sender.close()
    assert received == [256 << 16]
    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("part", "etag"), [((1, len(BODY) - 1), DIGEST), ((100, len(BODY) - 1), "another")]
)
def test_rest_that_is_another_part_is_refused(
    folder: Path, part: tuple[int, int], etag: str
) -> None:
    first = content(cut=len(BODY) - 100)
    rest = content(BODY[part[0] :], part=part, etag=f'"{etag}"')
    with (
        ScriptedServer(first, rest) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match="sent another part of the content than the rest"),
    ):
        client.fetch("shop", "orders")
    assert files(folder) == []


def test_part_file_that_is_deleted_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasources clean` takes an unlocked part file for that of a dead process."""

    def delete_and_lock(file: Any, operation: int) -> None:
        if not deleted:
            deleted.extend(delete_abandoned(str(tmp_path)))
        fcntl.flock(file, operation)

    deleted: list[str] = []
    locks = SimpleNamespace(flock=delete_and_lock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr("datasources_client.files.fcntl", locks)
    with PartFile(str(tmp_path / "a.csv")) as file:
        file.write(b"x")
        file.complete()
    assert len(deleted) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
