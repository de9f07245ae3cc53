"""Plans of splits, and their readers on the workers: in a shared store, or on a server.

A reader is part of the task graph. That of a store has no option, as each worker finds the store in
its environment. That of a server has the address and the token of one plan, which reads the splits of
that plan only, until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from distributed import Client

from datasources import Split
from datasources_client import Client as ServerClient
from datasources_dask.environment import open_for_one_connection, settings_of_environment
from datasources_dask.slots import Slots


class SplitReader(Protocol):
    """Reads splits on a worker."""

    def read(self, split: Split, columns: Sequence[str]) -> list[Any]:
        """Return the rows of a split as `pyarrow.RecordBatch`."""
        ...


class Plan(NamedTuple):
    """The splits of an item, with the `pyarrow.Schema` of all columns."""

    schema: Any
    splits: Sequence[Split]
    reader: SplitReader


@dataclass(frozen=True, slots=True)
class StoreReader:
    """Reads by a connection that is closed at the end."""

    slots: Slots

    def read(self, split: Split, columns: Sequence[str]) -> list[Any]:
        with self.slots.hold(), open_for_one_connection() as registry:
            return list(registry.read_split(split, columns))


@dataclass(frozen=True, slots=True)
class ServerReader:
    """Reads through a server, which has a connection for each read."""

    url: str
    token: str = field(repr=False)
    """That of the plan."""
    slots: Slots | None
    """None if the source sets no bound."""

    def read(self, split: Split, columns: Sequence[str]) -> list[Any]:
        place = nullcontext() if self.slots is None else self.slots.hold()
        with place, ServerClient(self.url, token=self.token) as server:
            return list(server.read_split(split.to_dict(), columns))


@contextmanager
def plan_in_store(
    client: Client, source_id: str, identifier: str, **options: Any
) -> Iterator[Plan]:
    """Plan in the store that the environment names; the options are those of `read_source`."""
    pool = settings_of_environment().pool
    slots = Slots(source_id, pool.max_size)
    with (
        slots.hold_for_plan(client, pool.acquire_timeout),
        open_for_one_connection() as registry,
        registry.plan(source_id, identifier, **options) as plan,
    ):
        yield Plan(plan.schema, plan.splits, StoreReader(slots))


@contextmanager
def plan_on_server(
    url: str, token: str | None, source_id: str, identifier: str, **options: Any
) -> Iterator[Plan]:
    """Plan on a server; the options are those of `read_source`."""
    with (
        ServerClient(url, token=token) as server,
        server.plan(source_id, identifier, **options) as plan,
    ):
        bound = plan.concurrency
        slots = None if bound is None else Slots(f"{source_id} at {url}", bound)
        splits = [Split.from_dict(split) for split in plan.splits]
        yield Plan(plan.arrow_schema(), splits, ServerReader(url, plan.token, slots))
