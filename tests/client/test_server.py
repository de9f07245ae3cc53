"""The client against the real server process: every operation, TLS, a Unix socket, a killed server."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import datasources_client as ds
from datasources_client import (
    Caller,
    Client,
    ColumnStatistics,
    ConflictError,
    Content,
    DataSourceError,
    DataSourceExistsError,
    DataSourceNotFoundError,
    Grant,
    ItemExistsError,
    ItemNotFoundError,
    Job,
    LimitExceededError,
    Limits,
    OptionError,
    PolicyError,
    SecretRequiredError,
    Selection,
    ServerError,
    ServerUnreachableError,
    SourcePausedError,
    UnsupportedError,
)
from tests.client.conftest import SocketServer, TlsServer
from tests.server.conftest import ApiServer
from tests.server.served import ServeCommand
from tests.servers import Database
from tests.waiting import wait_until_blocking

ORDERS = b"id,total\n1,9.5\n2,20\n3,7\n"


@pytest.fixture
def shop(client: Client, new_id: str, pg_database: Database) -> str:
    """The id of a PostgreSQL source with a table of three rows."""
    with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int, total float8)")
        connection.execute("INSERT INTO orders SELECT n, n / 2.0 FROM generate_series(1, 3) n")
    options = {"dsn": pg_database.dsn(), "allow_privileged_role": True}
    client.create_source(f"{new_id}-shop", "postgresql", options, test=True)
    return f"{new_id}-shop"


def test_health(client: Client) -> None:
    client.check_health()
    client.check_ready()


def test_types_are_described(client: Client) -> None:
    types = {entry.type: entry for entry in client.types()}
    assert types["postgresql"].distribution == "datasources-postgresql"
    assert "preview" in types["postgresql"].abilities
    described = client.describe_type("postgresql")
    assert described.schema
    assert described.schema["properties"]["password"]["writeOnly"] is True
    assert described.sample_identifiers[0].identifier
    with pytest.raises(DataSourceError) as caught:
        client.describe_type("unheard")
    assert (caught.value.slug, caught.value.status) == ("type-not-found", 404)


def test_source_is_created_changed_paused_and_removed(
    server: ApiServer, client: Client, new_id: str
) -> None:
    options = {"path": str(server.data)}
    client.validate_source(new_id, "local_file", options)
    with pytest.raises(DataSourceNotFoundError):
        client.source(new_id)
    created = client.create_source(
        new_id,
        "local_file",
        options,
        name="Lake",
        metadata={"team": "a"},
        limits=Limits(max_rows=7),
    )
    assert (created.name, created.state, created.metadata) == ("Lake", "ready", {"team": "a"})
    assert created.limits == Limits(max_rows=7)
    assert created.created_at
    with pytest.raises(DataSourceExistsError):
        client.create_source(new_id, "local_file", options)
    changed = client.update_source(new_id, {"options": {"hidden": True}}, version=created.version)
    assert changed.options == options | {"hidden": True}
    with pytest.raises(ConflictError):
        client.update_source(new_id, {"name": "x"}, version=created.version)
    replaced = client.replace_source(new_id, "local_file", options, version=changed.version)
    assert (replaced.options, replaced.name, replaced.limits) == (options, new_id, None)
    with pytest.raises(ConflictError):
        client.pause_source(new_id, "moving", version=changed.version)
    assert client.pause_source(new_id, "moving", version=replaced.version).reason == "moving"
    with pytest.raises(SourcePausedError, match="moving"):
        client.items_page(new_id)
    with pytest.raises(ConflictError):
        client.resume_source(new_id, version=replaced.version)
    resumed = client.resume_source(new_id)
    assert resumed == client.source(new_id)
    with pytest.raises(ConflictError):
        client.delete_source(new_id, version=replaced.version)
    client.delete_source(new_id, version=resumed.version)
    with pytest.raises(DataSourceNotFoundError):
        client.delete_source(new_id)


def test_sources_and_items_are_iterated_over_pages(
    server: ApiServer, client: Client, lake: str, new_id: str
) -> None:
    for number in range(60):  # more than the 50 of a page
        client.create_source(f"many-{number:02}", "local_file", {"path": str(server.data)})
    ids = [source.id for source in client.sources(q="many-", type="local_file")]
    assert ids == [f"many-{number:02}" for number in range(60)]
    page = client.sources_page(limit=7, q="many-")
    assert ([source.id for source in page.items], bool(page.cursor)) == (ids[:7], True)
    for number in range(130):
        (server.data / lake / f"{number:03}.txt").write_text("x")
    items = list(client.items(lake, pattern="*.txt"))
    assert [item.path for item in items] == [f"{number:03}.txt" for number in range(130)]
    assert items[0].size == 1
    assert items[0].modified_at
    assert [item.path for item in client.items(lake, "public/")] == ["public/orders.csv"]


def test_second_page_is_asked_for_when_the_first_is_used_up(
    server: ApiServer, client: Client, lake: str
) -> None:
    for number in range(130):
        (server.data / lake / f"{number:03}.txt").write_text("x")
    items = client.items(lake, pattern="*.txt")
    assert next(items).path == "000.txt"
    client.pause_source(lake, "closed")
    with pytest.raises(SourcePausedError):
        list(items)


def test_table_is_described_previewed_measured_and_fetched(
    client: Client, shop: str, tmp_path: Path
) -> None:
    columns = client.describe(shop, "public.orders", refresh=True)["columns"]
    assert [column["name"] for column in columns] == ["id", "total"]
    preview = client.preview(shop, "public.orders", rows=2)
    assert (preview.columns, preview.rows) == (("id", "total"), ((1, 0.5), (2, 1.0)))
    assert preview.truncated is True
    figures = client.statistics(shop, "public.orders")
    assert figures["id"] == ColumnStatistics(3, 0, 1, 3, 2.0)
    query = "select count(*) / 2 as half from orders"
    receipt = client.fetch(shop, query, format="parquet", directory=str(tmp_path))
    assert Path(receipt.path).parent == tmp_path / shop
    assert Path(receipt.path).read_bytes()[:4] == b"PAR1"
    assert (receipt.item, receipt.rows) == (query, 1)


def test_text_preview_says_how_it_was_read(client: Client, lake: str) -> None:
    preview = client.preview(lake, "public/orders.csv")
    assert preview.format
    assert (preview.format.encoding, preview.format.delimiter) == ("utf-8", ",")


def test_file_is_fetched_in_one_part_and_in_two(client: Client, lake: str, tmp_path: Path) -> None:
    receipt = client.fetch(lake, "public/orders.csv", directory=str(tmp_path))
    assert receipt.path == str(tmp_path / lake / "public/orders.csv")
    assert Path(receipt.path).read_bytes() == ORDERS
    assert receipt.sha256 == hashlib.sha256(ORDERS).hexdigest()
    with client.open_content(lake, "public/orders.csv") as content:
        assert (content.media_type, content.size) == ("text/csv", 24)
        etag = content.etag
    for tag, start in ((etag, 9), (None, 9), ('"another"', 0)):
        with client.open_content(lake, "public/orders.csv", start=9, etag=tag) as content:
            assert content.start == start
            assert b"".join(content) == ORDERS[start:]


def test_link_is_opened_once(client: Client, lake: str) -> None:
    link = client.make_link(lake, "public/orders.csv")
    with client.open_link(link) as content:
        assert b"".join(content) == ORDERS
    with pytest.raises(DataSourceError) as caught:
        client.open_link(link)
    assert (caught.value.slug, caught.value.status) == ("link-not-found", 404)


def test_receipt_of_a_stream_is_had_after_its_end(client: Client, lake: str) -> None:
    with client.open_content(lake, "public/orders.csv", stream=True) as content:
        assert b"".join(content) == ORDERS
    assert content.request_id
    assert client.receipt(content.request_id).size == len(ORDERS)
    with pytest.raises(DataSourceError) as caught:
        client.receipt("another")
    assert caught.value.slug == "receipt-not-found"


def test_items_are_fetched_into_a_workspace_in_a_job(client: Client, lake: str) -> None:
    workspace = client.make_workspace(lake, ttl=600)
    items = [Selection(lake, "public/orders.csv")]
    receipts = client.fetch_into(workspace.id, items)
    assert isinstance(receipts, tuple)
    assert [receipt.size for receipt in receipts] == [len(ORDERS)]
    with client.open_file(workspace.id, receipts[0].path) as content:
        assert b"".join(content) == ORDERS
    job = client.fetch_into(workspace.id, items, wait=False)
    assert isinstance(job, Job)
    events = list(client.job_events(job.id))
    assert [event.name for event in events if event.name != "progress"] == ["receipt", "end"]
    assert client.job(job.id).state == events[-1].data["state"] == "finished"
    assert client.cancel_job(job.id).state == "finished"
    assert client.workspace(workspace.id).sources == (lake,)
    client.delete_workspace(workspace.id)
    with pytest.raises(DataSourceError) as caught:
        client.workspace(workspace.id)
    assert caught.value.slug == "workspace-not-found"


def test_caller_rights_queries_and_choices(server: ApiServer, client: Client, shop: str) -> None:
    assert client.caller() == Caller("root", admin=True, tokens=False)
    query = {
        "text": "SELECT id FROM orders WHERE total >= :least ORDER BY id",
        "parameters": {"least": {"type": "number", "required": True}},
    }
    changed = client.update_source(shop, {"queries": {"large": query}}, version=None)
    assert changed.queries
    assert list(changed.queries) == ["large"]
    assert changed.rights == ("query", "read", "write")
    least = {"least": 1.0}
    assert client.preview(shop, "query:large", parameters=least).rows == ((2,), (3,))
    assert client.statistics(shop, "query:large", parameters=least)["id"].count == 2
    workspace = client.make_workspace(shop)
    fetched = client.fetch_into(workspace.id, [Selection(shop, "query:large", None, least)])
    assert isinstance(fetched, tuple)
    assert [receipt.rows for receipt in fetched] == [2]
    assert client.discover("local_file", {"path": str(server.data)}) is not None


def test_errors_of_data(client: Client, lake: str) -> None:
    with pytest.raises(ItemNotFoundError):
        client.preview(lake, "nothing.csv")
    client.update_source(lake, {"limits": {"max_bytes": 10}}, version=None)
    with pytest.raises(LimitExceededError) as caught:
        client.open_content(lake, "public/orders.csv")
    assert (caught.value.status, caught.value.retryable) == (413, False)
    assert caught.value.request_id


def test_user_sees_what_is_granted(server: ApiServer, lake: str) -> None:
    token = server.client(f"ann-{lake}", [lake, ["read"]]).token
    with Client(f"http://127.0.0.1:{server.port}", token=token) as ann:
        (source,) = ann.sources()
        assert (source.id, source.options, source.secrets, source.limits) == (
            lake,
            None,
            None,
            None,
        )
        with pytest.raises(PolicyError):
            ann.delete_source(lake)
    with Client(f"http://127.0.0.1:{server.port}", token="nobody") as nobody:
        with pytest.raises(DataSourceError) as caught:
            nobody.types()
        assert (caught.value.slug, caught.value.status) == ("not-authenticated", 401)


def test_secrets_and_connections_are_checked(
    client: Client, new_id: str, pg_database: Database
) -> None:
    options = {"host": pg_database.host, "database": "x", "user": "u", "password": "p"}
    created = client.create_source(new_id, "postgresql", options)
    assert created.secrets
    assert created.secrets["password"].set
    assert not created.secrets["dsn"].set
    moved = {"options": {"host": "127.0.0.2"}}
    with pytest.raises(SecretRequiredError) as caught:
        client.update_source(new_id, moved, version=created.version)
    assert [error.pointer for error in caught.value.errors] == ["#/options/password"]
    check = client.check_new_source("postgresql", {"dsn": pg_database.dsn()})
    assert (check.ok, bool(check)) == (False, False)
    assert check.error is not None
    good = {"dsn": pg_database.dsn(), "allow_privileged_role": True}
    assert client.check_new_source("postgresql", good)
    assert not client.check_source(new_id, {"options": {"port": 1, "password": "p"}})
    with pytest.raises(OptionError):
        client.validate_source(f"{new_id}-2", "postgresql", {"hst": "x"})


def test_tokens_are_made_listed_and_revoked() -> None:
    with ServeCommand() as served:
        url = f"http://127.0.0.1:{served.port}"
        with Client(url, token=served.admin.token) as admin:
            options = {"path": str(served.directory / "data")}
            admin.create_source("lake", "local_file", options)
            grant = Grant("lake", ("read",), ("public/*",))
            token = admin.add_token("ann", grants=[grant], expires_days=3)
            listed = {entry.name: entry for entry in admin.tokens()}
            assert listed["ann"].grants == (grant,)
            assert listed["ann"].expires_at
            assert (listed["admin"].admin, listed["admin"].expires_at) == (True, None)
            with Client(url, token=token) as ann:
                assert [source.id for source in ann.sources()] == ["lake"]
                admin.revoke_token("ann")
                with pytest.raises(DataSourceError) as caught:
                    list(ann.sources())
                assert caught.value.status == 401
            # The last entry, as others are there before it.
            wait_until_blocking(lambda: any(admin.audit(operation="refused")))
            audited = [entry.operation for entry in admin.audit(user="admin")]
            assert audited[0] == "token_revoked"
            assert {"token_made", "registered"} < set(audited)
            refused = next(admin.audit(operation="refused"))
            assert (refused.user, refused.outcome) == (None, "not-authenticated")


def end_after_the_first_piece(monkeypatch: pytest.MonkeyPatch, end: Callable[[], None]) -> None:
    """Call `end` when the first piece of the first content was read, and then have it read on."""
    read, ends = Content.__iter__, [end]

    def read_and_end(content: Content) -> Iterator[bytes]:
        for piece in read(content):
            yield piece
            if ends:
                ends.pop()()

    monkeypatch.setattr(Content, "__iter__", read_and_end)


def test_server_that_is_killed_during_a_download_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer() as server, Client(f"http://127.0.0.1:{server.port}", token="root") as client:
        options = {"path": str(server.data)}
        client.create_source("lake", "local_file", options, limits=Limits(max_bytes=None))
        with (server.data / "large.bin").open("wb") as file:
            file.truncate(64 << 20)
        for stream in (False, True):
            server.start()
            content = client.open_content("lake", "large.bin", stream=stream)
            with content:
                chunks = iter(content)
                next(chunks)
                server.kill()
                with pytest.raises(ServerError, match="before it was complete"):
                    list(chunks)
        server.start()
        end_after_the_first_piece(monkeypatch, server.kill)
        with pytest.raises(ServerUnreachableError):
            client.fetch("lake", "large.bin", path=str(tmp_path / "large.bin"))
    assert list(tmp_path.iterdir()) == []


def test_download_goes_on_after_a_restart_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ApiServer() as server, Client(f"http://127.0.0.1:{server.port}", token="root") as client:
        options = {"path": str(server.data)}
        client.create_source("lake", "local_file", options, limits=Limits(max_bytes=None))
        with (server.data / "large.bin").open("wb") as file:
            file.write(b"begin")
            file.truncate(64 << 20)

        def restart() -> None:
            server.kill()  # told to end, it would wait for the end of the download
            server.start()

        end_after_the_first_piece(monkeypatch, restart)
        receipt = client.fetch("lake", "large.bin", path=str(tmp_path / "large.bin"))
        assert receipt.size == 64 << 20
        assert Path(receipt.path).read_bytes() == (server.data / "large.bin").read_bytes()
        assert server.log.count("206 Partial Content") == 1


def test_private_authority_is_trusted_if_it_is_given() -> None:
    with TlsServer() as server:
        with Client(server.url, token="root", ca_file=str(server.authority)) as client:
            assert client.types()
            assert client.types()
        ports = re.findall(r"127.0.0.1:(\d+) - .GET /v1/types", server.log)
        assert (len(ports), len(set(ports))) == (2, 1)  # one connection
        with (
            Client(server.url, token="root") as client,
            pytest.raises(ServerUnreachableError, match="not trusted") as caught,
        ):
            client.types()
        assert not caught.value.retryable
        other = server.url.replace("127.0.0.1", "localhost")
        with (
            Client(other, token="root", ca_file=str(server.authority)) as client,
            pytest.raises(ServerUnreachableError, match="not trusted"),
        ):
            client.types()
        with (
            Client(server.url.replace("https", "http"), token="root") as client,
            pytest.raises(ServerError),
        ):
            client.types()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SocketServer]:
    """A server on a socket that the environment names, with a source of one file."""
    monkeypatch.chdir(tmp_path)
    with SocketServer() as server:
        (server.data / "orders.csv").write_bytes(ORDERS)
        monkeypatch.setenv("DATASOURCES_SOCKET", server.socket)
        monkeypatch.setenv("DATASOURCES_TOKEN", "root")
        ds.default_client().create_source("lake", "local_file", {"path": str(server.data)})
        yield server
        ds.default_client().close()


def test_functions_use_the_socket_of_the_environment(
    workspace: SocketServer, tmp_path: Path
) -> None:
    assert repr(ds.default_client()) == f"Client('unix:{workspace.socket}')"
    assert [source.id for source in ds.sources()] == ["lake"]
    assert [item.path for item in ds.items("lake")] == ["orders.csv"]
    assert ds.preview("lake", "orders.csv", 1).columns == ("id", "total")
    with pytest.raises(UnsupportedError):
        ds.statistics("lake", "orders.csv")
    assert ds.describe("lake", "orders.csv")
    receipt = ds.fetch("lake", "orders.csv")
    assert receipt.path == str(tmp_path / "lake/orders.csv")
    assert Path(receipt.path).read_bytes() == ORDERS


def test_code_in_a_process_of_its_own_needs_nothing_but_the_client(
    workspace: SocketServer, tmp_path: Path
) -> None:
    code = """
