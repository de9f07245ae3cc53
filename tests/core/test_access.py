"""A principal can do what its grants say, and learns nothing of the rest."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from datasources import (
    Access,
    DataItem,
    DataSourceNotFoundError,
    DataSourceRegistry,
    FetchRequest,
    Grant,
    ItemNotFoundError,
    LimitExceededError,
    Limits,
    Operation,
    OptionError,
    Policy,
    PolicyError,
    Principal,
    Split,
    WorkspaceSession,
    abilities,
    blocking,
    caller,
    hookimpl,
)
from datasources.tabular import items_below
from datasources.workspace import Quota
from tests.core.fakes import AbleConnector, CountingStore, registry_of, source
from tests.waiting import wait_until

ITEMS = {"in/a.csv": b"x\n1\n", "in/deep/b.csv": b"x\n2\n", "out/c.csv": b"x\n3\n"}


class Shelf(AbleConnector):
    """Classifies identifiers: those with a blank are queries."""

    calls: ClassVar[list[str]] = []
    entered: ClassVar[int] = 0
    most: ClassVar[int] = 0

    async def connect(self) -> bool:
        self.calls.append("connect")
        await super().connect()
        self._connection = dict(ITEMS)
        return True

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        return "query" if " " in identifier else "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        return None if " " in identifier or "~" in identifier else identifier

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        self.calls.append("list_items")
        if path and not items_below(await super().list_items(), path):
            raise ItemNotFoundError(f"no folder {path!r}")
        return items_below(await super().list_items(), path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        self.calls.append(f"fetch {identifier}")
        type(self).entered += 1
        type(self).most = max(self.most, self.entered)
        try:
            return await super().fetch_data(identifier, workspace)
        finally:
            type(self).entered -= 1

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        self.calls.append(f"describe {identifier}")
        return {"path": identifier}


@pytest.fixture
async def registry() -> AsyncIterator[DataSourceRegistry]:
    Shelf.calls.clear()
    Shelf.most = Shelf.entered = 0
    async with registry_of(Shelf, store=CountingStore()) as registry:
        for source_id in ("shop", "hr"):
            await registry.register_data_source(source(source_id))
        Shelf.calls.clear()
        yield registry


def access_of(registry: DataSourceRegistry, *grants: Grant, **arguments: Any) -> Access:
    return registry.access(Principal("ann", grants=grants), **arguments)


OPERATIONS: dict[str, Callable[[Access, str, Path], Any]] = {
    "get_source": lambda a, s, _: a.get_source(s),
    "list_abilities": lambda a, s, _: a.list_abilities(s),
    "list_items": lambda a, s, _: a.list_items(s),
    "iter_items": lambda a, s, _: anext(a.iter_items(s)),
    "glob_items": lambda a, s, _: a.glob_items(s, "*"),
    "expand": lambda a, s, _: a.expand(s, "in"),
    "get_metadata": lambda a, s, _: a.get_metadata(s, "in/a.csv"),
    "preview": lambda a, s, _: a.preview(s, "in/a.csv"),
    "statistics": lambda a, s, _: a.statistics(s, "in/a.csv"),
    "upload": lambda a, s, _: a.upload(s, "/f", "in/a.csv"),
    "fetch": lambda a, s, w: a.fetch(s, "in/a.csv", w),
    "fetch_many": lambda a, s, w: a.fetch_many([("shop", "in/a.csv"), (s, "in/a.csv")], w),
    "fetch_tree": lambda a, s, w: a.fetch_tree(s, None, w),
    "iter_fetch_tree": lambda a, s, w: anext(a.iter_fetch_tree(s, None, w)),
    "list_page": lambda a, s, _: a.list_page(s, limit=1),
    "open_stream": lambda a, s, _: stream(a, s, "in/a.csv"),
}
# More ways into a source: other identifiers and arguments, and workspaces.
WAYS: dict[str, Callable[[Access, str, Path], Any]] = {
    **OPERATIONS,
    "authorize_upload": lambda a, s, _: a.authorize_upload(s, "in/a.csv"),
    "plan": lambda a, s, _: a.plan(s, "in/a.csv").__aenter__(),
    "read_split": lambda a, s, _: anext(a.read_split(Split(s, "in/a.csv", 0, 1, {}))),
    "limits": lambda a, s, _: asyncio.to_thread(a.limits, s),
    "authorize_fetch": lambda a, s, _: a.authorize_fetch(s, "in/a.csv"),
    "iter_items, path": lambda a, s, _: anext(a.iter_items(s, "in")),
    "list_items, path": lambda a, s, _: a.list_items(s, "missing"),
    "list_page, path": lambda a, s, _: a.list_page(s, "in"),
    "list_page, limit": lambda a, s, _: a.list_page(s, limit=0),
    "list_page, cursor": lambda a, s, _: a.list_page(s, cursor="forged"),
    "expand, pattern": lambda a, s, _: a.expand(s, "in/*"),
    "fetch_tree, pattern": lambda a, s, w: a.fetch_tree(s, "select * from t", w),
    "upload, name": lambda a, s, _: a.upload(s, "/in/a.csv"),
    "get_metadata, refresh": lambda a, s, _: a.get_metadata(s, "in/a.csv", refresh=True),
    "get_metadata, query": lambda a, s, _: a.get_metadata(s, "select 1"),
    "get_metadata, stored query": lambda a, s, _: a.get_metadata(s, "query:q"),
    "preview, stored query": lambda a, s, _: a.preview(s, "query:q", parameters={"n": "x"}),
    "statistics, stored query": lambda a, s, _: a.statistics(s, "query:q"),
    "fetch, stored query": lambda a, s, w: a.fetch(s, "query:q", w, parameters={"m": 1}),
    "fetch, format": lambda a, s, w: a.fetch(s, "in/a.csv", w, format="unknown"),
    "open_stream, stored query": lambda a, s, _: stream(a, s, "query:q"),
    "open_stream, range": lambda a, s, _: stream(a, s, "in/a.csv", start=9, end=1),
    "session.fetch": lambda a, s, w: in_session(a, w, lambda x: x.fetch(s, "in/a.csv")),
    "session.fetch_many": lambda a, s, w: in_session(
        a, w, lambda x: x.fetch_many([(s, "in/a.csv")])
    ),
    "session.fetch_tree": lambda a, s, w: in_session(a, w, lambda x: x.fetch_tree(s)),
    "session.list_items": lambda a, s, w: in_session(a, w, lambda x: x.list_items(s)),
    "session.list_page": lambda a, s, w: in_session(a, w, lambda x: x.list_page(s)),
    "session.glob_items": lambda a, s, w: in_session(a, w, lambda x: x.glob_items(s, "*")),
    "session.expand": lambda a, s, w: in_session(a, w, lambda x: x.expand(s)),
    "session.get_metadata": lambda a, s, w: in_session(a, w, lambda x: x.get_metadata(s, "in/a")),
    "session.preview": lambda a, s, w: in_session(a, w, lambda x: x.preview(s, "query:q")),
    "session.statistics": lambda a, s, w: in_session(a, w, lambda x: x.statistics(s, "in/a.csv")),
}


async def stream(access: Access, source_id: str, identifier: str, **arguments: Any) -> None:
    async with access.open_stream(source_id, identifier, **arguments) as stream:
        assert [chunk async for chunk in stream]


async def in_session(
    access: Access, root: Path, operation: Callable[[WorkspaceSession], Any]
) -> None:
    async with access.workspace("w", root=root) as session:
        await operation(session)


OTHERS = {"workspace", "list_sources", "with_quota", "call_at_close"}


def test_every_operation_for_a_source_is_among_the_ways() -> None:
    for owner, prefix in ((Access, ""), (WorkspaceSession, "session.")):
        public = {
            name
            for name, function in inspect.getmembers(owner, inspect.isfunction)
            if not name.startswith("_") and name not in OTHERS
        }
        assert {prefix + name for name in public} <= set(WAYS)


@pytest.mark.parametrize("name", WAYS)
async def test_unknown_and_not_granted_are_the_same_error_without_a_call(
    registry: DataSourceRegistry, tmp_path: Path, name: str
) -> None:
    access = access_of(registry, Grant("shop", {"read", "query", "write"}))
    told = []
    for source_id in ("unknown", "hr"):
        store: Any = registry.store
        store.asked = 0
        Shelf.calls.clear()
        with pytest.raises(DataSourceNotFoundError) as caught:
            await WAYS[name](access, source_id, tmp_path)
        told.append((type(caught.value), str(caught.value).replace(source_id, "ID")))
        assert (store.asked, Shelf.calls) == (0, [])
    assert told[0] == told[1]
    with pytest.raises(DataSourceNotFoundError) as caught:
        registry.get_config("unknown")
    assert told[0][1] == str(caught.value).replace("unknown", "ID")


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_administrator_may_do_everything(
    registry: DataSourceRegistry, tmp_path: Path, name: str
) -> None:
    await OPERATIONS[name](registry.access(Principal("root", {"admin"})), "hr", tmp_path)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        (name, "write" if name == "upload" else "read")
        for name in OPERATIONS
        if name not in {"get_source", "list_abilities"}
    ],
)
async def test_a_missing_right_is_named_and_no_connector_is_asked(
    registry: DataSourceRegistry, tmp_path: Path, name: str, right: str
) -> None:
    access = access_of(registry, Grant("shop", {"read", "write"} - {right}))
    with pytest.raises(PolicyError, match=rf"'ann' does not have the right '{right}' for .*'shop'"):
        await OPERATIONS[name](access, "shop", tmp_path)
    assert Shelf.calls == []


async def test_abilities_are_told_without_a_connection(registry: DataSourceRegistry) -> None:
    access = access_of(registry, Grant("shop", {"read"}))
    assert await access.list_abilities("shop") == abilities(Shelf)
    assert Shelf.calls == []


async def test_only_granted_sources_are_listed(registry: DataSourceRegistry) -> None:
    access = access_of(registry, Grant("shop", {"query"}), Grant("gone", {"read"}))
    assert [config.id for config in await access.list_sources()] == ["shop"]
    admin = registry.access(Principal("root", {"admin"}))
    assert [config.id for config in await admin.list_sources()] == ["hr", "shop"]
    assert await access_of(registry).list_sources() == []


async def test_lists_show_the_granted_items_and_the_folders_on_the_way(
    registry: DataSourceRegistry,
) -> None:
    access = access_of(registry, Grant("shop", {"read"}, items=["in/*.csv"]))

    def paths(items: list[DataItem]) -> list[str]:
        return sorted(item.path for item in items)

    assert paths(await access.list_items("shop")) == ["in/a.csv"]
    assert paths(await access.list_items("shop", "/")) == ["in/"]
    assert paths(await access.list_items("shop", "in/")) == ["in/a.csv"]
    assert paths([item async for item in access.iter_items("shop")]) == ["in/a.csv"]
    assert paths(await access.glob_items("shop", "**")) == ["in/a.csv"]
    assert paths(await access.expand("shop")) == ["in/a.csv"]
    for hidden in ("out", "missing"):
        assert await access.list_items("shop", hidden) == []
        assert [item async for item in access.iter_items("shop", hidden)] == []
        with pytest.raises(ItemNotFoundError, match="has nothing at"):
            await access.expand("shop", hidden)


async def test_a_tree_has_the_granted_items_only(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    access = access_of(registry, Grant("shop", {"read"}, items=["in/**"]))
    results = await access.fetch_tree("shop", None, tmp_path)
    assert [result.request.identifier for result in results] == ["in/a.csv", "in/deep/b.csv"]
    with pytest.raises(ItemNotFoundError, match="has nothing at"):
        await access.fetch_tree("shop", "out/*", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["in"]


async def test_grants_for_one_source_add_up(registry: DataSourceRegistry) -> None:
    access = access_of(
        registry,
        Grant("shop", {"read"}, items=["in/a.csv"]),
        Grant("shop", {"read", "write"}, items=["out/*"]),
    )
    assert len(await access.list_items("shop")) == 2
    await access.upload("shop", "/f", "out/new.csv")
    with pytest.raises(PolicyError, match="may write of source 'shop' only items that match out"):
        await access.upload("shop", "/f", "in/a.csv")
    with pytest.raises(PolicyError, match="only items that match"):
        await access.get_metadata("shop", "~in/a.csv")


async def test_a_pattern_that_matches_nothing_is_no_query_of_a_principal_without_the_right(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    access = access_of(registry, Grant("shop", {"read"}))
    with pytest.raises(ItemNotFoundError):
        await access.expand("shop", "select * from t")
    with pytest.raises(ItemNotFoundError):
        await access.fetch_tree("shop", "select * from t", tmp_path)
    assert not [call for call in Shelf.calls if call.startswith("describe")]
    able = access_of(registry, Grant("shop", {"read", "query"}))
    assert [item.path for item in await able.expand("shop", "select * from t")] == [
        "select * from t"
    ]


async def test_one_request_that_is_not_granted_keeps_all_from_being_fetched(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    access = access_of(registry, Grant("shop", {"read"}, items=["in/*"]))
    with pytest.raises(PolicyError):
        await access.fetch_many([("shop", "in/a.csv"), FetchRequest("shop", "out/c.csv")], tmp_path)
    assert os.listdir(tmp_path) == []


async def test_the_smaller_of_all_limits_counts(tmp_path: Path) -> None:
    policy = Policy(limits=Limits(max_bytes=100, max_rows=50, timeout=None))
    async with registry_of(Shelf, policy=policy) as registry:
        await registry.register_data_source(source("shop"))
        limits = Limits(max_bytes=1_000, max_rows=3, timeout=9.0)
        access = access_of(registry, Grant("shop", {"read"}), limits=limits)
        assert access.limits("shop") == Limits(max_bytes=100, max_rows=3, timeout=9.0)
        tight = Limits(max_bytes=3, max_rows=None, timeout=None)
        with pytest.raises(LimitExceededError):
            await access.fetch("shop", "in/a.csv", tmp_path, limits=tight)
        (result,) = await access.fetch_many([("shop", "in/a.csv")], tmp_path, limits=tight)
        assert isinstance(result.error, LimitExceededError)


async def test_a_quota_holds_for_each_workspace_of_a_principal(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    access = access_of(registry, Grant("shop", {"read"}), quota=5)
    await access.fetch("shop", "in/a.csv", tmp_path / "one")
    await access.fetch("shop", "in/a.csv", tmp_path / "two")
    again = access_of(registry, Grant("shop", {"read"}), quota=5)
    with pytest.raises(LimitExceededError, match="does not fit"):
        await again.fetch("shop", "out/c.csv", tmp_path / "one")
    async with access.workspace("w", quota=1000) as session:
        await session.fetch("shop", "in/a.csv")
        with pytest.raises(LimitExceededError, match="does not fit"):
            await session.fetch("shop", "out/c.csv")


async def test_a_kept_workspace_of_a_principal_has_its_files_when_it_is_opened_again(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    access = access_of(registry, Grant("shop", {"read"}))
    async with access.workspace("w", root=tmp_path, keep=True) as session:
        receipt = await session.fetch("shop", "in/a.csv")
    assert Path(receipt.path).stat().st_size == 4
    async with access.workspace("w", root=tmp_path):
        assert Path(receipt.path).exists()
    assert not Path(receipt.path).exists()


async def test_fetches_that_begin_at_once_share_one_quota(
    registry: DataSourceRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowQuota(Quota):
        def recount(self) -> None:
            time.sleep(0.01)  # so that the other threads ask meanwhile
            super().recount()

    monkeypatch.setattr("datasources.registry.granted.Quota", SlowQuota)
    operations = access_of(registry)._operations
    quotas = await asyncio.gather(
        *(asyncio.to_thread(operations.quota, str(tmp_path), 5) for _ in range(4))
    )
    assert len(set(map(id, quotas))) == 1


@pytest.mark.parametrize("quota", [5, 6])
async def test_a_quota_holds_in_a_workspace_that_has_a_greater_one(
    registry: DataSourceRegistry, tmp_path: Path, quota: int
) -> None:
    access = access_of(registry, Grant("shop", {"read"}), quota=5)
    async with registry.workspace("w", root=tmp_path, quota=quota) as session:
        await access.fetch("shop", "in/a.csv", session.path)
        with pytest.raises(LimitExceededError, match="may have 5 together"):
            await access.fetch("shop", "out/c.csv", session.path)
        (result,) = await access.fetch_many([("shop", "out/c.csv")], session.path)
        assert isinstance(result.error, LimitExceededError)


async def test_an_upload_is_stored_under_the_name_that_was_checked(tmp_path: Path) -> None:
    class Renaming(Shelf):
        async def upload_file(
            self, local_path: str, blob_name: str | None = None, overwrite: bool = True
        ) -> DataItem:
            return DataItem("n", blob_name or "out/elsewhere.csv")

    async with registry_of(Renaming) as registry:
        await registry.register_data_source(source("shop"))
        access = access_of(registry, Grant("shop", {"write"}, items=("*.csv",)))
        assert (await access.upload("shop", str(tmp_path / "a.csv"))).path == "a.csv"


@pytest.mark.parametrize("source_id", ["", "../shop", "shop\n", "shop\0", "a" * 200, 5])
async def test_what_is_no_id_is_an_unknown_source_for_an_administrator_too(
    registry: DataSourceRegistry, source_id: Any
) -> None:
    access = registry.access(Principal("root", {"admin"}))
    with pytest.raises(DataSourceNotFoundError, match="is registered"):
        await access.get_metadata(source_id, "in/a.csv")


async def test_the_fetches_of_a_principal_at_once_are_bounded_over_all_its_objects(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    grant = Grant("shop", {"read"})
    many = access_of(registry, grant, concurrency=3).fetch_many([("shop", "slow")] * 5, tmp_path)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(many)]
    for _ in range(5):
        fetch = access_of(registry, grant, concurrency=3).fetch("shop", "slow", tmp_path)
        tasks.append(asyncio.create_task(fetch))
    await wait_until(lambda: Shelf.entered == 3)
    other = registry.access(Principal("bob", grants=[grant]), concurrency=3)
    await other.fetch("shop", "in/a.csv", tmp_path)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert Shelf.most == 4


async def test_objects_of_a_principal_with_other_bounds_share_one_count(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    grant = Grant("shop", {"read"})

    def fetch(concurrency: int | None, identifier: str = "slow") -> asyncio.Task[Any]:
        access = access_of(registry, grant, concurrency=concurrency)
        return asyncio.create_task(access.fetch("shop", identifier, tmp_path))

    tasks = [fetch(4) for _ in range(3)]
    await wait_until(lambda: Shelf.entered == 3)
    few = fetch(3, "in/a.csv")
    more = fetch(4, "in/a.csv")
    await more  # the fourth place is free, though somebody with a smaller bound came first
    assert not few.done()
    unbounded = fetch(None, "in/a.csv")
    await unbounded
    waiting = [fetch(3, "in/a.csv") for _ in range(3)]
    await asyncio.sleep(0)
    for task in (few, waiting[0]):  # who does not wait any more takes no place
        task.cancel()
    tasks[0].cancel()
    await asyncio.gather(*waiting[1:])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, few, waiting[0], return_exceptions=True)
    assert Shelf.most == 4
    await asyncio.wait_for(fetch(1, "in/a.csv"), 30)  # every place was given back


async def test_a_workspace_of_a_principal_holds_its_grants_for_the_host_too(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    access = access_of(registry, Grant("shop", {"read"}, items=["in/*"]))
    async with access.workspace("w", root=tmp_path) as session:
        assert (await session.fetch("shop", "in/a.csv")).size == 4
        for attempt in (
            registry.fetch("hr", "in/a.csv", session.path),
            session.fetch("hr", "in/a.csv"),
            session.list_items("hr"),
            session.get_metadata("hr", "in/a.csv"),
            session.preview("hr", "in/a.csv"),
            session.statistics("hr", "in/a.csv"),
            session.glob_items("hr", "*"),
            session.expand("hr"),
        ):
            with pytest.raises(DataSourceNotFoundError):
                await attempt
        with pytest.raises(PolicyError, match="only items"):
            await registry.fetch("shop", "out/c.csv", session.path)
        (result,) = await registry.fetch_many([("hr", "in/a.csv")], session.path)
        assert isinstance(result.error, DataSourceNotFoundError)
        assert [config.id for config in await session.list_sources()] == ["shop"]


async def test_a_session_reports_progress_and_takes_narrower_limits(
    registry: DataSourceRegistry,
) -> None:
    seen: list[int] = []
    async with registry.workspace("w", limits=Limits(max_bytes=10)) as session:
        await session.fetch("shop", "in/a.csv", progress=lambda done, _: seen.append(done))
        for limits in (Limits(max_bytes=3), Limits(max_bytes=3, max_rows=None)):
            with pytest.raises(LimitExceededError):
                await session.fetch("shop", "in/a.csv", limits=limits)
    assert seen[-1] == 4


async def test_the_principal_is_the_user_unless_the_host_named_another(
    registry: DataSourceRegistry, tmp_path: Path
) -> None:
    seen: list[tuple[str, str | None]] = []

    class Audit:
        @hookimpl
        def datasources_operation_started(self, operation: Operation) -> None:
            seen.append((operation.name, operation.user))

    registry.plugins.register_plugin(Audit())
    access = access_of(registry, Grant("shop", {"read"}))
    await access.fetch("shop", "in/a.csv", tmp_path)
    assert [item async for item in access.iter_items("shop")]
    with pytest.raises(DataSourceNotFoundError):
        await access.fetch("hr", "in/a.csv", tmp_path)
    with caller(user="service"):
        await access.preview("shop", "in/a.csv")
    async with registry.workspace("w") as session:
        await session.fetch("shop", "in/a.csv")
    assert seen == [
        ("fetch", "ann"),
        ("iter_items", "ann"),
        ("fetch", "ann"),
        ("preview", "service"),
        ("fetch", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("shop", ()), "one at least"),
        (("shop", {"read", "admin"}), "are of read, query, write"),
        (("shop", "read"), "set of texts"),
        (("shop", {"read"}, "in/*"), "set of texts"),
        (("shop", {"read"}, []), "one pattern at least"),
        (("shop", {"read", "query"}, ["in/*"]), "cannot have the right 'query'"),
        (("../shop", {"read"}), "not a source id"),
    ],
)
def test_a_grant_that_says_nothing_clear_is_refused(arguments: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        Grant(*arguments)


def test_a_principal_that_says_nothing_clear_is_refused() -> None:
    bad: Any
    for bad in ({"id": ""}, {"id": "a", "roles": "admin"}, {"id": "a", "grants": ["shop"]}):
        with pytest.raises(OptionError):
            Principal(**bad)


@pytest.mark.parametrize("method", ["identifier_kind", "item_path"])
@pytest.mark.parametrize("error", [ValueError, SystemExit, None])
async def test_a_connector_that_fails_to_classify_grants_nothing(
    tmp_path: Path, method: str, error: type[BaseException] | None
) -> None:
    def fail(_: type[Shelf], identifier: str) -> object:
        if error is not None:
            raise error(identifier)
        return [identifier]

    connector_class = type("Broken", (Shelf,), {method: classmethod(fail)})
    async with registry_of(connector_class) as registry:
        await registry.register_data_source(source("shop"))
        access = access_of(registry, Grant("shop", {"read"}, items=("in/*",)))
        with pytest.raises(PolicyError):
            await access.fetch("shop", "in/a.csv", tmp_path)


def test_the_blocking_access_does_the_same(tmp_path: Path) -> None:
    with blocking.DataSourceRegistry() as registry:
        registry.register_connector_class("memory", Shelf)
        registry.register_data_source(source("shop"))
        access = registry.access(Principal("ann", grants=[Grant("shop", {"read"})]))
        assert access.principal.id == "ann"
        assert len(list(access.iter_items("shop"))) == 3
        assert access.fetch("shop", "in/a.csv", tmp_path).size == 4
        with access.workspace("w") as session:
            assert session.preview("shop", "in/a.csv").columns == ("x",)
        with pytest.raises(DataSourceNotFoundError):
            access.list_items("hr")
        with pytest.raises(DataSourceNotFoundError):
            next(access.iter_items("hr"))


async def test_listing_for_a_principal_reads_granted_sources_only() -> None:
    async with registry_of(AbleConnector) as registry:
        for source_id in ("a", "b", "c"):
            await registry.register_data_source(source(source_id))
        registry.store.list = lambda: pytest.fail("all sources were read")  # type: ignore[method-assign]
        ann = Principal("ann", grants=[Grant(name, {"read"}) for name in ("c", "a", "gone", "c")])
        listed = await registry.access(ann).list_sources()
    assert [config.id for config in listed] == ["a", "c"]
