"""The tools do what their schemas say, on real sources, in results of bounded size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datasources import DataSourceConfig, Grant, Limits, Principal, SourceURI
from datasources_agents import call_tool, tool_schemas
from datasources_agents.tools import MAX_BYTES, SessionFetches, Toolbox
from tests.agents.shops import ORDERS, SLOW, Shop, add_blobs, open_shop
from tests.core.fakes import MemoryConnector, registry_of, source
from tests.servers import AzuriteServer, Database
from tests.waiting import wait_until

READ, QUERY = Grant("shop", {"read"}), Grant("shop", {"read", "query"})
LAKE = Grant("lake", {"read"})


@pytest.fixture
async def shop(pg_database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(pg_database, tmp_path) as shop:
        yield shop


def objects(schema: Any) -> list[dict[str, Any]]:
    """Return every schema of an object in a schema."""
    if isinstance(schema, list):
        return [found for part in schema for found in objects(part)]
    if not isinstance(schema, dict):
        return []
    here = [schema] if "properties" in schema else []
    return here + [found for part in schema.values() for found in objects(part)]


async def test_schemas_are_strict_as_openai_takes_them(shop: Shop) -> None:
    schemas = tool_schemas(shop.access(READ))
    assert [tool["function"]["name"] for tool in schemas] == [
        "list_sources",
        "list_items",
        "describe_item",
        "preview_item",
        "fetch_item",
        "fetch_status",
    ]
    for tool in schemas:
        assert tool["function"]["strict"] is True
        assert tool["type"] == "function"
        for schema in objects(tool["function"]["parameters"]):
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])


async def test_free_queries_are_offered_only_where_a_grant_has_them(shop: Shop) -> None:
    assert "it may be a query" not in json.dumps(tool_schemas(shop.access(READ)))
    assert "it may be a query" in json.dumps(tool_schemas(shop.access(READ, QUERY)))


async def test_schemas_do_not_grow_with_the_sources(shop: Shop) -> None:
    few = tool_schemas(shop.access(READ))
    many = tool_schemas(shop.access(READ, *(Grant(f"s{n}", {"read"}) for n in range(1000))))
    assert many == few


async def test_sources_are_listed_without_their_options(shop: Shop) -> None:
    result = await call_tool("list_sources", {}, shop.access(QUERY, LAKE))
    assert [source["id"] for source in result["sources"]] == ["lake", "shop"]
    assert result["next_cursor"] is None
    (listed,) = [source for source in result["sources"] if source["id"] == "shop"]
    assert listed.keys() == {"id", "name", "type", "state", "rights", "abilities"}
    assert listed["rights"] == ["query", "read"]
    assert {"parameters", "preview", "statistics"} <= set(listed["abilities"])


async def test_paused_sources_are_listed_with_their_reason(shop: Shop) -> None:
    await shop.registry.pause("shop", "maintenance until noon")
    result = await call_tool("list_sources", {"type": "postgresql"}, shop.access(READ, LAKE))
    (listed,) = result["sources"]
    assert (listed["state"], listed["reason"]) == ("paused", "maintenance until noon")


async def test_a_thousand_sources_come_in_bounded_pages(shop: Shop, tmp_path: Path) -> None:
    for number in range(1000):
        await shop.registry.register_data_source(
            DataSourceConfig(f"many-{number:04}", "local_file", "N" * 150, {"path": str(tmp_path)})
        )
    access = shop.registry.access(Principal("root", roles={"admin"}))
    listed, arguments = [], {"search": "many-", "cursor": None}
    while True:
        result = await call_tool("list_sources", arguments, access)
        assert len(json.dumps(result)) <= MAX_BYTES
        listed += [source["id"] for source in result["sources"]]
        arguments["cursor"] = result["next_cursor"]
        if result["next_cursor"] is None:
            break
    assert listed == [f"many-{number:04}" for number in range(1000)]


async def test_items_and_stored_queries_are_listed(shop: Shop) -> None:
    result = await call_tool("list_items", {"source": "shop"}, shop.access(READ))
    items = {item["path"]: item for item in result["items"]}
    assert items["public.orders"]["kind"] == "table"
    assert items["query:by-city"]["kind"] == "stored query"
    assert items["query:by-city"]["comment"] == "The orders of a city"
    assert items["query:by-city"]["parameters"]["city"]["type"] == "text"


async def test_pages_of_items_together_are_the_listing(shop: Shop, tmp_path: Path) -> None:
    long = "x" * 200  # so that a page of 200 has no room
    for number in range(300):
        (tmp_path / f"lake/{long}{number:03}.csv").write_text("a\n", "utf-8")
    for arguments in ({"source": "lake"}, {"source": "lake", "pattern": "*.csv"}):
        paths: list[str] = []
        cursor = None
        while True:
            page = {**arguments, "cursor": cursor, "limit": 200}
            result = await call_tool("list_items", page, shop.access(LAKE))
            assert len(json.dumps(result)) <= MAX_BYTES
            paths += [item["path"] for item in result["items"]]
            cursor = result["next_cursor"]
            if cursor is None:
                break
        files = [path for path in paths if path.startswith(long)]
        assert files == [f"{long}{number:03}.csv" for number in range(300)]


async def test_a_description_has_types_keys_and_estimates(shop: Shop) -> None:
    arguments = {"source": "shop", "item": "public.orders"}
    result = await call_tool("describe_item", arguments, shop.access(READ))
    columns = {column["name"]: column for column in result["columns"]}
    assert list(columns) == ["id", "city", "total"]
    assert columns["id"]["type"] == "integer"
    assert columns["total"]["comment"] == "In euros"
    assert result["facts"]["estimated_rows"] == ORDERS
    assert result["facts"]["primary_key"] == ["id"]
    assert str(SourceURI.parse(result["uri"])) == result["uri"]


async def test_statistics_are_those_of_the_columns(shop: Shop) -> None:
    arguments = {"source": "shop", "item": "public.orders", "detail": "statistics"}
    result = await call_tool("describe_item", arguments, shop.access(READ))
    figures = {column["name"]: column for column in result["columns"]}
    assert figures["id"]["count"] == ORDERS
    assert (figures["id"]["min"], figures["id"]["max"]) == (1, ORDERS)


async def test_all_columns_of_a_wide_table_can_be_described(shop: Shop) -> None:
    names = [f"column_{number:04}" for number in range(1500)]
    shop.admin.execute(f"CREATE TABLE wide ({', '.join(f'{name} int' for name in names)})")
    described: list[str] = []
    cursor = None
    while True:
        arguments = {"source": "shop", "item": "public.wide", "cursor": cursor}
        result = await call_tool("describe_item", arguments, shop.access(READ))
        assert len(json.dumps(result)) <= MAX_BYTES
        described += [column["name"] for column in result["columns"]]
        cursor = result["next_cursor"]
        if cursor is None:
            break
        assert f"of {len(names)}; next_cursor has the others" in result["notes"][-1]
    assert described == names


async def test_a_preview_says_that_there_is_more(shop: Shop) -> None:
    arguments = {"source": "shop", "item": "public.orders", "rows": 2}
    result = await call_tool("preview_item", arguments, shop.access(READ))
    assert result["columns"] == ["id", "city", "total"]
    assert result["rows"] == [[1, "Bern", "1.5"], [2, "Oslo", "3.0"]]
    assert result["truncated"] is True


async def test_a_stored_query_takes_values(shop: Shop, tmp_path: Path) -> None:
    arguments = {
        "source": "shop",
        "item": "query:by-city",
        "parameters": [{"name": "city", "value": "Oslo'; DROP TABLE orders; --"}],
    }
    access = shop.access(READ)
    assert (await call_tool("preview_item", arguments, access))["rows"] == []
    arguments["parameters"] = [{"name": "city", "value": "Oslo"}]
    result = await call_tool("preview_item", arguments, access)
    assert [row[0] for row in result["rows"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert "uri" not in result  # a URI has no place for the values
    async with access.workspace("w", root=tmp_path) as session:
        receipt = await call_tool("fetch_item", arguments, access, session)
        assert receipt["rows"] == ORDERS // 2


async def test_a_fetch_writes_a_file_and_says_what_was_left_out(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(READ)
    async with access.workspace("w", root=tmp_path) as session:
        arguments = {"source": "shop", "item": "public.orders", "max_rows": 3}
        receipt = await call_tool("fetch_item", arguments, access, session)
        content = Path(session.path, receipt["path"]).read_text("utf-8")
    assert len(content.splitlines()) == 1 + 3
    assert (receipt["state"], receipt["rows"], receipt["truncated"]) == ("finished", 3, True)
    assert "first 3 rows and the source has more" in receipt["notes"][0]
    assert receipt["uri"] == "datasource://shop/public.orders"


async def test_max_rows_only_narrows_the_limits_of_the_host(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(READ, limits=Limits(max_rows=5))
    async with access.workspace("w", root=tmp_path) as session:
        arguments = {"source": "shop", "item": "public.orders", "max_rows": 20}
        assert (await call_tool("fetch_item", arguments, access, session))["rows"] == 5


async def test_a_fetch_needs_what_both_access_and_session_may_do(
    shop: Shop, tmp_path: Path
) -> None:
    wide, narrow = shop.access(QUERY), shop.access(READ)
    async with wide.workspace("w", root=tmp_path) as session:
        arguments = {"source": "shop", "item": "SELECT 1 AS one"}
        assert (await call_tool("fetch_item", arguments, wide, session))["rows"] == 1
        refused = await call_tool("fetch_item", arguments, narrow, session)
    assert refused["error"]["slug"] == "not-allowed"


async def test_blobs_are_listed_previewed_and_fetched(
    shop: Shop, azurite: AzuriteServer, tmp_path: Path
) -> None:
    container = await add_blobs(shop, azurite)
    container.upload_blob("2026/ä b.csv", "id,city\n1,Zürich\n".encode())
    access = shop.access(Grant("blobs", {"read"}))
    listed = await call_tool("list_items", {"source": "blobs", "path": "2026/"}, access)
    (item,) = listed["items"]
    arguments = {"source": "blobs", "item": item["path"]}
    preview = await call_tool("preview_item", arguments, access)
    assert preview["rows"] == [["1", "Zürich"]]
    assert SourceURI.parse(preview["uri"]).item == "2026/ä b.csv"
    async with access.workspace("w", root=tmp_path) as session:
        receipt = await call_tool("fetch_item", arguments, access, session)
        content = Path(session.path, receipt["path"]).read_text("utf-8")
    assert content == "id,city\n1,Zürich\n"


async def test_a_long_fetch_is_a_job_that_can_be_cancelled(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(QUERY)
    async with access.workspace("w", root=tmp_path) as session:
        tools = Toolbox(access, SessionFetches(session, wait=0))
        job = await tools.call("fetch_item", {"source": "shop", "item": SLOW})
        assert job["state"] == "running"
        await wait_until(shop.running)
        assert (await tools.call("fetch_status", {"job": job["job"]}))["state"] == "running"
        stranger = Toolbox(shop.access(QUERY, name="eve"), SessionFetches(session))
        arguments = {"job": job["job"], "cancel": True}
        refused = await stranger.call("fetch_status", arguments)
        unknown = await stranger.call("fetch_status", {**arguments, "job": "unknown"})
        assert refused == unknown
        assert (await tools.call("fetch_status", arguments))["state"] == "cancelled"
        await wait_until(lambda: not shop.running())


async def test_a_job_ends_with_its_receipt_or_its_error(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(QUERY)
    async with access.workspace("w", root=tmp_path) as session:
        tools = Toolbox(access, SessionFetches(session, wait=0))

        async def end_of(query: str) -> dict[str, Any]:
            job = await tools.call("fetch_item", {"source": "shop", "item": query})
            while True:
                state = await tools.call("fetch_status", {"job": job["job"]})
                if state["state"] != "running":
                    return state
                await asyncio.sleep(0)

        assert (await end_of("SELECT 1 AS one"))["rows"] == 1
        failed = await end_of("SELECT * FROM missing")
    assert (failed["state"], failed["error"]["slug"]) == ("failed", "fetch-failed")


async def test_the_number_of_running_jobs_is_bounded(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(QUERY)
    async with access.workspace("w", root=tmp_path) as session:
        tools = Toolbox(access, SessionFetches(session, wait=0))
        results = [
            await tools.call("fetch_item", {"source": "shop", "item": SLOW}) for _ in range(5)
        ]
    assert [result.get("state") for result in results] == ["running"] * 4 + [None]
    assert "jobs of this workspace run already" in results[4]["error"]["message"]


async def test_calls_at_the_same_time_leave_as_many_jobs_as_are_allowed(tmp_path: Path) -> None:
    async with registry_of(MemoryConnector) as registry:
        await registry.register_data_source(source())
        access = registry.access(Principal("ann", grants=[Grant("s", {"read", "query"})]))
        async with access.workspace("w", root=tmp_path) as session:
            tools = Toolbox(access, SessionFetches(session, wait=0.1))
            call = ("fetch_item", {"source": "s", "item": "slow"})
            results = await asyncio.gather(*(tools.call(*call) for _ in range(6)))
    refused = [result["error"]["message"] for result in results if "error" in result]
    assert [result.get("state") for result in results].count("running") == 4
    assert len(refused) == 2
    assert all("jobs of this workspace run already" in message for message in refused)


async def test_the_end_of_the_session_ends_its_jobs(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(QUERY)
    async with access.workspace("w", root=tmp_path) as session:
        tools = Toolbox(access, SessionFetches(session, wait=0))
        await tools.call("fetch_item", {"source": "shop", "item": SLOW})
        await wait_until(shop.running)
    await wait_until(lambda: not shop.running())


@pytest.mark.parametrize("tool", ["fetch_item", "preview_item"])
async def test_a_cancelled_call_leaves_no_query_on_the_server(
    shop: Shop, tmp_path: Path, tool: str
) -> None:
    access = shop.access(QUERY)
    async with access.workspace("w", root=tmp_path) as session:
        arguments = {"source": "shop", "item": SLOW}
        call = asyncio.create_task(call_tool(tool, arguments, access, session))
        await wait_until(shop.running)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await wait_until(lambda: not shop.running())


async def test_without_a_workspace_nothing_is_fetched(shop: Shop) -> None:
    arguments = {"source": "shop", "item": "public.orders"}
    result = await call_tool("fetch_item", arguments, shop.access(READ))
    assert result["error"]["message"] == "this host has no workspace to fetch items into"


WRONG = [
    ("nothing", {}, "there is no such tool"),
    ("list_items", {}, "'source' must be text"),
    ("list_items", {"source": "shop", "more": 1}, "arguments that it does not take"),
    ("list_items", {"source": "shop", "limit": 201}, "from 1 to 200"),
    ("list_items", {"source": "shop", "limit": True}, "from 1 to 200"),
    ("list_items", {"source": "lake", "path": "x", "pattern": "y"}, "cannot be given together"),
    ("list_items", {"source": "lake", "cursor": "forged"}, "not one of this listing"),
    ("list_items", {"source": "lake", "pattern": "*", "cursor": "-1"}, "not one of this listing"),
    (
        "describe_item",
        {"source": "shop", "item": "x", "detail": "all"},
        "'columns' or 'statistics'",
    ),
    ("preview_item", {"source": "shop", "item": "public.orders", "rows": 51}, "from 1 to 50"),
    ("preview_item", {"source": "shop", "item": "x", "parameters": {"a": 1}}, "a list of objects"),
    ("preview_item", {"source": "shop", "item": "x" * 100_001}, "at most 100000 characters"),
    ("preview_item", '{"source": "shop", ', "not JSON"),
    ("preview_item", "[" * 100_000, "not JSON"),
    ("preview_item", "[]", "must be an object"),
]


@pytest.mark.parametrize(("name", "arguments", "sentence"), WRONG)
async def test_wrong_calls_are_answered_with_one_sentence(
    shop: Shop, name: str, arguments: Any, sentence: str
) -> None:
    result = await call_tool(name, arguments, shop.access(READ, LAKE))
    assert list(result) == ["error"]
    assert sentence in result["error"]["message"]
    assert "\n" not in result["error"]["message"]
    assert "Traceback" not in result["error"]["message"]
