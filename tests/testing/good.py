"""A connector that keeps the whole contract, over items in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr

from datasources import (
    AuthenticationError,
    BoundQuery,
    ColumnStatistics,
    ConnectError,
    ConnectorOptions,
    DataFetchError,
    DataItem,
    DataSourceConfig,
    DataSourceConnector,
    ItemNotFoundError,
    ItemStream,
    Limits,
    Option,
    OptionError,
    Page,
    Preview,
    Split,
    SplitPlan,
    UnsupportedError,
    Workspace,
    byte_range,
    glob_regex,
    items_below,
)
from datasources.testing import Subject

TOKEN = "open-sesame-4711"
ITEMS = {
    "a.csv": b"x,y\n1,2\n3,4\n5,6\n",
    "folder/b.csv": b"x,y\n7,8\n9,10\n",
    "empty": b"",
}
QUERIES = {
    "all of a.csv": b"x,y\n1,2\n3,4\n5,6\n",
    "nothing of a.csv": b"x,y\n",
}
MANY = {f"many/{number}.csv": b"" for number in range(25)}
STORE: dict[str, bytes] = {}
"""What the source holds now; `good_subject` fills it."""
TOKENS: list[str] = []
"""The tokens that the second account had; the last is valid."""
RUNNING: list[str] = []
"""The slow and large fetches that the source works at."""
ABILITIES = {
    "iter_items",
    "pages",
    "parameters",
    "discover",
    "query_metadata",
    "query_statistics",
    "glob",
    "preview",
    "statistics",
    "upload",
    "stream",
    "read_table",
    "splits",
    "rights",
}


class GoodOptions(ConnectorOptions):
    host: str = Field(description="Where the items are.", examples=["items.example.com"])
    shelf: str | None = Option(None, help="The shelf that holds the items.", discovered=True)
    token: SecretStr = Field(description="Secret token.", examples=["${env:TOKEN}"])

    sample_identifiers = (("a.csv", "a table"),)

    def hosts(self) -> list[str]:
        return [self.host]

    def destination(self) -> dict[str, Any]:
        return {"host": self.host}


class GoodTable:
    """As much of an Arrow table as is asked of it."""

    def __init__(self, columns: list[str], rows: list[tuple[str, ...]]) -> None:
        self.column_names, self.num_rows = columns, len(rows)


@dataclass(frozen=True)
class GoodSchema:
    """As much of an Arrow schema as is asked of it."""

    names: list[str]


@dataclass(frozen=True)
class GoodBatch:
    """As much of a record batch as is asked of it."""

    schema: GoodSchema
    num_rows: int


class GoodConnector(DataSourceConnector):
    __module__ = "datasources_kit"  # the package that `kit` installs
    type = "kit"
    options_class = GoodOptions
    options: GoodOptions
    shareable = True

    def __init__(self, config: DataSourceConfig) -> None:
        super().__init__(config)
        self._left = asyncio.Event()

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        return "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        return identifier

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        await asyncio.sleep(0)
        if options["token"] != TOKEN:
            raise AuthenticationError("the token is refused")
        return {"shelf": ["first", "second"]}

    async def connect(self) -> bool:
        if self._connection is None:
            await asyncio.sleep(0)
            if self.options.host == "nowhere":
                raise ConnectError("nobody answers at 'nowhere'")
            self._admit()
            self._left = asyncio.Event()
            self._connection = os.open(os.devnull, os.O_RDONLY)
        return True

    async def disconnect(self) -> None:
        opened, self._connection = self._connection, None
        if opened is not None:
            self._left.set()
            os.close(opened)

    def _admit(self) -> None:
        if self.options.token.get_secret_value() not in (TOKEN, *TOKENS[-1:]):
            raise AuthenticationError("the token is refused")

    async def test_connection(self) -> bool:
        return self._connection is not None

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        items = [
            DataItem(p.split("/")[-1], p, len(c), 1.0, version=self._version(p, c))
            for p, c in (await self._all()).items()
        ]
        return items_below(items, path)

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        target = Workspace.of(workspace)
        target.require_format(None)
        if identifier in ("slow", "large.csv"):
            return await self._fetch_heavy(identifier, target)
        content = await self._content(identifier)
        lines = content.splitlines(keepends=True)
        most = target.limits.max_rows
        with target.create(identifier) as file:
            file.version = self._version(identifier, content)
            if identifier.endswith(".csv"):
                kept = lines if most is None else lines[: most + 1]
                file.rows, file.truncated = len(kept) - 1, len(kept) < len(lines)
                content = b"".join(kept)
            for start in range(0, len(content), 5):
                file.write(content[start : start + 5])
                await asyncio.sleep(0)
        return file.path

    async def _fetch_heavy(self, identifier: str, target: Workspace) -> str:
        """Wait for ever or write for ever, until the source is disconnected."""
        await self._all()
        RUNNING.append(identifier)
        try:
            if identifier == "slow":
                await self._left.wait()
            with target.create(identifier) as file:
                while not self._left.is_set():
                    most = target.limits.max_rows
                    if most is not None and (file.rows or 0) >= most:
                        file.truncated = True
                        return file.path
                    file.write(b"x\n")
                    file.rows = (file.rows or 0) + 1
                    await asyncio.sleep(0)
                raise ConnectError("the source was disconnected")
        finally:
            RUNNING.remove(identifier)

    async def open_stream(
        self,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> ItemStream:
        content = await self._content(identifier)
        if format is not None:
            raise UnsupportedError("items are streamed as they are stored")
        first, stop = byte_range(len(content), start, end)

        async def chunks() -> AsyncIterator[bytes]:
            for position in range(first, stop, 5):
                await asyncio.sleep(0)
                yield content[position : min(stop, position + 5)]

        return ItemStream(chunks(), size=stop - first)

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        return {"path": identifier, "size": len(await self._content(identifier))}

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        for item in await self.list_items(path):
            yield item

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        if cursor is not None and not cursor.startswith("after "):
            raise OptionError("the cursor is none of this listing")
        last = (cursor or "after ").removeprefix("after ")
        items = sorted(await self.list_items(path), key=lambda item: item.path)
        following = [item for item in items if item.path > last]
        more = len(following) > limit
        return Page(following[:limit], f"after {following[limit - 1].path}" if more else None)

    async def glob_items(self, pattern: str) -> list[DataItem]:
        found = [i for i in await self.list_items() if glob_regex(pattern).fullmatch(i.path)]
        return sorted(found, key=lambda item: item.path)

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        columns, found = await self._rows(identifier)
        return Preview(tuple(columns), found[:rows], truncated=len(found) > rows)

    async def fetch_query(self, query: BoundQuery, workspace: str) -> str:
        with Workspace.of(workspace).create(f"{query.name}.csv") as file:
            file.write(f"value\n{query.values['value']}\n".encode())
            file.rows = 1
        return file.path

    async def preview_query(self, query: BoundQuery, rows: int = 10) -> Preview:
        return Preview(("value",), [(query.values["value"],)][:rows], truncated=rows < 1)

    async def describe_query(self, query: BoundQuery) -> dict[str, Any]:
        return {"columns": [{"name": "value", "type": "text"}]}

    async def query_statistics(self, query: BoundQuery) -> dict[str, ColumnStatistics]:
        return {}

    async def excess_rights(self) -> list[str]:
        return ["the account may write"]

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        columns, rows = await self._rows(identifier)
        return {
            name: ColumnStatistics(len(v), 0, min(v), max(v), sum(v) / len(v))
            for name, v in zip(
                columns, [list(map(int, c)) for c in zip(*rows, strict=True)], strict=True
            )
        }

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        name = blob_name or Path(local_path).name
        if name in await self._all() and not overwrite:
            raise DataFetchError(f"{name!r} exists")
        STORE[name] = Path(local_path).read_bytes()
        return DataItem(name, name, len(STORE[name]))

    async def read_table(self, identifier: str) -> Any:
        return GoodTable(*await self._rows(identifier))

    @asynccontextmanager
    async def plan_splits(
        self,
        identifier: str,
        *,
        target_bytes: int,
        max_splits: int,
        key: str | None = None,
        consistent: bool = True,
    ) -> AsyncIterator[SplitPlan]:
        columns, rows = await self._rows(identifier)
        count = min(max_splits, len(rows))
        splits = [
            Split(self.config.id, identifier, index, count, {"first": index, "step": count})
            for index in range(count)
        ]
        yield SplitPlan(GoodSchema(columns), splits)

    async def read_split(
        self, split: Split, columns: Sequence[str] | None = None
    ) -> AsyncIterator[GoodBatch]:
        names, rows = await self._rows(split.identifier)
        schema = GoodSchema(names if columns is None else list(columns))
        for _ in rows[split.part["first"] :: split.part["step"]]:
            await asyncio.sleep(0)
            yield GoodBatch(schema, 1)

    def _version(self, path: str, content: bytes) -> str | None:
        """Return the version of the one item that changes."""
        return content[:20].decode() if path == "changing" else None

    async def _all(self) -> dict[str, bytes]:
        if self._connection is None:
            raise ConnectError("the source is not connected")
        await asyncio.sleep(0)
        self._admit()
        return MANY if self.options.host == "many.example.com" else STORE

    async def _content(self, identifier: str) -> bytes:
        try:
            return {**await self._all(), **QUERIES}[identifier]
        except KeyError:
            raise ItemNotFoundError(f"there is no item {identifier!r}") from None

    async def _rows(self, identifier: str) -> tuple[list[str], list[tuple[str, ...]]]:
        head, *rows = (await self._content(identifier)).decode().splitlines()
        return head.split(","), [tuple(row.split(",")) for row in rows]


def change() -> tuple[str, bytes]:
    number = int(STORE.get("changing", b"0").split()[0]) + 1
    STORE["changing"] = b"%d \n" % number * 40
    return "changing", STORE["changing"]


def rotate() -> dict[str, str]:
    TOKENS.append(f"second-account-{len(TOKENS)}")
    return {"host": "items.example.com", "token": TOKENS[-1]}


def good_subject(
    connector_class: type[DataSourceConnector] = GoodConnector,
    abilities: Collection[str] = frozenset(ABILITIES),
) -> Subject:
    """Fill the store and return the subject of the good connector, or of one made from it."""
    STORE.clear()
    STORE.update(ITEMS)
    RUNNING.clear()
    options = {"host": "items.example.com", "token": TOKEN, "shelf": "first"}
    return Subject(
        connector_class=connector_class,
        type="kit",
        options=options,
        items=ITEMS,
        missing="folder/missing.csv",
        tables={"a.csv": 3, "folder/b.csv": 2},
        abilities=abilities,
        wrong_credentials={**options, "token": "another-token"},
        unreachable={**options, "host": "nowhere"},
        connect_within=0.5,
        queries=QUERIES,
        writes=["drop a.csv", "empty a.csv"],
        slow="slow",
        large="large.csv",
        running=lambda: len(RUNNING),
        many=MANY,
        many_options={**options, "host": "many.example.com"},
        change=change,
        rotate=rotate,
        upload_size=1000,
        echo=":value",
    )


def kit(
    folder: Path,
    *,
    type_name: str = "kit",
    package: str = "datasources_kit",
    plugin: str = "",
    requires: str = "datasources>=0.1,<1",
    summary: str = "A kit.",
    typed: bool = True,
) -> None:
    """Install a distribution of the good connector, or one made badly, into a directory."""
    name = package.replace("_", "-")
    info = folder / f"{package}-1.0.dist-info"
    (folder / package).mkdir(parents=True)
    info.mkdir()
    (folder / package / "__init__.py").write_text("")
    (folder / package / "plugin.py").write_text(
        f"{plugin}\n"
        "from datasources import hookimpl\n\n@hookimpl\ndef datasources_connectors():\n"
        "    from tests.testing.good import GoodConnector\n    return [GoodConnector]\n"
    )
    if typed:
        (folder / package / "py.typed").write_text("")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\nRequires-Python: >=3.11\n"
        f"License-Expression: MIT\nRequires-Dist: {requires}\n{summary and f'Summary: {summary}'}\n"
    )
    (info / "entry_points.txt").write_text(
        f"[datasources.connectors]\n{type_name} = {package}.plugin\n"
    )
    (info / "RECORD").write_text("")
