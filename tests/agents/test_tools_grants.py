"""Whatever the library refuses is refused through every tool, in the same words for all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datasources import Access, DataSourceRegistry, Grant, Operation, Principal, hookimpl
from datasources_agents import call_tool
from tests.agents.shops import Shop, add_blobs, open_shop
from tests.listeners import listening
from tests.servers import AzuriteServer, Database


@pytest.fixture
async def shop(pg_database: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(pg_database, tmp_path) as shop:
        yield shop


GRANTS: dict[str, list[Grant]] = {
    "none": [],
    "another source": [Grant("lake", {"read"})],
    "write": [Grant("shop", {"write"})],
    "stored query": [Grant("shop", {"read"}, items=["query:*"])],
    "one table": [Grant("shop", {"read"}, items=["public.orders"])],
    "read": [Grant("shop", {"read"})],
    "query": [Grant("shop", {"read", "query"})],
}
HIDDEN, REFUSED, DONE = "source-not-found", "not-allowed", "done"
ITEMS: dict[str, dict[str, Any]] = {
    "table": {"item": "public.orders"},
    "other table": {"item": "public.other"},
    "sql": {"item": "SELECT 1 AS one"},
    "stored": {"item": "query:by-city", "parameters": [{"name": "city", "value": "Bern"}]},
}
ALLOWED = {  # what each grant may do with each item
    "none": dict.fromkeys(ITEMS, HIDDEN),
    "another source": dict.fromkeys(ITEMS, HIDDEN),
    "write": dict.fromkeys(ITEMS, REFUSED),
    "stored query": {**dict.fromkeys(ITEMS, REFUSED), "stored": DONE},
    "one table": {**dict.fromkeys(ITEMS, REFUSED), "table": DONE},
    "read": {**dict.fromkeys(ITEMS, DONE), "sql": REFUSED},
    "query": dict.fromkeys(ITEMS, DONE),
}
LISTED = {
    "none": HIDDEN,
    "another source": HIDDEN,
    "write": REFUSED,
    "stored query": ["query:by-city"],
    "one table": ["public.orders"],
    "read": ["query:by-city", "public.orders", "public.other"],
    "query": ["query:by-city", "public.orders", "public.other"],
}


def outcome(result: dict[str, Any]) -> str:
    slug: str = result["error"]["slug"] if "error" in result else DONE
    return slug


@pytest.mark.parametrize("name", GRANTS)
@pytest.mark.parametrize("tool", ["describe_item", "preview_item", "fetch_item"])
async def test_grants_decide_what_each_tool_may_use(
    shop: Shop, tmp_path: Path, name: str, tool: str
) -> None:
    shop.admin.execute("CREATE TABLE other (a int)")
    access = shop.access(*GRANTS[name])
    outcomes = {}
    async with access.workspace("w", root=tmp_path) as session:
        for kind, item in ITEMS.items():
            arguments: dict[str, Any] = {"source": "shop", **item}
            if tool == "describe_item":
                arguments.pop("parameters", None)
            outcomes[kind] = outcome(await call_tool(tool, arguments, access, session))
    assert outcomes == ALLOWED[name]


@pytest.mark.parametrize("name", GRANTS)
async def test_grants_decide_what_is_listed(shop: Shop, name: str) -> None:
    shop.admin.execute("CREATE TABLE other (a int)")
    access = shop.access(*GRANTS[name])
    for arguments in ({"source": "shop"}, {"source": "shop", "pattern": "**"}):
        result = await call_tool("list_items", arguments, access)
        listed = (
            outcome(result) if "error" in result else [item["path"] for item in result["items"]]
        )
        expected = LISTED[name]
        if "pattern" in arguments and isinstance(expected, list):
            expected = [path for path in expected if path in listed]  # patterns name no queries
        assert listed == expected
    sources = await call_tool("list_sources", {}, access)
    granted = sorted({grant.source for grant in GRANTS[name]})
    assert [source["id"] for source in sources["sources"]] == granted


CALLS = [
    ("list_items", {}),
    ("list_items", {"pattern": "*"}),
    ("describe_item", {"item": "public.orders"}),
    ("describe_item", {"item": "public.orders", "detail": "statistics"}),
    ("preview_item", {"item": "public.orders"}),
    ("fetch_item", {"item": "public.orders"}),
]


class Calls:
    """Counts the operations that observers see."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @hookimpl
    def datasources_operation_started(self, operation: Operation) -> None:
        self.names.append(operation.name)


