"""The files that splits are read from, each in the version that the plan has seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from datasources.errors import (
    ConnectorError,
    DataFetchError,
    ItemNotFoundError,
    UnsupportedError,
)
from datasources.models import DataItem
from datasources.preview import is_delimited, is_parquet
from datasources.tabular import WILDCARDS

_HIDDEN = re.compile(r"(?<![^/])[._]")
PARQUET = "parquet"
TEXT = "text"


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A file in the version that a plan has seen."""

    path: str
    """The identifier of the item."""
    size: int
    """Bytes."""
    mark: str
    """The mark of the content, such as an ETag."""
    version: str | None = None
    """The version that the identifier names, where a store keeps several."""


class PinnedFile(Protocol):
    """A file in one version, open for reading in a worker thread.

    A read raises DataFetchError if the file is not of the version any more.
    """

    def read(self, size: int = -1, /) -> bytes:
        """Return as many bytes, fewer only at the end of the file."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to an offset, as `io.IOBase.seek`."""
        ...

    def stop(self) -> object:
        """End a read that is under way in another thread, by an error of its choice."""
        ...


OpenFile: TypeAlias = Callable[[SplitFile], AbstractAsyncContextManager[PinnedFile]]
"""Opens a file for an `async with` block."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file that is in one split."""

    bytes: int
    rows: int | None
    """None if they have not been counted."""
    description: dict[str, Any]
    """The place of the part in the file, as values that JSON can hold; empty for the whole file."""


def stands_for_several(identifier: str) -> bool:
    """Return True if an identifier can be a pattern, or a folder with a slash at its end."""
    return identifier.endswith("/") or not WILDCARDS.isdisjoint(identifier)


def tables_of(items: Iterable[DataItem], identifier: str) -> list[DataItem]:
    """Return the items of a folder or pattern that can be tables.

    Empty files are left out, and in a folder what has a name that begins with `_` or `.`, at any
    depth: writers of tables keep their own files under such names.

    Raises:
        ItemNotFoundError: There are none.
    """
    depth = len(identifier.lstrip("/")) if identifier.endswith("/") else None
    tables = [
        item
        for item in items
        if item.size != 0
        and item.metadata.get("kind") != "folder"
        and not (depth is not None and _HIDDEN.search(item.path, depth))
    ]
    if not tables:
        raise ItemNotFoundError(f"{identifier!r} stands for no file that could be a table")
    return tables


def format_of(path: str) -> str | None:
    """Return the format of a table by the extension of its file; None if it does not tell."""
    if is_parquet(path):
        return PARQUET
    return TEXT if is_delimited(path) else None


def no_table(path: str, reason: str = "") -> UnsupportedError:
    """Return the error for a file that is no table."""
    text = f"{path!r} has no splits: only Parquet files and delimited text with a header have some"
    return UnsupportedError(f"{text}; {reason}" if reason else text)


def other_columns(path: str) -> DataFetchError:
    """Return the error for a file of a folder whose columns are not those of the plan."""
    return DataFetchError(f"{path!r} has other columns than the first file of its folder")


def other_types(path: str) -> DataFetchError:
    """Return the error for a file of a folder whose values the types of the plan do not hold."""
    return DataFetchError(
        f"{path!r} has values that are not of the types of the first file of its folder"
    )


@contextmanager
def reading(path: str, format: str) -> Iterator[None]:
    """Turn the errors of pyarrow and of decompression into DataFetchError."""
    try:
        yield
    except (ConnectorError, UnsupportedError):
        raise
    except Exception as exc:  # pyarrow raises OSError, ValueError and others for damaged files
        reason = str(exc).partition("\n")[0] or type(exc).__name__
        raise DataFetchError(f"{path!r} cannot be read as {format}: {reason}") from exc
