"""List the names of a container for the kit, and tell which blobs the service marks as folders.

Besides the rules of `datasources.objects`, a blob is the marker of a folder if the service says that
it is a directory, as in an account with a hierarchical namespace (`ResourceType`), or if its
metadata has `hdi_isfolder`, as Hadoop, blobfuse and Data Factory set it, and it is empty.
"""

from __future__ import annotations

from collections.abc import Mapping

from datasources import DataItem
from datasources.objects import ObjectPage
from datasources_azure_blob.listing import MAX_PAGE, item_of, list_query, name_of, read_page
from datasources_azure_blob.service import BlobService


async def scan(
    service: BlobService, prefix: str, delimiter: str, limit: int, marker: str
) -> ObjectPage:
    """Return one page of a listing, as `ObjectStore.scan` does."""
    query = list_query(prefix, delimiter) | {"include": "metadata"}  # for `hdi_isfolder`
    page = await read_page(service, query, min(limit, MAX_PAGE), marker)
    names = [name_of(fields) for fields in page.entries]

    def item(index: int) -> DataItem:
        fields = page.entries[index]
        listed = item_of(fields, names[index])
        if _is_marked(fields):
            listed.metadata["kind"] = "folder"
        return listed

    return ObjectPage(names, item, page.next_marker)


def is_directory(headers: Mapping[str, str]) -> bool:
    """Return True if the headers of a response mark its blob as a folder."""
    return (
        headers.get("x-ms-resource-type") == "directory"
        or headers.get("x-ms-meta-hdi_isfolder", "").lower() == "true"
    )


def _is_marked(fields: dict[str, str]) -> bool:
    if fields.get("ResourceType") == "directory":
        return True
    return "hdi_isfolder" in fields and fields.get("Content-Length") == "0"
