"""Pages of a listing, and cursors that only their principal can use."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from datasources import (
    CredentialManager,
    CursorError,
    DataItem,
    DataSourceRegistry,
    Grant,
    MemoryStore,
    OptionError,
    Page,
    Principal,
)
from datasources.registry.pools import SourceLease
from tests.core.fakes import SeedConnector, registry_of, source

NAMES = [f"{letter}.csv" for letter in "abcdefg"]


class Unpaged(SeedConnector):
    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return [DataItem(name, name) for name in NAMES]


class Paged(Unpaged):
    cursors: ClassVar[list[str | None]] = []

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        raise AssertionError("pages are asked for")

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        self.cursors.append(cursor)
        items = [DataItem(name, name) for name in NAMES if name > (cursor or "")]
        return Page(items[:limit], items[limit - 1].name if len(items) > limit else None)


@pytest.fixture(params=[Unpaged, Paged])
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[DataSourceRegistry]:
    Paged.cursors.clear()
    async with registry_of(request.param) as registry:
        for source_id in ("s", "t"):
            await registry.register_data_source(source(source_id))
        yield registry


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 10_000])
async def test_pages_are_the_listing_in_order(registry: DataSourceRegistry, limit: int) -> None:
    paths: list[str] = []
    cursor = None
    for _ in range(len(NAMES)):
        page = await registry.list_page("s", limit=limit, cursor=cursor)
        paths += [item.path for item in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert cursor is None
    assert paths == NAMES


async def test_a_cursor_does_not_show_what_is_in_it() -> None:
    async with registry_of(Paged) as registry:
        await registry.register_data_source(source())
        pages = [await registry.list_page("s", limit=3) for _ in range(2)]
    assert pages[0].cursor != pages[1].cursor
    for page in pages:
        assert page.cursor is not None
        assert "c.csv" not in page.cursor
        assert Page.from_dict(page.to_dict()) == page


async def test_a_cursor_belongs_to_its_principal_source_and_path(
    registry: DataSourceRegistry,
) -> None:
    grants = [Grant("s", {"read"}), Grant("t", {"read"})]
    ann, bob = (registry.access(Principal(name, grants=grants)) for name in ("ann", "bob"))
    cursor = (await ann.list_page("s", limit=3)).cursor
    again = registry.access(Principal("ann", grants=grants))
    assert (await again.list_page("s", limit=3, cursor=cursor)).items[0].path == "d.csv"
    Paged.cursors.clear()
    for attempt in (
        bob.list_page("s", limit=3, cursor=cursor),
        ann.list_page("t", limit=3, cursor=cursor),
        ann.list_page("s", "/", limit=3, cursor=cursor),
        registry.list_page("s", limit=3, cursor=cursor),
    ):
        with pytest.raises(CursorError, match="not one of this listing"):
            await attempt
    assert Paged.cursors == []


async def test_a_cursor_can_be_used_for_an_hour(
    registry: DataSourceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = (await registry.list_page("s", limit=3)).cursor
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3_500)
    await registry.list_page("s", limit=3, cursor=cursor)
    monkeypatch.setattr(time, "time", lambda: now + 3_700)
    with pytest.raises(CursorError):
        await registry.list_page("s", limit=3, cursor=cursor)


async def test_a_cursor_is_opened_where_the_keys_are_and_nowhere_else() -> None:
    old, new = CredentialManager.generate_key(), CredentialManager.generate_key()

    async def page(keys: list[str], cursor: str | None) -> Page:
        async with registry_of(Paged, credential_manager=CredentialManager(keys)) as registry:
            await registry.register_data_source(source())
            return await registry.list_page("s", limit=3, cursor=cursor)

    cursor = (await page([old], None)).cursor
    assert (await page([new, old], cursor)).items[0].path == "d.csv"
    with pytest.raises(CursorError):
        await page([new], cursor)
    # What encrypts options is another key: a ciphertext of a store is no cursor.
    ciphertext = CredentialManager(old).encrypt_credentials({}).partition(":")[2]
    with pytest.raises(CursorError):
        await page([old], ciphertext)


@pytest.mark.parametrize("stored", ["memory", "sqlite"])
async def test_a_cursor_outlives_changes_of_its_source_and_not_the_source(
    stored: str, tmp_path: Path
) -> None:
    """Another source of the same id must not be listed from where the first one ended."""
    keys = CredentialManager(CredentialManager.generate_key()) if stored == "sqlite" else None
    store = tmp_path / "s.db" if stored == "sqlite" else None
    async with registry_of(Paged, credential_manager=keys, store=store) as registry:
        await registry.register_data_source(source(note="a"))
        cursor = (await registry.list_page("s", limit=3)).cursor
        await registry.update_data_source("s", {"name": "T", "config": {"note": "b"}})
        await registry.register_data_source(registry.get_config("s"), replace=True)
        await registry.pause("s", "why")
        await registry.resume("s")
        assert (await registry.list_page("s", limit=3, cursor=cursor)).items[0].path == "d.csv"
        await registry.unregister_data_source("s")
        await registry.register_data_source(source(note="b"))
        with pytest.raises(CursorError, match="not one of this listing"):
            await registry.list_page("s", limit=3, cursor=cursor)
        cursor = (await registry.list_page("s", limit=3)).cursor
        await registry.register_data_source(source(note="c"), replace=True)
        with pytest.raises(CursorError):
            await registry.list_page("s", limit=3, cursor=cursor)


async def test_a_cursor_is_refused_whose_source_is_registered_anew_before_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with registry_of(Paged) as registry:
        await registry.register_data_source(source())
        cursor = (await registry.list_page("s", limit=3)).cursor
        enter_lease = SourceLease.__aenter__

        async def enter(lease: SourceLease) -> Any:
            await registry.unregister_data_source("s")
            await registry.register_data_source(source())
            return await enter_lease(lease)

        monkeypatch.setattr(SourceLease, "__aenter__", enter)
        Paged.cursors.clear()
        with pytest.raises(CursorError, match="not one of this listing"):
            await registry.list_page("s", limit=3, cursor=cursor)
        assert Paged.cursors == []
        assert (await registry.list_page("s", limit=3)).items


@pytest.mark.parametrize("cursor", [5, b"gAAAA", [], True])
async def test_what_is_no_text_is_no_cursor(registry: DataSourceRegistry, cursor: Any) -> None:
    with pytest.raises(CursorError):
        await registry.list_page("s", cursor=cursor)


async def test_a_cursor_of_a_connector_that_has_lost_the_ability_is_refused() -> None:
    keys, store = CredentialManager(), MemoryStore()
    async with registry_of(Paged, credential_manager=keys, store=store) as registry:
        await registry.register_data_source(source())
        cursor = (await registry.list_page("s", limit=3)).cursor
    async with registry_of(Unpaged, credential_manager=keys, store=store) as registry:
        with pytest.raises(CursorError):
            await registry.list_page("s", limit=3, cursor=cursor)


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
async def test_any_text_is_no_cursor(text: str) -> None:
    async with registry_of(Paged) as registry:
        await registry.register_data_source(source())
        with pytest.raises(CursorError):
            await registry.list_page("s", cursor=text)


async def test_every_bit_of_a_cursor_counts() -> None:
    async with registry_of(Paged) as registry:
        await registry.register_data_source(source())
        cursor = (await registry.list_page("s", limit=3)).cursor
        assert cursor is not None
        for index in range(len(cursor)):
            changed = "A" if cursor[index] != "A" else "B"
            forged = cursor[:index] + changed + cursor[index + 1 :]
            # Base64 has unused bits, which a changed last letter may touch alone.
            try:
                page = await registry.list_page("s", limit=3, cursor=forged)
            except CursorError:
                continue
            assert page.items[0].path == "d.csv"


@pytest.mark.parametrize("limit", [0, -1, 10_001, True, 1.5])
async def test_a_limit_out_of_range_is_refused(registry: DataSourceRegistry, limit: Any) -> None:
    with pytest.raises(OptionError, match="'limit' must be between 1 and 10000"):
        await registry.list_page("s", limit=limit)


async def test_items_that_are_not_granted_are_left_out_of_pages(
    registry: DataSourceRegistry,
) -> None:
    access = registry.access(Principal("ann", grants=[Grant("s", {"read"}, items=["[ag]*"])]))
    first = await access.list_page("s", limit=4)
    assert [item.path for item in first.items] == ["a.csv"]
    second = await access.list_page("s", limit=4, cursor=first.cursor)
    assert ([item.path for item in second.items], second.cursor) == (["g.csv"], None)
