"""Tell names with brackets, `?` and `*` from the patterns that they look like."""

from __future__ import annotations

import re

from datasources.connector import DataSourceConnector, SupportsGlob
from datasources.errors import DataSourceError
from datasources.models import DataItem


def glob_escape(name: str) -> str:
    """Return the pattern that matches exactly this name."""
    return re.sub(r"[*?\[]", r"[\g<0>]", name)


async def literal_items(connector: DataSourceConnector, path: str) -> list[DataItem]:
    """Return what a path names as it stands, wildcards included: an item, or all below a folder.

    A file `report[1].csv` is asked for by that name, which as a pattern would match `report1.csv`.

    Returns an empty list if there is no such item or folder, or the source cannot list it.
    """
    name = path.rstrip("/")
    try:
        if name == path:
            # Not by `get_metadata`: for a source of tables, a query with `*` is a name as well.
            if isinstance(connector, SupportsGlob):
                items = await connector.glob_items(glob_escape(name))
            else:
                folder = name.rpartition("/")[0] or None
                items = [item for item in await connector.list_items(folder) if item.path == name]
            if items:
                return items
        below = await connector.list_items(name)
    except DataSourceError:
        return []
    return [item for item in below if item.path.startswith(f"{name}/")]
