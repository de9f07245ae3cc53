"""List sources and items, one page at a time."""

from __future__ import annotations

from typing import Any

from datasources import Access, CursorError, DataItem, DataSourceConfig, OptionError, PluginError
from datasources_agents.tools.bounding import Cutter, count_fitting, size_of
from datasources_agents.tools.results import ROOM

_PAGE = 100  # entries of a page by default
_MAX_NAME = 200  # characters of a name or comment
_MAX_PATH = 4096  # characters of a path, which is cut beyond
_MAX_ESCAPED_PATH = 1500  # characters of a path that is all escapes in JSON, and has no room else
_MAX_ITEM = 4096  # bytes of an item with its parameters
_FACTS = ("kind", "comment", "estimated_rows", "parameters")  # of the metadata of a listing


async def list_sources(access: Access, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a page of sources by id; never their options."""
    configs = await access.list_sources(
        after=arguments["cursor"],
        limit=_PAGE + 1,
        type=arguments["type"],
        q=arguments["search"] or "",
    )
    by_type: dict[str, list[str] | None] = {}
    for config in configs:
        if config.type not in by_type:
            by_type[config.type] = await _abilities(access, config.id)
    sources = [_describe_source(access, config, by_type[config.type]) for config in configs[:_PAGE]]
    count = count_fitting(sources, ROOM)
    more = count < len(configs)
    return {"sources": sources[:count], "next_cursor": configs[count - 1].id if more else None}


async def _abilities(access: Access, source_id: str) -> list[str] | None:
    """Return the abilities of a source, None if its connector cannot be used."""
    try:
        return sorted(await access.list_abilities(source_id))
    except PluginError:
        return None


def _describe_source(
    access: Access, config: DataSourceConfig, abilities: list[str] | None
) -> dict[str, Any]:
    grants = access.principal.grants_for(config.id)
    state = "ready" if config.paused is None else "paused"
    described: dict[str, Any] = {
        "id": config.id,
        "name": config.name,
        "type": str(config.type),
        "state": "unusable" if abilities is None else state,
        "rights": sorted({right for grant in grants for right in grant.rights}),
        "abilities": abilities or [],
    }
    if config.paused:
        described["reason"] = config.paused
    cut: dict[str, Any] = Cutter(_MAX_NAME).cut(described)
    return cut


async def list_items(access: Access, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a page of the items of a source that may be read."""
    if arguments["pattern"] is not None:
        return await _match_items(access, arguments)
    source, path, cursor = arguments["source"], arguments["path"], arguments["cursor"]
    limit = arguments["limit"] or _PAGE
    while True:
        page = await access.list_page(source, path, limit=limit, cursor=cursor)
        items = [_describe_item(item) for item in page.items]
        count = count_fitting(items, ROOM)
        if count == len(items) or len(items) == 1:  # one item always has room in a result
            return {"source": source, "items": items, "next_cursor": page.cursor}
        limit = max(count, 1)  # the cursor is that of a whole page, so a smaller one is listed


async def _match_items(access: Access, arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments["path"] is not None:
        raise OptionError("'path' and 'pattern' cannot be given together")
    cursor = arguments["cursor"] or "0"
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise CursorError("the cursor is not one of this listing; list from the first page again")
    matches = await access.glob_items(arguments["source"], arguments["pattern"])
    start = int(cursor)
    end = start + (arguments["limit"] or _PAGE)
    items = [_describe_item(item) for item in matches[start:end]]
    count = max(1, count_fitting(items, ROOM))
    end = start + count
    following = str(end) if end < len(matches) else None
    return {
        "source": arguments["source"],
        "items": items[:count],
        "next_cursor": following,
        "matches": len(matches),
    }


def _describe_item(item: DataItem) -> dict[str, Any]:
    values = item.to_dict()
    is_escaped = size_of(values["path"][:_MAX_PATH]) > ROOM
    path = Cutter(_MAX_ESCAPED_PATH if is_escaped else _MAX_PATH)
    described: dict[str, Any] = {"path": path.cut(values["path"])}
    described |= {
        name: values[name] for name in ("size", "modified_at") if values[name] is not None
    }
    metadata = values["metadata"]
    described |= {
        name: Cutter(_MAX_NAME).cut(metadata[name])
        for name in _FACTS
        if metadata.get(name) is not None
    }
    if size_of(described) > _MAX_ITEM and described.pop("parameters", None) is not None:
        described["notes"] = ["The parameters are left out; describe_item has them."]
    if path.count:
        described["notes"] = ["The path is cut, so this item cannot be named."]
    return described
