"""Connections are kept, repeated only where that is safe, and never led elsewhere."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from datasources_client import (
    Client,
    DataSourceError,
    OptionError,
    Page,
    ResponseError,
    ServerTimeoutError,
    ServerUnreachableError,
    StoreError,
    default_client,
)
from datasources_client.addresses import find_target
from datasources_client.transport import Transport
from tests.client.scripted import Answer, ScriptedServer, answer, problem
from tests.waiting import wait_until_blocking

EMPTY = answer(body={"items": [], "next_cursor": None})
ITEMS = "GET /v1/sources/shop/items HTTP/1.1"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def test_connection_is_kept() -> None:
    with ScriptedServer(EMPTY, EMPTY, EMPTY) as server, Client(server.url) as client:
        for _ in range(3):
            client.items_page("shop")
        assert (server.lines, server.connections) == ([ITEMS] * 3, 1)


def test_server_may_be_below_a_path() -> None:
    with ScriptedServer(EMPTY) as server, Client(f"{server.url}/data/") as client:
        client.items_page("a b/c?d")
        assert server.lines == ["GET /data/v1/sources/a%20b%2Fc%3Fd/items HTTP/1.1"]


def test_call_during_a_download_has_a_connection_of_its_own() -> None:
    with (
        ScriptedServer(Answer(chunked(b"a", end=b"")), EMPTY) as server,
        Client(server.url) as client,
        client.open_content("shop", "x", stream=True) as content,
    ):
        assert next(iter(content)) == b"a"
        client.items_page("shop")
        assert server.connections == 2


def test_connection_of_a_response_that_was_left_is_not_used_again() -> None:
    with (
        ScriptedServer(Answer(chunked(b"a", b"b")), EMPTY) as server,
        Client(server.url) as client,
    ):
        with client.open_content("shop", "x", stream=True):
            pass
        assert client.items_page("shop") == Page((), None)
        assert server.connections == 2


def test_bytes_after_a_response_are_not_taken_for_the_next_response() -> None:
    forged = answer(body={"items": "forged"}).content
    assert isinstance(EMPTY.content, bytes)
    assert isinstance(forged, bytes)
    first = Answer(EMPTY.content + forged)
    with ScriptedServer(first, EMPTY) as server, Client(server.url) as client:
        client.items_page("shop")
        assert client.items_page("shop") == Page((), None)


def test_threads_do_not_share_a_connection() -> None:
    pages: list[Page] = []
    scripts = [answer(body={"items": [], "next_cursor": str(number)}) for number in range(40)]
    with ScriptedServer(*scripts) as server, Client(server.url) as client:

        def call() -> None:
            pages.extend(client.items_page("shop") for _ in range(10))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(int(page.cursor or -1) for page in pages) == list(range(40))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_process_does_not_use_the_connection_of_its_parent() -> None:
    with ScriptedServer(EMPTY, EMPTY, EMPTY) as server, Client(server.url) as client:
        client.items_page("shop")
        child = os.fork()
        if child == 0:
            try:
                client.items_page("shop")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        client.items_page("shop")
        assert (len(server.lines), server.connections) == (3, 2)


def test_get_is_repeated_on_a_connection_that_turns_out_to_be_closed(pauses: list[float]) -> None:
    lost = Answer(b"", close=True)
    with ScriptedServer(EMPTY, lost, EMPTY) as server, Client(server.url) as client:
        client.items_page("shop")
        client.items_page("shop")
        assert (server.lines, server.connections) == ([ITEMS] * 3, 2)
    assert pauses == []


def test_post_is_not_repeated() -> None:
    lost = Answer(b"", close=True)
    with ScriptedServer(EMPTY, lost, EMPTY) as server, Client(server.url) as client:
        client.items_page("shop")
        with pytest.raises(ResponseError, match="closed the connection"):
            client.resume_source("shop")
        assert len(server.lines) == 2


def test_connection_that_the_server_has_closed_is_replaced_for_post() -> None:
    closed = Answer(EMPTY.content, close=True)
    with ScriptedServer(closed, problem("conflict", 412)) as server, Client(server.url) as client:
        client.items_page("shop")
        wait_until_blocking(lambda: server.closed == 1)
        with pytest.raises(DataSourceError) as caught:
            client.resume_source("shop")
        assert caught.value.slug == "conflict"
        assert server.connections == 2


def test_refused_connection_is_tried_again_a_few_times(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        Client(url, retries=3) as client,
        pytest.raises(ServerUnreachableError, match="refuses connections") as caught,
    ):
        client.resume_source("shop")
    assert caught.value.retryable
    assert pauses == [0.25, 1.0, 4.0]


def test_missing_socket_is_an_error_at_once(tmp_path: Path, pauses: list[float]) -> None:
    with (
        Client(socket=str(tmp_path / "none")) as client,
        pytest.raises(ServerUnreachableError, match="No such file"),
    ):
        client.check_health()
    assert pauses == []


def busy(seconds: str) -> Answer:
    return problem("store-failed", 503, headers=[f"Retry-After: {seconds}"], retryable=True)


def test_get_waits_as_long_as_a_busy_server_says(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    monkeypatch.setattr(time, "time", lambda: now)  # however long the answers take
    in_a_while = formatdate(now + 5, usegmt=True)
    with (
        ScriptedServer(busy("3"), busy(in_a_while), EMPTY) as server,
        Client(server.url) as client,
    ):
        client.items_page("shop")
    assert pauses == [3.0, 5.0]


@pytest.mark.parametrize("seconds", ["11", "soon", "-1", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_longer_and_malformed_times_are_not_waited(seconds: str, pauses: list[float]) -> None:
    with (
        ScriptedServer(busy(seconds)) as server,
        Client(server.url) as client,
        pytest.raises(StoreError),
    ):
        client.items_page("shop")
    assert (pauses, len(server.lines)) == ([], 1)


def test_waiting_for_a_busy_server_ends(pauses: list[float]) -> None:
    with (
        ScriptedServer(*[busy("1")] * 9) as server,
        Client(server.url) as client,
        pytest.raises(StoreError) as caught,
    ):
        client.items_page("shop")
    assert (len(server.lines), pauses) == (3, [1.0, 1.0])
    assert (caught.value.retry_after, caught.value.retryable) == (1.0, True)


def test_post_that_gets_503_is_not_repeated(pauses: list[float]) -> None:
    with (
        ScriptedServer(busy("1")) as server,
        Client(server.url) as client,
        pytest.raises(StoreError),
    ):
        client.preview("shop", "orders")
    assert (pauses, len(server.lines)) == ([], 1)


def test_silent_server_is_a_time_out() -> None:
    silent = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{")
    for script in (Answer(b""), silent):
        with (
            ScriptedServer(script) as server,
            Client(server.url, timeout=0.2) as client,
            pytest.raises(ServerTimeoutError) as caught,
        ):
            client.source("shop")
        assert caught.value.retryable


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_target_of_a_redirect_gets_no_request(status: int) -> None:
    with (
        ScriptedServer() as target,
        ScriptedServer(
            *[answer(status, headers=[f"Location: {target.url}/v1/types"])] * 2
        ) as server,
        Client(server.url, token="secret") as client,
    ):
        for call in (client.types, lambda: client.open_content("shop", "a")):
            with pytest.raises(ResponseError, match=f"redirect {status}") as caught:
                call()
            assert caught.value.status == status
        assert (target.connections, len(server.lines)) == (0, 2)


BODIES: list[Any] = [[], 3, None, {"items": 3}, b"\xff", b"[" * 100_000]
GARBAGE = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x00" * 100,
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    *(answer(body=body).content for body in BODIES),
    answer(body={"items": [3]}).content,
    answer(body={"items": [{"name": 1, "path": "a"}]}).content,
    answer(body={"items": [], "next_cursor": 3}).content,
    answer(404, b"<h1>Not found</h1>", media_type="text/html").content,
    answer(404, b"[]", media_type="application/problem+json").content,
]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_is_a_response_error(content: bytes) -> None:
    with (
        ScriptedServer(Answer(content, close=True)) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError) as caught,
    ):
        client.items_page("shop")
    assert len(str(caught.value)) < 200


def test_response_without_end_is_an_error_and_is_not_held_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datasources_client.requests._LARGEST_JSON", 1 << 20)
    endless = (
        chunked(b"[" * 1000, end=b"") if number == 0 else b"3e8\r\n" + b"[" * 1000 + b"\r\n"
        for number in range(1 << 30)
    )
    with (
        ScriptedServer(Answer(endless)) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match="too large"),
    ):
        client.items_page("shop")


def test_listing_that_does_not_proceed_is_an_error() -> None:
    again = answer(body={"items": [], "next_cursor": "same"})
    with (
        ScriptedServer(*[again] * 9) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match="does not proceed"),
    ):
        list(client.items("shop"))
    assert len(server.lines) == 2


def test_body_of_unknown_size_is_sent_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 700_000)
    with ScriptedServer(EMPTY, EMPTY) as server, path.open("rb") as file:
        sender = Transport(find_target(server.url, None, None, None, {}), timeout=30, retries=0)
        sender.send("POST", "/v1/upload", body=file).read(1000)
        sender.send("POST", "/v1/upload", body=iter([b"ab", b"", b"c"])).read(1000)
        sender.close()
        assert [len(request.body) for request in server.requests] == [700_000, 3]
        assert server.connections == 1


def test_error_of_the_callers_body_is_raised_and_no_end_is_sent() -> None:
    def body() -> Iterator[bytes]:
        yield b"ab"
        raise ValueError("a source of the caller's")

    with ScriptedServer(EMPTY) as server:
        sender = Transport(find_target(server.url, None, None, None, {}), timeout=30, retries=2)
        with pytest.raises(ValueError, match="the caller's") as caught:
            sender.send("POST", "/v1/upload", body=body())
    assert server.requests == []
    # Frames of `http.client` hold the token, as do errors that are chained to this one.
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    modules = {frame.frame.f_globals["__name__"] for frame in caught.traceback}
    assert "http.client" not in modules


def test_response_may_have_as_many_bytes_as_the_limit() -> None:
    with ScriptedServer(answer(body=b"12345"), answer(body=b"123456")) as server:
        sender = Transport(find_target(server.url, None, None, None, {}), timeout=30, retries=0)
        assert sender.send("GET", "/v1/types").read(5) == b"12345"
        with pytest.raises(ResponseError, match="too large"):
            sender.send("GET", "/v1/types").read(5)


def test_upload_of_other_bytes_than_were_sent_is_an_error() -> None:
    item = {"name": "a", "path": "a", "size": 1, "modified_at": None, "version": None}
    described = {"item": item | {"metadata": {}}, "size": 1, "sha256": "0" * 64}
    with (
        ScriptedServer(answer(201, described)) as server,
        Client(server.url) as client,
        pytest.raises(ResponseError, match="other bytes than were sent"),
    ):
        client.upload("lake", "a", [b"x"])


URL = "http://127.0.0.1:8300"


@pytest.mark.parametrize(
    ("arguments", "environment", "address", "token"),
    [
        ([URL, None, None], {}, URL, None),
        ([URL, None, None], {"TOKEN": "t"}, URL, "t"),
        ([URL, None, "a"], {"TOKEN": "t"}, URL, "a"),
        ([URL, None, None], {"URL": URL + "/", "TOKEN": "t"}, URL, "t"),
        ([URL, None, None], {"URL": "https://data.example", "TOKEN": "t"}, URL, None),
        ([URL, None, None], {"SOCKET": "/a/b", "TOKEN": "t"}, URL, None),
        ([None, "/a/b", None], {"URL": URL, "TOKEN": "t"}, "unix:/a/b", None),
        ([None, None, None], {"URL": URL, "TOKEN": " t\n"}, URL, "t"),
        ([None, None, None], {"URL": URL, "SOCKET": "/a/b"}, "unix:/a/b", None),
        (["https://d.example/base/", None, None], {}, "https://d.example:443/base", None),
        (["http://[::1]:80", None, None], {}, "http://[::1]:80", None),
    ],
)
def test_token_of_the_environment_is_for_the_server_of_the_environment(
    arguments: list[Any], environment: dict[str, str], address: str, token: str | None
) -> None:
    variables = {f"DATASOURCES_{name}": value for name, value in environment.items()}
    url, path, given = arguments
    target = find_target(url, path, given, None, variables)
    assert (str(target.address), target.token) == (address, token)
    assert "token" not in repr(target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data.example",
        "ftp://data.example",
        "http://",
        "http://user:password@data.example",
        "http://data.example?token=1",
        "http://data.example#a",
        "http://data.example:port",
        "http://data.example/a b",
        "http://data example",
        "http://data.example\x7f",
        "http://" + "a" * 64 + ".example",
    ],
)
def test_malformed_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        Client(url)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("token", ["a\nb", "a b", "é"])
def test_malformed_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(OptionError) as caught:
        Client(URL, token=token)
    assert token not in str(caught.value)


def test_token_is_not_sent_in_clear_over_a_network() -> None:
    for url in ("http://data.example", "http://10.0.0.1", "http://localhost.example"):
        with pytest.raises(OptionError, match="in clear"):
            Client(url, token="t")
        Client(url)
        Client(url, token="t", insecure=True)
    for url in ("https://data.example", "http://localhost", "http://[::1]:80", "http://127.0.0.9"):
        Client(url, token="t")


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no")
    with pytest.raises(OptionError, match="DATASOURCES_URL"):
        default_client()
    with pytest.raises(OptionError, match="either"):
        Client(URL, socket="/a")
    for ca_file in ("nowhere.pem", str(tmp_path / "no.pem")):
        with pytest.raises(OptionError, match="PEM"):
            Client("https://data.example", ca_file=ca_file)
    with pytest.raises(OptionError, match="https"):
        Client(URL, ca_file="a.pem")
    for wrong in ({"timeout": 0.0}, {"content_timeout": -1.0}, {"retries": -1}):
        with pytest.raises(OptionError):
            Client(URL, **wrong)
