"""Dataframes are stored in sources that take uploads."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from datasources import ItemExistsError, UnsupportedError
from datasources_dask import read_source, write_to
from tests.dask.conftest import Shop, rows_of
from tests.dask.test_reading import SIX

pytestmark = pytest.mark.usefixtures("cluster")


def test_each_partition_becomes_a_file(shop: Shop, lake: tuple[str, Path]) -> None:
    rows = shop.fill("t")
    source_id, path = lake
    with read_source(shop.id, "t", **SIX) as frame:
        items = write_to(frame, source_id, "export/t")
    names = [f"export/t/part-{number:05}.parquet" for number in range(6)]
    assert [item.path for item in items] == names
    assert [item.size for item in items] == [(path / name).stat().st_size for name in names]
    table = pq.read_table(path / "export" / "t")
    assert rows_of(table.to_pandas()) == rows
    assert table.schema.names == ["i", "text", "amount"]


def test_a_folder_with_items_is_not_written_to(shop: Shop, lake: tuple[str, Path]) -> None:
    shop.fill("t", 1)
    source_id, path = lake
    (path / "export").mkdir()
    (path / "export" / "other.txt").write_text("kept")
    refused = pytest.raises(ItemExistsError, match=r"'export' .* has items already")
    with read_source(shop.id, "t") as frame, refused:
        write_to(frame, source_id, "export/")
    assert [file.name for file in (path / "export").iterdir()] == ["other.txt"]


def test_a_source_that_takes_no_uploads_says_so(shop: Shop) -> None:
    shop.fill("t", 1)
    with read_source(shop.id, "t") as frame, pytest.raises(UnsupportedError):
        write_to(frame, shop.id, "export")
