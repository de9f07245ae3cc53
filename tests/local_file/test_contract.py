"""The contract, kept by the connector of local directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources.testing import ConnectorContract, Subject
from datasources_local_file import LocalFileConnector
from tests.parquet import parquet

ITEMS = {
    "a.csv": b"x,y\n1,2\n3,4\n",
    "reports/2024.csv": b"x\n",
    "reports/old/2023 summary.csv": b"x\n",
    "empty": b"",
    "large.bin": bytes(range(256)) * 12_288,
    "numbers.parquet": parquet(n=[3, None, 5], x=[0.5, 1.5, None]),
}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of many files."""
    folder = tmp_path_factory.mktemp("large") / "many"
    folder.mkdir()
    for number in range(2_000):
        (folder / str(number)).touch()
    return folder


def change(root: Path) -> tuple[str, bytes]:
    """Write other bytes of the same number into a file, in place."""
    path = root / "changing.bin"
    former = path.read_bytes()[:1] if path.exists() else b"\0"
    content = bytes([former[0] + 1]) * (5 << 20)
    path.write_bytes(content)
    return path.name, content


class TestContract(ConnectorContract):
    connector_class = LocalFileConnector

    @pytest.fixture
    def subject(self, tmp_path_factory: pytest.TempPathFactory, many: Path) -> Subject:
        root = tmp_path_factory.mktemp("source")
        for name, content in ITEMS.items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        with (root / "heavy.bin").open("wb") as file:
            file.truncate(64 << 20)
        return Subject(
            connector_class=LocalFileConnector,
            type="local_file",
            options={"path": str(root), "writable": True},
            items=ITEMS,
            missing="reports/2025.csv",
            tables={"a.csv": 2, "numbers.parquet": 3},
            counts_rows=False,
            abilities={
                "discover",
                "iter_items",
                "pages",
                "glob",
                "preview",
                "statistics",
                "stream",
                "splits",
                "upload",
            },
            unreachable={"path": str(root / "missing")},
            large="heavy.bin",
            many=[f"many/{number}" for number in range(2_000)],
            many_options={"path": str(many.parent)},
            change=lambda: change(root),
        )
