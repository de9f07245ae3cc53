"""The contract, kept by the connector of local directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasources.testing import ConnectorContract, Subject
from datasources_local_file import LocalFileConnector

ITEMS = {
    "a.csv": b"x,y\n1,2\n3,4\n",
    "reports/2024.csv": b"x\n",
    "reports/old/2023 summary.csv": b"x\n",
    "empty": b"",
    "large.bin": bytes(range(256)) * 12_288,
}


class TestContract(ConnectorContract):
    @pytest.fixture
    def subject(self, tmp_path_factory: pytest.TempPathFactory) -> Subject:
        root = tmp_path_factory.mktemp("source")
        for name, content in ITEMS.items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Subject(
            connector_class=LocalFileConnector,
            type="local_file",
            options={"path": str(root)},
            items=ITEMS,
            missing="reports/2025.csv",
            tables={"a.csv": 2},
            counts_rows=False,
            abilities={"discover", "iter_items", "glob", "preview"},
            unreachable={"path": str(root / "missing")},
        )
