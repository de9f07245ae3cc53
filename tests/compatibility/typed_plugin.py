"""A connector with an ability, checked strictly against the installed wheels."""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import Field, SecretStr

from datasources import (
    ConnectorOptions,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    ItemNotFoundError,
    Operation,
    Preview,
    SupportsPreview,
    csv_file,
    hookimpl,
    run_in_thread,
)


class ShelfOptions(ConnectorOptions):
    """Whose shelf."""

    owner: str = Field(description="Whose shelf it is.", examples=["ann"])
    token: SecretStr | None = Field(default=None, description="Opens the shelf.")

    def hosts(self) -> list[str]:
        return [f"{self.owner}.example.com"]


class ShelfConnector(DataSourceConnector):
    """Serves the rows of a dictionary."""

    type = "shelf"
    api_version = 1
    options_class = ShelfOptions
    options: ShelfOptions
    shareable = True

    def __init__(self, config: DataSourceConfig) -> None:
        super().__init__(config)
        assert_type(self.pool_config.max_size, int)

    async def connect(self) -> bool:
        self._connection = {"books": [(self.options.owner, 1), ("other", None)]}
        return True

    async def disconnect(self) -> None:
        self._connection = None

    async def test_connection(self) -> bool:
        return self._connection is not None

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        return [DataItem(name, name) for name in self.require_connection()]

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        rows = await run_in_thread(self._rows, identifier)
        assert_type(rows, list[tuple[object, ...]])
        with csv_file(workspace, identifier, ["name", "count"]) as file:
            file.write_rows(rows)
        assert_type(file.path, str)
        return file.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return {"rows": len(self._rows(identifier))}

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return the first rows."""
        found = self._rows(identifier)
        return Preview(("name", "count"), found[:rows], truncated=len(found) > rows)

    def _rows(self, identifier: str) -> list[tuple[object, ...]]:
        shelf: dict[str, list[tuple[object, ...]]] = self.require_connection()
        if identifier not in shelf:
            raise ItemNotFoundError(f"there is no {identifier!r}", code="404")
        return shelf[identifier]


def abilities(connector: ShelfConnector) -> SupportsPreview:
    """Have the signature compared with the protocol's."""
    return connector


def wrong(config: DataSourceConfig) -> None:
    """What a type checker must refuse: were a name untyped, the comment would be one too many."""
    DataItem(7, "seven")  # type: ignore[arg-type]
    ShelfConnector()  # type: ignore[call-arg]
    DataSourceConnector(config)  # type: ignore[abstract]


@hookimpl
def datasources_connectors() -> list[type[DataSourceConnector]]:
    return [ShelfConnector]


@hookimpl
def datasources_operation_started(operation: Operation) -> None:
    assert_type(operation.source_id, str)
