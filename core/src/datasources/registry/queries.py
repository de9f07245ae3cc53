"""Stored queries as items of their source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasources.connector import DataSourceConnector, SupportsParameters, SupportsQueryMetadata
from datasources.errors import ItemNotFoundError, OptionError
from datasources.models import DataItem
from datasources.registry.records import SourceRecords
from datasources.stored_queries import BoundQuery, StoredQuery, query_path, stored_query_name

STORED_QUERY = "stored query"
"""The kind of a stored query in the metadata of its item."""


def is_query_path(
    connector: DataSourceConnector | type[DataSourceConnector], identifier: str
) -> bool:
    """Return True if an identifier can only be that of a stored query.

    A connector that takes parameters never gets an identifier `query:NAME` itself.
    """
    return stored_query_name(identifier) is not None and hasattr(connector, "fetch_query")


def query_items(records: SourceRecords, source_id: str) -> list[DataItem]:
    """Return the stored queries of a source as items, by name."""
    queries = records.get(source_id).queries
    return [_item(name, queries[name]) for name in sorted(queries)]


def bound_query(
    records: SourceRecords,
    connector: DataSourceConnector,
    identifier: str,
    parameters: Mapping[str, Any],
) -> tuple[SupportsParameters, BoundQuery] | None:
    """Return the stored query that an identifier names, with values; None for another identifier.

    Raises:
        ItemNotFoundError: The source has no stored query of the name.
        OptionError: A parameter is unknown, missing or malformed, or given for another identifier.
    """
    source_id = connector.config.id
    name = stored_query_name(identifier)
    if name is None or not isinstance(connector, SupportsParameters):
        check_no_parameters(source_id, parameters)
        return None
    return connector, stored_query(records, source_id, name).bind(name, parameters)


def check_no_parameters(source_id: str, parameters: Mapping[str, Any]) -> None:
    """Raise OptionError if parameters are given for what is no stored query."""
    if parameters:
        raise OptionError(f"only stored queries of source {source_id!r} take parameters")


def stored_query(records: SourceRecords, source_id: str, name: str) -> StoredQuery:
    """Return a stored query of a source.

    Raises:
        ItemNotFoundError: The source has none of the name.
    """
    queries = records.get(source_id).queries
    if name not in queries:
        existing = ", ".join(sorted(queries)) or "none"
        raise ItemNotFoundError(
            f"source {source_id!r} has no stored query {name!r}; its stored queries: {existing}"
        )
    return StoredQuery.from_dict(queries[name])


async def describe_query(
    records: SourceRecords, connector: DataSourceConnector, name: str
) -> dict[str, Any]:
    """Return the metadata of a stored query, with its columns where the connector can tell them.

    Raises:
        ItemNotFoundError: The source has none of the name.
    """
    query = stored_query(records, connector.config.id, name)
    described: dict[str, Any] = {}
    if isinstance(connector, SupportsQueryMetadata):
        described = await connector.describe_query(query.bind_nulls(name))
    values = query.to_dict()
    return described | {
        "name": name,
        "path": query_path(name),
        "kind": STORED_QUERY,
        "comment": values["description"] or None,
        "parameters": values["parameters"],
    }


def _item(name: str, query: Mapping[str, Any]) -> DataItem:
    metadata = {"kind": STORED_QUERY, "parameters": query["parameters"]}
    if query["description"]:
        metadata["comment"] = query["description"]
    return DataItem(name, query_path(name), metadata=metadata)
