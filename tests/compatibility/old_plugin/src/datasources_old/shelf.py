"""Six methods and nothing else: no options, no abilities, files written by hand."""
# ruff: noqa: ASYNC230, UP006, UP035, UP045
# mypy: ignore-errors

import os
from typing import Any, Dict, List, Optional

from datasources import DataItem, DataSourceConfig, DataSourceConnector


class OldShelf(DataSourceConnector):
    type = "old_shelf"

    def __init__(self, config: DataSourceConfig):
        super().__init__(config)
        self.connection = None
        self.books = {}

    async def connect(self) -> bool:
        self.connection = self.config.config["password"]
        self.books = {"emma.csv": "title,pages\nEmma,474\n", "notes/plan.txt": "read\n"}
        return True

    async def disconnect(self) -> None:
        self.connection = None

    async def test_connection(self) -> bool:
        return self.connection is not None

    async def list_items(self, path: Optional[str] = None) -> List[DataItem]:
        return [
            DataItem(os.path.basename(name), name, len(text), 1.0, {"kind": "book"})
            for name, text in self.books.items()
            if not path or name.startswith(path)
        ]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        local_path = os.path.join(workspace, identifier)
        os.makedirs(os.path.dirname(local_path), exist_ok=True)
        with open(local_path, "w") as file:
            file.write(self.books[identifier])
        return local_path

    async def get_metadata(self, identifier: str) -> Dict[str, Any]:
        return {"size": len(self.books[identifier])}
