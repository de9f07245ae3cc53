"""All that a request refers to is fetched, or nothing of it is there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from datasources import Grant, Limits, Principal
from datasources_agents import (
    Column,
    Manifest,
    Reference,
    ReferencesError,
    ResolveLimits,
    resolve,
)
from datasources_agents.resolving import _Resolver
from tests.agents.conftest import ANN, ORDERS, SLOW, House, running
from tests.waiting import clock_ahead, wait_until

QUERY = "SELECT id, total FROM orders ORDER BY id"


async def failures(
    house: House, *references: Reference, **options: Any
) -> list[tuple[int, str, str]]:
    """Resolve references that fail; check that the workspace is left empty."""
    async with house.access(options.pop("principal", ANN)).workspace("w") as workspace:
        with pytest.raises(ReferencesError) as caught:
            await resolve(references, workspace, options.pop("access", house.access()), **options)
        assert [path for path in Path(workspace.path).rglob("*") if path.is_file()] == []
    return [(each.status, each.slug, each.detail) for each in caught.value.failures]


async def test_query_blob_and_file_are_described_in_a_manifest(house: House) -> None:
    references = [
        Reference("shop", QUERY),
        Reference("blobs", "2026/orders.csv"),
        Reference("shop", "public.orders", "parquet"),
    ]
    async with house.access().workspace("w") as workspace:
        manifest = await resolve(references, workspace, house.access())
        query, blob, table = manifest.files
        for each in manifest.files:
            content = Path(workspace.path, each.path).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (each.bytes, each.sha256)
        stored = json.loads(Path(workspace.path, ".datasources/manifest.json").read_text())
    assert stored == manifest.to_dict()
    assert Manifest.from_dict(stored).to_dict() == stored
    assert (query.source, query.item, query.rows, query.truncated) == ("shop", QUERY, 5, False)
    assert query.columns == [Column("id", "integer"), Column("total", "number")]
    assert query.first_rows == [["1", "0.5"], ["2", "1"], ["3", "1.5"]]
    assert (blob.path, blob.rows, blob.format) == ("2026/orders.csv", None, None)
    assert (table.path, table.format) == ("public.orders.parquet", "parquet")
    types = ["integer", "number", "date", "text"]
    assert [column.type for column in table.columns] == types
    assert table.first_rows[0] == [1, 0.5, "2026-01-02", "n1"]


async def test_row_limit_is_told(house: House) -> None:
    access = house.registry.access(ANN, limits=Limits(max_rows=2))
    async with access.workspace("w") as workspace:
        manifest = await resolve([Reference("shop", QUERY)], workspace, access)
    assert [(file.rows, file.truncated) for file in manifest.files] == [(2, True)]
    assert '"truncated": true' in manifest.prompt()


async def test_items_of_one_name_from_two_sources_are_both_there(
    house: House, tmp_path: Path
) -> None:
    (house.lake / "2026").mkdir()
    (house.lake / "2026/orders.csv").write_text("id\n7\n")
    references = [Reference(source, "2026/orders.csv") for source in ("blobs", "lake")]
    manifest = await resolve(references, tmp_path / "w", house.access())
    assert [file.path for file in manifest.files] == ["2026/orders.csv", "lake/2026/orders.csv"]
    assert (tmp_path / "w/2026/orders.csv").read_text() == ORDERS
    assert (tmp_path / "w/lake/2026/orders.csv").read_text() == "id\n7\n"


async def test_unknown_and_not_granted_are_one_failure_and_contact_nothing(house: House) -> None:
    references = [Reference(s, "orders.csv", None, "#/x") for s in ("secret", "no-such", "no such")]
    told = [await failures(house, reference) for reference in references]
    assert told[0] == told[1] == told[2]
    assert told[0] == [
        (422, "reference-invalid", "there is no such item, or it is not granted to you")
    ]
    narrow = Principal("bob", grants=[Grant("lake", {"read"}, items=["public/*"])])
    access = house.access(narrow)
    for item in ("orders.csv", "no-such.csv", "public/no-such.csv"):
        reference = Reference("lake", item)
        assert await failures(house, reference, principal=narrow, access=access) == told[0]
    assert await failures(house, Reference("blobs", "no-such.csv")) == told[0]


async def test_all_failures_are_told_and_nothing_is_left(house: House) -> None:
    (house.lake / "large.csv").write_bytes(b"x" * 2000)
    access = house.registry.access(ANN, limits=Limits(max_bytes=1000))
    references = [
        Reference("lake", "orders.csv"),
        Reference("lake", "large.csv"),
        Reference("shop", "SELECT nothing FROM orders"),
        Reference("blobs", "gone.csv"),
        Reference("shop", "DELETE FROM orders"),
    ]
    told = await failures(house, *references, access=access)
    assert [(status, slug) for status, slug, _ in told] == [
        (413, "limit-exceeded"),
        (424, "fetch-failed"),
        (422, "reference-invalid"),
        (424, "not-allowed"),
    ]
    assert 'column "nothing" does not exist' in told[1][2]


async def test_format_that_the_source_does_not_have_is_422(house: House) -> None:
    told = await failures(house, Reference("shop", "public.orders", "xlsx"))
    assert [(status, slug) for status, slug, _ in told] == [(422, "option-invalid")]
    assert told[0][2] == "'xlsx' is not a format of this source; possible: csv, parquet"


async def test_reference_without_a_grant_keeps_all_others_from_being_fetched(house: House) -> None:
    reads = [Reference("shop", SLOW), Reference("secret", "orders.csv"), Reference("lake", "x\0")]
    async with asyncio.timeout(30):
        told = await failures(house, *reads)
    assert [status for status, _, _ in told] == [422]


async def test_reference_that_hangs_ends_at_the_limit_and_its_query_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Reference] = []
    fetch = _Resolver._fetch

    async def noted(self: _Resolver, reference: Reference, *arguments: Any) -> None:
        await fetch(self, reference, *arguments)
        done.append(reference)

    monkeypatch.setattr(_Resolver, "_fetch", noted)
    references = [
        Reference("shop", SLOW),
        Reference("lake", "orders.csv"),
        Reference("shop", "SELECT nope"),
    ]
    call = asyncio.create_task(failures(house, *references, limits=ResolveLimits(timeout=60)))
    await wait_until(lambda: len(done) == 2 and running(house.database) == 1)
    with clock_ahead(61):
        told = await call
    assert [(status, slug) for status, slug, _ in told] == [(424, "timeout"), (424, "fetch-failed")]
    assert told[0][2] == "was not fetched within 60 seconds"
    await wait_until(lambda: running(house.database) == 0)


async def test_cancelled_call_leaves_no_query_running(house: House) -> None:
    async with house.access().workspace("w") as workspace:
        call = asyncio.create_task(resolve([Reference("shop", SLOW)], workspace, house.access()))
        await wait_until(lambda: running(house.database) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await wait_until(lambda: running(house.database) == 0)


async def test_four_references_are_fetched_at_once(house: House) -> None:
    references = [Reference("shop", f"{SLOW} -- {number}") for number in range(6)]
    access = house.registry.access(ANN, concurrency=None)
    async with access.workspace("w") as workspace:
        call = asyncio.create_task(resolve(references, workspace, access))
        await wait_until(lambda: running(house.database) == 4)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_files_of_earlier_calls_are_used_again_while_they_hold(
    house: House, tmp_path: Path
) -> None:
    references = [Reference("blobs", "2026/orders.csv"), Reference("lake", "orders.csv")]
    first = await resolve(references, tmp_path, house.access())
    before = (tmp_path / "2026/orders.csv").stat().st_ino
    second = await resolve(references[:1], tmp_path, house.access(), earlier=first.files)
    assert sorted(second.files, key=lambda f: f.path) == sorted(first.files, key=lambda f: f.path)
    assert (tmp_path / "2026/orders.csv").stat().st_ino == before

    house.container.upload_blob("2026/orders.csv", "id\n5\n", overwrite=True)
    third = await resolve(references[:1], tmp_path, house.access(), earlier=first.files)
    assert (tmp_path / "2026/orders.csv").read_text() == "id\n5\n"
    assert len(third.files) == 2

    (tmp_path / "orders.csv").write_text("changed by code")
    fourth = await resolve([], tmp_path, house.access(), earlier=third.files)
    assert [file.path for file in fourth.files] == ["2026/orders.csv"]

    access = house.access(Principal("ann", grants=[Grant("lake", {"read"})]))
    assert await resolve([], tmp_path, access, earlier=third.files) == Manifest([])
    assert not (tmp_path / "2026/orders.csv").exists()


async def test_link_in_the_workspace_is_not_followed(house: House, tmp_path: Path) -> None:
    outside, workspace = tmp_path / "outside", tmp_path / "w"
    outside.mkdir()
    workspace.mkdir()
    for name in (".datasources", "2026"):
        (workspace / name).symlink_to(outside)
    for reference in (Reference("lake", "orders.csv"), Reference("blobs", "2026/orders.csv")):
        with pytest.raises(ReferencesError, match="link"):
            await resolve([reference], workspace, house.access())
    assert os.listdir(outside) == []
    assert not (workspace / "orders.csv").exists()


async def test_references_are_ten_at_most(house: House) -> None:
    references = [Reference("lake", f"{number}.csv") for number in range(11)]
    assert [each[0] for each in await failures(house, *references)] == [422]
