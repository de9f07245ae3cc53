"""Open the store that a URL names."""

from __future__ import annotations

import os

from datasources.errors import StoreError
from datasources.plugins import Plugins
from datasources.stores import Store, open_builtin


def open_store(url: str | os.PathLike[str], plugins: Plugins) -> Store:
    """Open a store in memory, in a SQLite file, or at a URL that a plugin knows.

    Args:
        url: As `stores.open_builtin` takes it, or a URL of a plugin's scheme.
        plugins: Whose hook `datasources_open_store` is called.

    Raises:
        StoreError: No plugin knows the scheme, or the store cannot be opened.
    """
    store = open_builtin(url)
    if store is None:
        store = plugins.first("datasources_open_store", url=url)
    if store is None:
        scheme = str(url).partition(":")[0]
        raise StoreError(f"no plugin opens a store at {scheme!r}; built in: memory, sqlite")
    return store
