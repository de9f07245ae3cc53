"""Snapshots and versions of a blob: their identifiers, and the list of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from datasources import DataItem
from datasources_azure_blob.listing import list_blobs
from datasources_azure_blob.service import BlobService

# In front of the name, so that the name's end and its extension stay what they are.
_IDENTIFIER = re.compile(r"\?(snapshot|versionid)=([0-9T:.-]+Z)/(.+)", re.DOTALL)
_PAGE = 100  # items: names that merely start like the blob's come after what is asked for


def split_identifier(identifier: str) -> tuple[Mapping[str, str], str] | None:
    """Return the query and the name in `?snapshot=TIME/NAME` or `?versionid=TIME/NAME`."""
    found = _IDENTIFIER.fullmatch(identifier)
    return ({found[1]: found[2]}, found[3]) if found else None


def is_version(query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is of the version asked for: what knows none sends the blob."""
    return query.get("versionid", "") in ("", headers.get("x-ms-version-id"))


async def list_versions(
    service: BlobService, blob: str, identifier: str, include: str
) -> list[DataItem]:
    """Return what the service keeps of a blob beside what it is now.

    Args:
        service: The container.
        blob: A name in it.
        identifier: What the source calls it.
        include: `snapshots`, or `snapshots,versions`.
    """
    found = []
    async for item in list_blobs(service, blob, include=include, page=_PAGE):
        if item.path != blob:
            break  # the name itself comes first of those that start with it
        facts = item.metadata
        if "snapshot" in facts:
            facts["kind"], item.path = "snapshot", f"?snapshot={facts['snapshot']}/{identifier}"
        elif "version_id" in facts and facts.get("is_current_version") != "true":
            facts["kind"], item.path = "version", f"?versionid={facts['version_id']}/{identifier}"
        else:
            continue  # it is the blob itself
        found.append(item)
    return sorted(found, key=lambda item: item.path)


async def listed_etag(service: BlobService, blob: str, query: Mapping[str, str]) -> str | None:
    """Return the ETag that a listing has of a blob, or of the snapshot or version in `query`."""
    if query:
        include = "snapshots" if "snapshot" in query else "versions"
        kept = await list_versions(service, blob, blob, include)
        meant = (item.version for item in kept if split_identifier(item.path) == (query, blob))
        return next(meant, None)
    async for item in list_blobs(service, blob, page=1):
        # The name itself comes first of those that start with it.
        return item.version if item.path == blob else None
    return None