async def answers(access: Access, source: str, directory: Path) -> list[dict[str, Any]]:
    async with access.workspace("w", root=directory) as session:
        return [
            await call_tool(tool, {"source": source, **arguments}, access, session)
            for tool, arguments in CALLS
        ]


async def test_unknown_and_not_granted_are_the_same(shop: Shop, tmp_path: Path) -> None:
    access = shop.access(Grant("lake", {"read"}), Grant("gone", {"read", "query"}))
    calls = Calls()
    shop.registry.plugins.register_plugin(calls)
    hidden = await answers(access, "shop", tmp_path)
    seen, calls.names = calls.names, []
    assert hidden == await answers(access, "unknown", tmp_path)
    assert seen == calls.names
    assert hidden == await answers(access, "gone", tmp_path)
    assert hidden == await answers(access, "no id at all!", tmp_path)
    assert {answer["error"]["message"] for answer in hidden} == {
        "there is no such source, or it is not granted to you"
    }


async def test_no_result_holds_a_secret(shop: Shop, azurite: AzuriteServer, tmp_path: Path) -> None:
    await add_blobs(shop, azurite)
    wrong = "canary-wrong-password"
    await shop.add("broken", "postgresql", **{**shop.options, "password": wrong})
    canaries = [*shop.canaries, wrong]
    access = shop.registry.access(Principal("root", roles={"admin"}))
    results = []
    async with access.workspace("w", root=tmp_path) as session:
        for source in ("shop", "blobs", "broken"):
            results += await answers(access, source, tmp_path / "answers")
            for item in (wrong, *shop.canaries):
                arguments = {"source": source, "item": f"SELECT '{item}' FROM missing"}
                results.append(
                    await call_tool("preview_item", {"source": source, "item": "x"}, access)
                )
                results.append(
                    await call_tool("fetch_item", {**arguments, "item": "y"}, access, session)
                )
        results.append(await call_tool("list_sources", {}, access))
    text = json.dumps(results)
    assert "login" in text  # the wrong password was tried
    for canary in canaries:
        assert canary not in text


async def test_pasted_uris_open_nothing(shop: Shop, tmp_path: Path) -> None:
    async with listening() as listeners:
        options = {**shop.options, "host": listeners.host, "port": listeners.port}
        await shop.add("trap", "postgresql", **options)
        uri = "datasource://trap/public.orders"
        (tmp_path / "lake/bait.csv").write_text(f"{uri}\n{uri}\n", "utf-8")
        (tmp_path / "lake" / "datasource:").mkdir()
        access = shop.access(Grant("lake", {"read"}), Grant("trap", {"read", "query"}))
        async with access.workspace("w", root=tmp_path) as session:
            for tool, arguments in CALLS[2:]:
                for item in (uri, "bait.csv"):
                    call = {**arguments, "source": "lake", "item": item}
                    await call_tool(tool, call, access, session)
            listed = await call_tool("list_items", {"source": uri}, access)
            await call_tool("list_items", {"source": "lake", "path": uri}, access)
            await call_tool("list_sources", {"search": uri}, access)
        assert listed["error"]["slug"] == HIDDEN
        assert listeners.connections == 0


async def test_a_source_without_a_plugin_is_listed_as_unusable(tmp_path: Path) -> None:
    async with DataSourceRegistry() as registry:
        access = registry.access(Principal("ann", grants=[Grant("lake", {"read"})]))
        assert await call_tool("list_sources", {}, access) == {"sources": [], "next_cursor": None}
        assert not list(tmp_path.iterdir())
