"""Describe, preview, measure and store single items."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

from datasources.connector import (
    DataSourceConnector,
    SupportsPreview,
    SupportsQueryStatistics,
    SupportsStatistics,
    SupportsUpload,
    abilities,
)
from datasources.errors import UnsupportedError
from datasources.models import ColumnStatistics, DataItem, Limits, Preview
from datasources.plugins import Plugins
from datasources.registry.cache import MetadataCache, SingleFlight
from datasources.registry.fetching import Fetcher, preview_by_fetching
from datasources.registry.observing import observe
from datasources.registry.pools import SourcePools
from datasources.registry.queries import bound_query, describe_query, is_query_path
from datasources.registry.records import SourceRecords
from datasources.stored_queries import stored_query_name


class ItemReader:
    """Works on single items; every method is one operation that observers see."""

    def __init__(
        self,
        records: SourceRecords,
        pools: SourcePools,
        fetcher: Fetcher,
        cache: MetadataCache,
        plugins: Plugins,
    ) -> None:
        self._records = records
        self._pools = pools
        self._fetcher = fetcher
        self._cache = cache
        self._plugins = plugins
        self._loading = SingleFlight()

    async def get_metadata(
        self, source_id: str, identifier: str, *, refresh: bool
    ) -> dict[str, Any]:
        """Describe one item; see `DataSourceRegistry.get_metadata`."""
        # Another process may have replaced the source: metadata belong to the version they describe,
        # which is that of the pool and may be older than that of the store.
        key = f"{self._pools.version(source_id)}:{identifier}"
        cached: dict[str, Any] | None = self._cache.get(source_id, key)
        if cached is not None and not refresh:
            return cached

        async def load() -> dict[str, Any]:
            reading = self._cache.begin_reading()
            with observe(self._plugins, "get_metadata", source_id, identifier=identifier):
                async with self._pools.operation(source_id) as connector:
                    name = stored_query_name(identifier)
                    if name is not None and is_query_path(connector, identifier):
                        metadata = await describe_query(self._records, connector, name)
                    else:
                        metadata = await connector.get_metadata(identifier)
            self._cache.put(source_id, metadata, key, reading=reading)
            return metadata

        if refresh:  # a load that runs may have begun before what the caller wants to see
            return copy.deepcopy(await load())
        key_of_load = (source_id, key, self._cache.cleared)
        return copy.deepcopy(await self._loading.load(key_of_load, load))

    async def preview(
        self,
        source_id: str,
        identifier: str,
        rows: int,
        limits: Limits | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Return the first rows of an item; see `DataSourceRegistry.preview`.

        The limits, by default those of the source, are those of a fetch for the preview.
        """
        with observe(self._plugins, "preview", source_id, identifier=identifier) as outcome:
            async with self._pools.operation(source_id) as connector:
                bound = bound_query(self._records, connector, identifier, parameters or {})
                if bound is not None:
                    able, query = bound
                    return outcome.record(await able.preview_query(query, rows))
                if isinstance(connector, SupportsPreview):
                    return outcome.record(await connector.preview(identifier, rows))
                limits = limits or self._fetcher.limits(source_id)
                preview = await preview_by_fetching(connector, identifier, rows, limits)
                return outcome.record(preview)

    async def statistics(
        self,
        source_id: str,
        identifier: str,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, ColumnStatistics]:
        """Return figures of an item's numeric columns; see `DataSourceRegistry.statistics`."""
        with observe(self._plugins, "statistics", source_id, identifier=identifier):
            async with self._pools.operation(source_id) as connector:
                bound = bound_query(self._records, connector, identifier, parameters or {})
                if bound is not None:
                    if not isinstance(connector, SupportsQueryStatistics):
                        raise _unsupported(
                            source_id, connector, "compute statistics of stored queries"
                        )
                    return await connector.query_statistics(bound[1])
                if not isinstance(connector, SupportsStatistics):
                    raise _unsupported(source_id, connector, "compute statistics")
                return await connector.statistics(identifier)

    async def upload(
        self, source_id: str, local_path: str, name: str | None, *, overwrite: bool
    ) -> DataItem:
        """Store a local file in the source; see `DataSourceRegistry.upload`."""
        identifier = name or os.path.basename(local_path)
        with observe(self._plugins, "upload", source_id, identifier=identifier) as outcome:
            async with self._pools.operation(source_id) as connector:
                if not isinstance(connector, SupportsUpload):
                    raise _unsupported(source_id, connector, "take files")
                return outcome.record(await connector.upload_file(local_path, name, overwrite))


def _unsupported(source_id: str, connector: DataSourceConnector, what: str) -> UnsupportedError:
    able = ", ".join(sorted(abilities(connector))) or "none"
    return UnsupportedError(
        f"source {source_id!r} of type {connector.config.type.value!r} cannot {what}; "
        f"its optional abilities: {able}"
    )
