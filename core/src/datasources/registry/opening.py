"""Open the store that a URL names."""

from __future__ import annotations

from datasources.errors import StoreError
from datasources.plugins import Plugins
from datasources.stores import MemoryStore, Store


def open_store(url: str, plugins: Plugins) -> Store:
    """Open `memory:`, `sqlite:///relative`, `sqlite:////absolute`, a path, or what a plugin knows.

    Raises:
        StoreError: No plugin knows the scheme, or the store cannot be opened.
    """
    scheme, separator, rest = url.partition(":")
    if url == "memory:":
        return MemoryStore()
    if scheme == "sqlite" or not separator or "/" in scheme:
        from datasources.stores import SQLiteStore

        return SQLiteStore(rest.removeprefix("///") if scheme == "sqlite" else url)
    store: Store | None = plugins.first("datasources_open_store", url=url)
    if store is None:
        raise StoreError(f"no plugin opens a store at {scheme!r}; built in: memory, sqlite")
    return store
