"""Identify and list the snapshots and earlier versions of a blob."""

from __future__ import annotations

import re
from collections.abc import Mapping

from datasources import DataItem
from datasources_azure_blob.listing import list_blobs
from datasources_azure_blob.service import BlobService

# The prefix stands before the name, so that the extension of the identifier stays the blob's.
_IDENTIFIER = re.compile(r"\?(snapshot|versionid)=([0-9T:.-]+Z)/(.+)", re.DOTALL)
_PAGE = 100  # items per request: those of longer names, which follow the blob's, are not used


def split_identifier(identifier: str) -> tuple[Mapping[str, str], str] | None:
    """Split `?snapshot=TIME/NAME` or `?versionid=TIME/NAME`; None for any other identifier.

    Returns the query parameter of the request, and the name.
    """
    match = _IDENTIFIER.fullmatch(identifier)
    return ({match[1]: match[2]}, match[3]) if match else None


def is_version(query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Return True if a response is of the requested version, or none was requested.

    A service without versioning, such as Azurite, ignores the parameter and sends the blob.
    """
    return query.get("versionid", "") in ("", headers.get("x-ms-version-id"))


async def list_versions(
    service: BlobService, blob: str, identifier: str, include: str
) -> list[DataItem]:
    """Return the snapshots and earlier versions of a blob, sorted by path, hence by time.

    Args:
        service: The container.
        blob: The blob's name in the container.
        identifier: The blob's identifier in the source, for the paths of the items.
        include: `snapshots`, `versions` or `snapshots,versions`.
    """
    items = []
    async for item in list_blobs(service, blob, include=include, page=_PAGE):
        if item.path != blob:
            break  # of the names that start with the blob's, its own is the first in the listing
        metadata = item.metadata
        if "snapshot" in metadata:
            metadata["kind"] = "snapshot"
            item.path = f"?snapshot={metadata['snapshot']}/{identifier}"
        elif "version_id" in metadata and metadata.get("is_current_version") != "true":
            metadata["kind"] = "version"
            item.path = f"?versionid={metadata['version_id']}/{identifier}"
        else:
            continue  # the blob as it is now
        items.append(item)
    return sorted(items, key=lambda item: item.path)


async def listed_etag(service: BlobService, blob: str, query: Mapping[str, str]) -> str | None:
    """Return the ETag in the listing of a blob, or of its snapshot or version; None if missing."""
    if query:
        include = "snapshots" if "snapshot" in query else "versions"
        for item in await list_versions(service, blob, blob, include):
            if split_identifier(item.path) == (query, blob):
                return item.version
        return None
    async for item in list_blobs(service, blob, page=1):
        # Of the names that start with the blob's, its own is the first in the listing.
        return item.version if item.path == blob else None
    return None
