"""List the items of a container: tell folders from blobs, and page through them.

A container has no folders, only names with slashes. Tools that need a folder of its own leave a
marker: an empty blob, which is no file of anybody's. An entry of a listing is a marker if

- the service says that it is a directory, as in an account with a hierarchical namespace
  (`ResourceType`), or its metadata has `hdi_isfolder`, as Hadoop, blobfuse and Data Factory set it;
- or it is empty, and its name ends with `/` or blobs lie below it (`NAME/...`).

A marker is not listed: what lies below it is. Fetched, it is an error, as a folder is.
An empty blob with nothing below it, such as `_SUCCESS`, is a file.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from hashlib import sha256

from datasources import ConnectorError, DataItem, ItemNotFoundError, OptionError
from datasources_azure_blob.listing import (
    MAX_PAGE,
    Page,
    batches,
    folder_item,
    item_of,
    list_blobs,
    list_query,
    name_of,
    read_page,
)
from datasources_azure_blob.service import BlobService

# What `urlsafe_b64encode` makes. Before Python 3.15 its decoder skips other characters.
_BASE64 = re.compile(r"[A-Za-z0-9_-]+={0,2}")


async def list_items(
    service: BlobService, prefix: str, *, delimiter: str = ""
) -> AsyncIterator[DataItem]:
    """Yield the items whose names start with `prefix`, in the service's order, page by page.

    With a delimiter, blobs whose names contain it after the prefix are yielded as one folder,
    whose path ends with the delimiter. The paths of the items are names in the container.

    Args:
        service: The container.
        prefix: The beginning of the names; empty for all.
        delimiter: `/` for one level; empty for blobs at any depth.
    """
    query = _query(prefix, delimiter)
    marker = ""
    while True:
        page = await read_page(service, query, MAX_PAGE, marker)
        async for batch in _items(service, page, delimiter):
            for item in batch:
                yield item
        if not (marker := page.next_marker):
            return


async def list_page(
    service: BlobService, prefix: str, *, delimiter: str, limit: int, continuation: str | None
) -> tuple[list[DataItem], str | None]:
    """Return the next `limit` items of `list_items` and the continuation; None after the last.

    Raises:
        OptionError: `limit` is below 1, or the continuation belongs to another listing.
    """
    if limit < 1:
        raise OptionError(f"'limit' must be at least 1, not {limit}")
    query = _query(prefix, delimiter)
    listing = _fingerprint(service, query)
    marker = _marker(continuation, listing) if continuation is not None else ""
    items: list[DataItem] = []
    while True:
        # A page may have fewer items than requested, or none, without being the last one.
        page = await read_page(service, query, min(MAX_PAGE, limit - len(items)), marker)
        async for batch in _items(service, page, delimiter):
            items += batch
        if not (marker := page.next_marker):
            return items, None
        if len(items) >= limit:
            return items, f"{listing}.{urlsafe_b64encode(marker.encode()).decode()}"


async def has_blobs_below(service: BlobService, name: str) -> bool:
    """Return True if there is a blob whose name starts with `name` and a slash."""
    async for _ in list_blobs(service, f"{name.rstrip('/')}/", page=1):
        return True
    return False


async def folder_exists(service: BlobService, name: str) -> bool:
    """Return True if there is a blob below a folder, or a marker for it."""
    if await has_blobs_below(service, name):
        return True
    page = await read_page(service, _query(name, ""), 1, "")
    # Of the names that start with the folder's, its own is the first in the listing.
    return any(name_of(fields) == name and _is_marked(fields) for fields in page.entries)


async def require_file(
    service: BlobService, blob: str, headers: Mapping[str, str], size: int
) -> None:
    """Refuse an empty blob that marks a folder, by the headers of a response about it.

    Where listing is not allowed, an empty blob without a mark in its headers is a file.

    Raises:
        ItemNotFoundError: It is a folder.
    """
    if size > 0:
        return
    if blob.endswith("/") or is_directory(headers) or await is_folder(service, blob):
        raise folder_error(service, blob)


async def is_folder(service: BlobService, blob: str) -> bool:
    """Return True if blobs lie below a name; False if there are none, or listing fails."""
    try:
        return await has_blobs_below(service, blob)
    except ConnectorError:
        return False


def is_directory(headers: Mapping[str, str]) -> bool:
    """Return True if the headers of a response mark its blob as a folder."""
    return (
        headers.get("x-ms-resource-type") == "directory"
        or headers.get("x-ms-meta-hdi_isfolder", "").lower() == "true"
    )


def folder_error(service: BlobService, blob: str) -> ConnectorError:
    """Return the error for a folder where a blob is needed."""
    return service.subject(blob).error(ItemNotFoundError, "it is a folder")


async def _items(service: BlobService, page: Page, delimiter: str) -> AsyncIterator[list[DataItem]]:
    """Yield the items of a page in batches, without markers."""
    names = [name_of(fields) for fields in page.entries]
    folders = {name for name in names if name.endswith("/")}
    position = 0
    for batch in batches(page.entries):
        await asyncio.sleep(0)  # 5,000 items at once would hold up the event loop
        items: list[DataItem] = []
        for index, fields in enumerate(batch, position):
            item = item_of(fields, names[index])
            listed: DataItem | None = item
            if fields["kind"] == "Blob" and _may_be_marker(fields):
                has_children = _has_children(names, folders, index)
                if has_children is None:
                    has_children = bool(page.next_marker) and await has_blobs_below(
                        service, names[index]
                    )
                listed = _blob_or_folder(fields, item, has_children, delimiter)
            if listed is not None:
                items.append(listed)
        position += len(batch)
        yield items


def _may_be_marker(fields: dict[str, str]) -> bool:
    return fields.get("Content-Length") == "0" or fields.get("ResourceType") == "directory"


def _is_marked(fields: dict[str, str]) -> bool:
    if fields.get("ResourceType") == "directory":
        return True
    return "hdi_isfolder" in fields and fields.get("Content-Length") == "0"


def _has_children(names: Sequence[str], folders: Set[str], index: int) -> bool | None:
    """Return True if the page has names below `names[index]`; None if it ends before their place.

    Names between `sales` and `sales/...` in the order, such as `sales-old.csv`, start with `sales`
    as well. With a delimiter the children are one name, `sales/`, which the service lists in that
    order and Azurite at the beginning of the page.
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


