"""Plan the splits of items, and read them."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from datasources.connector import DataSourceConnector, SupportsSplits, abilities
from datasources.connector_errors import ConnectorErrors
from datasources.credentials import CredentialManager
from datasources.errors import ConflictError, LimitExceededError, OptionError, UnsupportedError
from datasources.plugins import Plugins
from datasources.registry.observing import observe
from datasources.registry.pools import SourceLease, SourcePools
from datasources.registry.records import SourceRecords
from datasources.splits import Split, SplitPlan
from datasources.stores import StoredSource


@dataclass(frozen=True)
class SplitRequest:
    """A request for a plan; see `DataSourceRegistry.plan`."""

    source_id: str
    identifier: str
    target_bytes: int
    max_splits: int
    key: str | None
    consistent: bool
    max_age: float

    def check(self) -> None:
        """Raise OptionError if a number is out of its range."""
        for name in ("target_bytes", "max_splits"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name!r} must be at least 1, not {getattr(self, name)}")
        if not self.max_age > 0:
            raise OptionError(f"'max_age' must be more than 0 seconds, not {self.max_age}")


class SplitPlanner:
    """Makes plans and reads splits; both are operations that observers see."""

    def __init__(
        self,
        records: SourceRecords,
        pools: SourcePools,
        credentials: CredentialManager,
        plugins: Plugins,
    ) -> None:
        self._records = records
        self._pools = pools
        self._credentials = credentials
        self._plugins = plugins

    @asynccontextmanager
    async def plan(self, request: SplitRequest) -> AsyncIterator[SplitPlan]:
        """Plan the splits of an item for a block; see `DataSourceRegistry.plan`."""
        request.check()
        source_id, identifier = request.source_id, request.identifier
        lease = self._pools.lease(source_id)
        with observe(self._plugins, "plan", source_id, identifier=identifier):
            # Before the lease: a plan of a configuration that is replaced meanwhile is not of the
            # new one.
            record = self._records.get(source_id)
            async with (
                lease as connector,
                lease.cancelled_by_close(),
                _until(request),
                AsyncExitStack() as stack,
            ):
                with ConnectorErrors(connector):
                    plan = await stack.enter_async_context(
                        _able(source_id, connector).plan_splits(
                            identifier,
                            target_bytes=request.target_bytes,
                            max_splits=request.max_splits,
                            key=request.key,
                            consistent=request.consistent,
                        )
                    )
                splits = [
                    replace(split, fingerprint=self._fingerprint(split, record))
                    for split in plan.splits
                ]
                # The plan of a shareable connector and its readers are callers of one connector. A
                # lease more could wait for that of the plan.
                shared = (lease, connector) if connector.shareable else None
                yield replace(plan, splits=splits, reader=partial(self.read, leased=shared))

    async def read(
        self,
        split: Split,
        columns: Sequence[str] | None = None,
        *,
        leased: tuple[SourceLease, DataSourceConnector] | None = None,
    ) -> AsyncIterator[Any]:
        """Yield the rows of a split; see `DataSourceRegistry.read_split`.

        Args:
            split: The split.
            columns: The columns.
            leased: A lease to read in, and its connector; None takes a new lease.
        """
        self._check(split)
        with observe(self._plugins, "read_split", split.source_id, identifier=split.identifier):
            async with AsyncExitStack() as stack:
                if leased is None:
                    lease = self._pools.lease(split.source_id)
                    leased = lease, await stack.enter_async_context(lease)
                    self._check(split)  # the source may have changed while this waited
                async with aclosing(_batches(*leased, split, columns)) as batches:
                    async for batch in batches:
                        yield batch

    def _check(self, split: Split) -> None:
        """Raise ConflictError if a split is not one of a plan of its source as it is now."""
        expected = self._fingerprint(split, self._records.get(split.source_id))
        given = split.fingerprint.encode(errors="replace")
        if not hmac.compare_digest(expected.encode(), given):
            raise ConflictError(
                f"the split was not planned for source {split.source_id!r} as it is configured now; "
                "plan again"
            )

    def _fingerprint(self, split: Split, record: StoredSource) -> str:
        fields = replace(split, fingerprint="").to_dict()
        content = json.dumps([record.type, record.credentials, fields], sort_keys=True)
        return self._credentials.digest("splits", content.encode())


async def _batches(
    lease: SourceLease,
    connector: DataSourceConnector,
    split: Split,
    columns: Sequence[str] | None,
) -> AsyncGenerator[Any]:
    """Yield the rows of a split, with the errors of the connector as hosts expect them."""
    iterator = _able(split.source_id, connector).read_split(split, columns)
    # Annotated as an iterator, but a generator.
    async with aclosing(cast("AsyncGenerator[Any]", iterator)) as batches:
        while True:
            with ConnectorErrors(connector):
                async with lease.cancelled_by_close():
                    batch = await anext(batches, None)
            if batch is None:
                return
            yield batch


@asynccontextmanager
async def _until(request: SplitRequest) -> AsyncIterator[None]:
    """End a block that lasts longer than the plan may live."""
    try:
        async with asyncio.timeout(request.max_age) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise LimitExceededError(
            f"the plan of {request.identifier!r} of source {request.source_id!r} has ended after "
            f"{request.max_age:g} seconds"
        ) from None


def _able(source_id: str, connector: DataSourceConnector) -> SupportsSplits:
    if isinstance(connector, SupportsSplits):
        return connector
    able = ", ".join(sorted(abilities(connector))) or "none"
    raise UnsupportedError(
        f"source {source_id!r} of type {connector.config.type.value!r} cannot split items; "
        f"its optional abilities: {able}"
    )
