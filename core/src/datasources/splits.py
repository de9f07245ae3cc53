"""Splits: parts of one item that several readers read, also in other processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from datasources.errors import OptionError
from datasources.json_models import JsonModel


@dataclass(frozen=True, slots=True)
class Split(JsonModel):
    """One part of an item, as a plan describes it; `to_dict` gives JSON for another process.

    It holds no option of the source. A reader needs a registry with the same source and key.
    """

    source_id: str
    identifier: str
    """The item."""
    index: int
    """The place of the split in its plan, from 0; the order of the rows where they have one."""
    count: int
    """Number of splits of the plan."""
    part: dict[str, Any]
    """The connector's description of the part: values that JSON can hold."""
    snapshot: str | None = None
    """The name of the state of the source that every split of the plan is read from; None where the
    source has no such names."""
    estimated_rows: int | None = None
    estimated_bytes: int | None = None
    items: tuple[str, ...] = ()
    """The items that the split reads, if the identifier stands for several, as a folder does."""
    fingerprint: str = ""
    """Authenticates all other fields and the configuration of the source; the registry sets it."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The splits of one item; together they have each of its rows once.

    `DataSourceRegistry.plan` yields one, and it lasts as long as the block of that call.
    """

    schema: Any
    """The `pyarrow.Schema` of the rows of every split."""
    splits: Sequence[Split]
    consistent: bool = True
    """True if all splits are read from one state of the source; otherwise each has rows of the
    moment at which it is read."""
    concurrency: int | None = None
    """Splits that may be read at once, over all readers; None if the source sets no bound."""
    reader: SplitReader | None = field(default=None, repr=False)
    """Reads a split in this process; the registry sets it."""

    def read(self, split: Split, columns: Sequence[str] | None = None) -> AsyncIterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`; see `DataSourceRegistry.read_split`."""
        if self.reader is None:
            raise OptionError("only a plan of a registry reads splits")
        return self.reader(split, columns)


SplitReader: TypeAlias = Callable[[Split, Sequence[str] | None], AsyncIterator[Any]]
