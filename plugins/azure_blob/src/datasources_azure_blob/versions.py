"""Identify and list the snapshots and earlier versions of a blob."""

from __future__ import annotations

import re
from collections.abc import Mapping

from datasources import DataItem
from datasources_azure_blob.listing import list_blobs
from datasources_azure_blob.service import BlobService

# The prefix stands before the name, so that the extension of the identifier stays the blob's.
VERSION_PATTERN = re.compile(r"\?((?:snapshot|versionid)=[0-9T:.-]+Z)/(.+)", re.DOTALL)
"""Matches `?snapshot=TIME/NAME` and `?versionid=TIME/NAME`: the version, and the name."""
_PAGE = 100  # items per request: those of longer names, which follow the blob's, are not used


def version_query(version: str | None) -> dict[str, str]:
    """Return the parameter of a request that selects a version; none for the current content."""
    name, _, time = (version or "").partition("=")
    return {name: time} if version else {}


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


async def listed_version_etag(service: BlobService, blob: str, version: str) -> str | None:
    """Return the ETag in the listing of a blob's snapshot or version; None if it is missing."""
    include = "snapshots" if version.startswith("snapshot") else "versions"
    for item in await list_versions(service, blob, blob, include):
        if item.path == f"?{version}/{blob}":
            return item.version
    return None