import sys
import datasources_client as ds
print(ds.fetch("lake", "orders.csv").size, next(ds.sources()).id)
ours = {name.partition(".")[0] for name in sys.modules if name.startswith("datasources")}
assert ours == {"datasources_client"}, ours
"""
    source = Path(ds.__file__).parents[1]
    command = [sys.executable, "-I", "-S", "-W", "error", "-c"]
    code = f"import sys; sys.path.insert(0, {str(source)!r})\n{code}"
    done = subprocess.run(
        [*command, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert (done.stderr, done.stdout) == ("", "24 lake\n")


def test_upload_streams_from_a_file_and_returns_its_receipt(
    server: ApiServer, client: Client, new_id: str, tmp_path: Path
) -> None:
    folder = server.data / new_id
    folder.mkdir()
    client.create_source(new_id, "local_file", {"path": str(folder), "writable": True})
    (tmp_path / "local.csv").write_bytes(ORDERS)
    receipt = client.upload(new_id, "in/orders.csv", tmp_path / "local.csv")
    assert (receipt.size, receipt.sha256) == (len(ORDERS), hashlib.sha256(ORDERS).hexdigest())
    assert receipt.item == next(client.items(new_id))
    with pytest.raises(ItemExistsError):
        client.upload(new_id, "in/orders.csv", [b"other"], overwrite=False)
    assert client.upload(new_id, "in/orders.csv", iter([b"a", b"b"])).size == 2
    assert (folder / "in/orders.csv").read_bytes() == b"ab"


def test_upload_over_a_socket(workspace: SocketServer) -> None:
    folder = workspace.data / "in"
    folder.mkdir()
    client = ds.default_client()
    client.create_source("in", "local_file", {"path": str(folder), "writable": True})
    assert client.upload("in", "a.csv", [ORDERS]).size == len(ORDERS)
    assert (folder / "a.csv").read_bytes() == ORDERS


def test_upload_that_is_refused_is_not_sent_to_its_end(
    server: ApiServer, client: Client, new_id: str
) -> None:
    options = {"path": str(server.data), "writable": True}
    client.create_source(new_id, "local_file", options, limits=Limits(max_bytes=1 << 20))
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(1 << 20)

    with pytest.raises(LimitExceededError):
        client.upload(new_id, "large", endless())
    assert sent > 1
    assert next(client.sources()).id  # by another connection


MEASURED = """
import resource, sys
import datasources_client as ds
client = ds.Client(sys.argv[1], token="root")
client.upload(sys.argv[2], "first", [b"x"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(client.upload(sys.argv[2], "large", sys.argv[3]).size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_of_the_client_does_not_grow_with_an_upload(
    server: ApiServer, client: Client, new_id: str, tmp_path: Path
) -> None:
    folder = server.data / new_id
    folder.mkdir()
    options = {"path": str(folder), "writable": True}
    client.create_source(new_id, "local_file", options, limits=Limits(max_bytes=None))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(256 << 20)
    arguments = [f"http://127.0.0.1:{server.port}", new_id, str(tmp_path / "large")]
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    size, grown = map(int, done.stdout.split())
    assert size == 256 << 20
    assert grown < 16 << 10  # KiB
