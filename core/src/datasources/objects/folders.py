"""List the objects of a store: tell folders from objects, and page through them.

A store has no folders, only names with slashes. Tools that need a folder of its own leave a
marker: an empty object, which is no file of anybody's. An entry of a listing is a marker if

- the store says that it is a folder;
- or it is empty, and its name ends with `/` or objects lie below it (`NAME/...`).

A marker is not listed: what lies below it is. Fetched, it is an error, as a folder is.
An empty object with nothing below it, such as `_SUCCESS`, is a file.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence, Set
from hashlib import sha256

from datasources.errors import ConnectError, ConnectorError, ItemNotFoundError, OptionError
from datasources.models import DataItem
from datasources.objects.names import folder_item
from datasources.objects.store import ObjectInfo, ObjectPage, ObjectStore

MAX_PAGE = 5000  # names asked for at once; stores that return fewer say where they ended
_BATCH = 100  # items made before other tasks of the event loop run; takes about 0.2 ms
# The characters that `urlsafe_b64encode` makes. Before Python 3.15 its decoder skips others.
_BASE64 = re.compile(r"[A-Za-z0-9_-]+={0,2}")


async def list_objects(
    store: ObjectStore, prefix: str, *, delimiter: str = ""
) -> AsyncIterator[DataItem]:
    """Yield the items whose names start with `prefix`, in the store's order, page by page.

    With a delimiter, objects whose names contain it after the prefix are yielded as one folder,
    whose path ends with the delimiter. The paths of the items are names in the store.
    """
    marker = ""
    while True:
        page = await read_page(store, prefix, delimiter, MAX_PAGE, marker)
        async for batch in _items(store, page, prefix, delimiter):
            for item in batch:
                yield item
        if not (marker := page.next_marker):
            return


async def list_objects_page(
    store: ObjectStore, prefix: str, *, delimiter: str, limit: int, cursor: str | None
) -> tuple[list[DataItem], str | None]:
    """Return the next `limit` items of `list_objects` and the cursor; None after the last.

    Raises:
        OptionError: `limit` is below 1, or the cursor belongs to another listing.
    """
    if limit < 1:
        raise OptionError(f"'limit' must be at least 1, not {limit}")
    listing = _fingerprint(store, prefix, delimiter)
    marker = _marker(cursor, listing) if cursor is not None else ""
    items: list[DataItem] = []
    while True:
        # A page may have fewer items than requested, or none, without being the last one.
        most = min(MAX_PAGE, limit - len(items))
        page = await read_page(store, prefix, delimiter, most, marker)
        async for batch in _items(store, page, prefix, delimiter):
            items += batch
        if not (marker := page.next_marker):
            return items, None
        if len(items) >= limit:
            return items, f"{listing}.{urlsafe_b64encode(marker.encode()).decode()}"


async def read_page(
    store: ObjectStore, prefix: str, delimiter: str, limit: int, marker: str
) -> ObjectPage:
    """Request one page of a listing.

    Raises:
        ConnectError: The response is no listing, or names itself as the next page.
    """
    page = await store.retry(
        lambda: store.scan(prefix, delimiter=delimiter, limit=limit, marker=marker)
    )
    if marker and page.next_marker == marker:  # a cache on the way would make the loop endless
        raise store.subject().error(ConnectError, "the listing does not go on after a page")
    return page


async def has_objects_below(store: ObjectStore, name: str) -> bool:
    """Return True if there is an object whose name starts with `name` and a slash."""
    marker = ""
    while True:
        page = await read_page(store, f"{name.rstrip('/')}/", "", 1, marker)
        if page.names or not page.next_marker:
            return bool(page.names)
        marker = page.next_marker


async def folder_exists(store: ObjectStore, name: str) -> bool:
    """Return True if there is an object below a folder, or a marker for it."""
    if await has_objects_below(store, name):
        return True
    # Of the names that start with the folder's, its own is the first in the listing.
    item = await listed_object(store, name)
    return item is not None and _is_folder(item)


async def listed_object(store: ObjectStore, name: str) -> DataItem | None:
    """Return the item of exactly this name in the listing, or None."""
    page = await read_page(store, name, "", 1, "")
    return page.item(0) if page.names and page.names[0] == name else None


async def require_file(store: ObjectStore, name: str, info: ObjectInfo) -> None:
    """Refuse an empty object that marks a folder.

    Where listing is not allowed, an empty object that the store does not mark is a file.

    Raises:
        ItemNotFoundError: It is a folder.
    """
    if info.size > 0:
        return
    if name.endswith("/") or info.is_folder or await is_folder(store, name):
        raise folder_error(store, name)


async def is_folder(store: ObjectStore, name: str) -> bool:
    """Return True if objects lie below a name; False if there are none, or listing fails."""
    try:
        return await has_objects_below(store, name)
    except ConnectorError:
        return False


def folder_error(store: ObjectStore, name: str) -> ConnectorError:
    """Return the error for a folder where an object is needed."""
    return store.subject(name).error(ItemNotFoundError, "it is a folder")


async def _items(
    store: ObjectStore, page: ObjectPage, prefix: str, delimiter: str
) -> AsyncIterator[list[DataItem]]:
    """Yield the items of a page in batches, without markers."""
    names = page.names
    folders = {name for name in names if name.endswith("/")}
    for start in range(0, len(names), _BATCH):
        await asyncio.sleep(0)  # thousands of items at once would hold up the event loop
        items: list[DataItem] = []
        for index in range(start, min(start + _BATCH, len(names))):
            item = page.item(index)
            is_prefix = bool(delimiter) and item.path.endswith("/") and item.path != prefix
            if (item.size == 0 or _is_folder(item)) and not (is_prefix and _is_folder(item)):
                below = _has_children(names, folders, index)
                if below is None:
                    below = bool(page.next_marker) and await has_objects_below(store, item.path)
                if below:
                    continue  # the listing has the children, or the folder `NAME/`
                if _is_folder(item):
                    if not delimiter:
                        continue
                    item = folder_item(f"{item.path}/")  # an empty folder
            items.append(item)
        yield items


def _is_folder(item: DataItem) -> bool:
    return item.metadata.get("kind") == "folder"


def _has_children(names: Sequence[str], folders: Set[str], index: int) -> bool | None:
    """Return True if the page has names below `names[index]`; None if it ends before their place.

    Names between `sales` and `sales/...` in the order, such as `sales-old.csv`, start with `sales`
    as well. With a delimiter the children are one name, `sales/`, which some stores list in that
    order and others at the beginning of the page.
    """
    name = names[index]
    if name.endswith("/") or (folders and f"{name}/" in folders):
        return True
    for position in range(index + 1, len(names)):
        if not names[position].startswith(name):
            return False
        if names[position].startswith(f"{name}/"):
            return True
    return None


def _fingerprint(store: ObjectStore, prefix: str, delimiter: str) -> str:
    """Return a hash that identifies a listing, because stores accept the marker of another one."""
    listing = [*store.options.destination().items(), str(store.subject()), prefix, delimiter]
    return sha256(repr(listing).encode()).hexdigest()[:16]


def _marker(cursor: str, listing: str) -> str:
    """Return the marker inside a cursor of `listing`.

    Raises:
        OptionError: It is no cursor of this listing.
    """
    fingerprint, _, marker = cursor.partition(".")
    try:
        if fingerprint == listing and _BASE64.fullmatch(marker):
            return urlsafe_b64decode(marker).decode()
    except ValueError:
        pass
    raise OptionError(
        "the continuation is not of this listing; go on with the source, path and continuation "
        "that belong together"
    )
