"""Options, shareable, and every ability with the arguments that it first had."""
# mypy: ignore-errors

import asyncio
import csv
import io
from pathlib import Path

from pydantic import Field, SecretStr

from datasources import (
    AuthenticationError,
    ColumnStatistics,
    ConnectorOptions,
    DataItem,
    DataSourceConnector,
    ItemNotFoundError,
    Preview,
    Workspace,
    glob_regex,
    preview_text,
)

DRAWERS = {}


class OldCabinetOptions(ConnectorOptions):
    host: str = Field(description="Where it stands.", examples=["cabinet.example.com"])
    token: SecretStr = Field(description="Opens it.", examples=["${old:token}"])

    sample_identifiers = (("numbers.csv", "a table"),)

    def hosts(self):
        return [self.host]


class OldCabinet(DataSourceConnector):
    type = "old_cabinet"
    api_version = 1
    options_class = OldCabinetOptions
    shareable = True

    async def connect(self):
        if self.options.token.get_secret_value() != "from the old plugin":
            raise AuthenticationError("the token is refused", code="28P01")
        self._connection = DRAWERS
        self._connection.setdefault("numbers.csv", b"n,text\n1,one\n2,two\n3,three\n")
        return True

    async def disconnect(self):
        self._connection = None

    async def test_connection(self):
        return self._connection is not None

    async def list_items(self, path=None):
        return [item async for item in self.iter_items(path)]

    async def fetch_data(self, identifier, workspace):
        target = Workspace.of(workspace)
        target.require_format("csv", None)
        lines = self._content(identifier).splitlines(keepends=True)
        kept = lines if target.limits.max_rows is None else lines[: target.limits.max_rows + 1]
        with target.create(identifier, flat=False, size=None) as file:
            file.write(b"".join(kept))
            file.rows, file.truncated = len(kept) - 1, len(kept) < len(lines)
            file.version = "v1"
        return file.path

    async def get_metadata(self, identifier):
        return {"size": len(self._content(identifier))}

    async def iter_items(self, path=None):
        for name, content in self._connection.items():
            yield DataItem(name=name, path=name, size=len(content))

    async def glob_items(self, pattern):
        return [i async for i in self.iter_items(None) if glob_regex(pattern).fullmatch(i.path)]

    async def preview(self, identifier, rows=10):
        content = await asyncio.to_thread(self._content, identifier)
        shown = preview_text(identifier, content, rows, complete=True)
        return Preview(shown.columns, shown.rows, truncated=shown.truncated)

    async def statistics(self, identifier):
        rows = list(csv.DictReader(io.StringIO(self._content(identifier).decode())))
        numbers = [int(row["n"]) for row in rows]
        mean = sum(numbers) / len(numbers)
        return {"n": ColumnStatistics(len(numbers), 0, min(numbers), max(numbers), mean)}

    async def upload_file(self, local_path, blob_name=None, overwrite=True):
        name = blob_name or Path(local_path).name
        self._connection[name] = Path(local_path).read_bytes()
        return DataItem(name, name, len(self._connection[name]))

    async def read_table(self, identifier):
        return self._content(identifier)

    def _content(self, identifier):
        if identifier not in self._connection:
            raise ItemNotFoundError(f"there is no {identifier!r}")
        return self._connection[identifier]
