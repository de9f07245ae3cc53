"""Functions on the server that the environment names, for code in a workspace."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from datasources_client.addresses import CA_FILE, SOCKET, TOKEN, URL, WORKSPACE
from datasources_client.client import Client
from datasources_client.models import (
    ColumnStatistics,
    Item,
    Preview,
    Receipt,
    Source,
    UploadReceipt,
)

_NAMES = (SOCKET, URL, TOKEN, CA_FILE)
_clients: dict[tuple[str | None, ...], Client] = {}


def default_client() -> Client:
    """Return the client of the server that the environment names, the same one for all threads.

    Raises:
        OptionError: Neither `DATASOURCES_SOCKET` nor `DATASOURCES_URL` is set, or they are malformed.
    """
    key = tuple(os.environ.get(name) for name in _NAMES)
    client = _clients.get(key)
    if client is None:
        client = _clients.setdefault(key, Client())  # of two threads, one is first
        atexit.register(client.close)
    return client


def sources(*, type: str | None = None, q: str = "") -> Iterator[Source]:
    """Yield the sources that are granted; as `Client.sources`."""
    return default_client().sources(type=type, q=q)


def items(source: str, path: str | None = None, *, pattern: str | None = None) -> Iterator[Item]:
    """Yield the items of a source; as `Client.items`."""
    return default_client().items(source, path, pattern=pattern)


def describe(source: str, item: str, *, refresh: bool = False) -> dict[str, Any]:
    """Return the metadata of an item; as `Client.describe`."""
    return default_client().describe(source, item, refresh=refresh)


def preview(
    source: str, item: str, rows: int = 10, *, parameters: Mapping[str, Any] | None = None
) -> Preview:
    """Return the first rows of an item or a query; as `Client.preview`."""
    return default_client().preview(source, item, rows, parameters=parameters)


def statistics(
    source: str, item: str, *, parameters: Mapping[str, Any] | None = None
) -> dict[str, ColumnStatistics]:
    """Return figures of the numeric columns of an item or a query; as `Client.statistics`."""
    return default_client().statistics(source, item, parameters=parameters)


def fetch(
    source: str,
    item: str,
    *,
    format: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    path: str | None = None,
    directory: str = ".",
    stream: bool = False,
) -> Receipt:
    """Fetch an item or a query into a file; as `Client.fetch`.

    In a sandbox, where `DATASOURCES_WORKSPACE` names the workspace, a file without `path` and
    `directory` is written there by the host, under the path that the receipt says.
    """
    workspace = os.environ.get(WORKSPACE)
    if workspace and path is None and directory == "." and not stream:
        return default_client().fetch_here(
            source, item, workspace, format=format, parameters=parameters
        )
    return default_client().fetch(
        source,
        item,
        format=format,
        parameters=parameters,
        path=path,
        directory=directory,
        stream=stream,
    )


def upload(
    source: str,
    item: str,
    content: str | os.PathLike[str] | BinaryIO | Iterable[bytes],
    *,
    overwrite: bool = True,
) -> UploadReceipt:
    """Store a file in a source, where the grant allows writing; as `Client.upload`."""
    return default_client().upload(source, item, content, overwrite=overwrite)
