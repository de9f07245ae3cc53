"""Methods that plan and read splits: parts of one item, for several readers."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import Any

from datasources_client.content import Content
from datasources_client.errors import OptionError, ResponseError
from datasources_client.models import Plan
from datasources_client.reading import read_model
from datasources_client.requests import Requests, decode, encode, source_path
from datasources_client.responses import Response

_JSON = {"Content-Type": "application/json"}
_LARGEST_PLAN = 64 << 20  # bytes
_BLOCK = 256 * 1024  # bytes that pyarrow gets at once at most


class SplitMethods(Requests):
    """The routes below `/sources/{id}` that plan and read splits."""

    _content_timeout: float

    @contextmanager
    def plan(
        self,
        source: str,
        item: str,
        *,
        target_bytes: int = 128 << 20,
        max_splits: int = 64,
        key: str | None = None,
        consistent: bool = True,
        max_age: float | None = None,
    ) -> Iterator[Plan]:
        """Divide an item into splits for a block, in which readers may read them anywhere.

        All splits together are the item as it was on entering. A split of a database that is read
        after the block is an error, and so is any that is read by the token of the plan.

        Args:
            source: The id of the source.
            item: The path of an item, or a query.
            target_bytes: Bytes that a split should have, as far as they can be estimated.
            max_splits: The most splits.
            key: A column whose ranges divide what cannot be divided otherwise: a query, a view.
            consistent: False to accept splits of different states of the source.
            max_age: Seconds that the plan may last; None for as long as the server admits.
        """
        body = {
            "item": item,
            "target_bytes": target_bytes,
            "max_splits": max_splits,
            "key": key,
            "consistent": consistent,
            "max_age": max_age,
        }
        with closing(self._post(f"{source_path(source)}/plan", body)) as response:
            chunks = response.chunks()  # kept until the end, as leaving them closes the response
            yield read_model(Plan, decode(_first_line(chunks)))

    def open_split(self, split: Mapping[str, Any], columns: Sequence[str] | None = None) -> Content:
        """Open the rows of a split as an Arrow IPC stream, which has no byte if there are no rows.

        It needs the token of the split's plan, or another one that may read the item.

        Args:
            split: One of `Plan.splits`.
            columns: The columns to read, in this order; None is all.
        """
        source = split.get("source_id")
        if not isinstance(source, str):
            raise OptionError("a split is one of `Plan.splits`")
        body: dict[str, Any] = {"split": dict(split)}
        if columns is not None:
            body["columns"] = list(columns)
        return Content(self._post(f"{source_path(source)}/splits", body))

    def read_split(
        self, split: Mapping[str, Any], columns: Sequence[str] | None = None
    ) -> Iterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`; arguments as for `open_split`.

        Raises:
            OptionError: pyarrow is not installed.
        """
        if not find_spec("pyarrow"):
            raise OptionError(
                "record batches need pyarrow, which is not installed here; `open_split` gives bytes"
            )
        ipc = importlib.import_module("pyarrow.ipc")
        with self.open_split(split, columns) as content:
            file = io.BufferedReader(_ContentFile(content), _BLOCK)
            if file.peek(1):
                with ipc.open_stream(file) as reader:
                    yield from reader
                file.read()  # to the end of the response, which is broken otherwise

    def _post(self, path: str, body: Mapping[str, Any]) -> Response:
        timeout = self._content_timeout
        return self._transport.send("POST", path, body=encode(body), headers=_JSON, timeout=timeout)


class _ContentFile(io.RawIOBase):
    """Content as a binary file."""

    def __init__(self, content: Content) -> None:
        self._pieces = iter(content)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _first_line(chunks: Iterator[bytes]) -> bytes:
    line = bytearray()
    for chunk in chunks:
        line += chunk
        if b"\n" in chunk:
            return bytes(line.partition(b"\n")[0])
        if len(line) > _LARGEST_PLAN:
            raise ResponseError("the server's plan is too large")
    raise ResponseError("the server's response has no plan")
