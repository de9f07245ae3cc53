"""Code in a sandbox stores files in sources that it may write to, and in no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources import DataSourceConfig, DataSourceRegistry, Grant, Principal
from datasources_agents.sandbox import Runner

pytestmark = pytest.mark.usefixtures("sandbox")

CODE = """
import datasources_client as ds
open("result.csv", "w").write("id\\n1\\n")
receipt = ds.upload("results", "public/result.csv", "result.csv")
print(receipt.size)
for source in ("lake", "nothing"):
    try:
        ds.upload(source, "result.csv", "result.csv")
    except ds.DataSourceError as error:
        print(error.slug)
"""


async def test_file_is_stored_where_the_grant_allows_it(
    registry: DataSourceRegistry, lake: Path, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    for name, path, options in (
        ("lake", lake, {}),
        ("results", tmp_path / "results", {"writable": True}),
    ):
        await registry.register_data_source(
            DataSourceConfig(name, "local_file", name, {"path": str(path), **options})
        )
    grants = [Grant("lake", {"read"}), Grant("results", {"write"})]
    async with registry.access(Principal("ann", grants=grants)).workspace("work") as session:
        result = await Runner().run(CODE, session)
    assert result.output == b"5\nnot-allowed\nsource-not-found\n"
    assert (tmp_path / "results/public/result.csv").read_bytes() == b"id\n1\n"