def _blob_or_folder(
    fields: dict[str, str], item: DataItem, has_children: bool, delimiter: str
) -> DataItem | None:
    """Return an empty blob or a directory as it is listed; None if it is not."""
    if has_children:
        return None  # the listing has the children, or with a delimiter the folder `NAME/`
    if not _is_marked(fields):
        return item
    return folder_item(f"{item.path}/") if delimiter else None  # an empty folder


def _query(prefix: str, delimiter: str) -> dict[str, str]:
    return list_query(prefix, delimiter) | {"include": "metadata"}  # for `hdi_isfolder`


def _fingerprint(service: BlobService, query: dict[str, str]) -> str:
    """Return a hash that identifies a listing.

    It is part of a continuation, because the service accepts the marker of another listing.
    """
    listing = [service.account.url, service.options.container, *query.items()]
    return sha256(repr(listing).encode()).hexdigest()[:16]


def _marker(continuation: str, listing: str) -> str:
    """Return the marker inside a continuation of `listing`.

    Raises:
        OptionError: It is no continuation of this listing.
    """
    fingerprint, _, marker = continuation.partition(".")
    try:
        if fingerprint == listing and _BASE64.fullmatch(marker):
            return urlsafe_b64decode(marker).decode()
    except ValueError:
        pass
    raise OptionError(
        "the continuation is not of this listing; go on with the source, path and continuation "
        "that belong together"
    )
