"""List a bucket, describe its objects and request ranges of them.

The mark of a content is its generation, a number that the service gives to every content of an
object: a request with `ifGenerationMatch` cannot return another one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from datasources import ConnectError, DataFetchError, DataItem
from datasources.objects import (
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    TransientError,
    content_size,
    folder_item,
    last_segment,
)
from datasources_object_store.gcs_service import GCSService

_MAX_PAGE = 1000  # names in one response
_VERSIONS = 100  # per response: those of longer names, which follow the object's, are not used
_UNKNOWN = "the service does not tell its length and generation"
_FIELDS = "name,size,generation,updated,contentType,contentEncoding,storageClass"
_KEYS = {
    "contentType": "content_type",
    "contentEncoding": "content_encoding",
    "contentLanguage": "content_language",
    "contentDisposition": "content_disposition",
    "cacheControl": "cache_control",
    "storageClass": "storage_class",
    "md5Hash": "content_md5",
    "crc32c": "crc32c",
    "kmsKeyName": "kms_key",
}
"""Fields of an object that `get_metadata` shows, and the keys there."""


async def scan(
    service: GCSService, prefix: str, delimiter: str, limit: int, marker: str
) -> ObjectPage:
    """Return one page of the bucket's listing, as `ObjectStore.scan` does.

    https://cloud.google.com/storage/docs/json_api/v1/objects/list
    """
    query = {"maxResults": str(min(limit, _MAX_PAGE))}
    query["fields"] = f"nextPageToken,prefixes,items({_FIELDS})"
    query |= {"prefix": prefix} if prefix else {}
    query |= {"delimiter": delimiter} if delimiter else {}
    query |= {"pageToken": marker} if marker else {}
    document = await service.read_json("GET", service.url(), query=query)
    folders: list[str] = document.get("prefixes", [])
    entries = _entries(service, document)

    def item(index: int) -> DataItem:
        if index < len(folders):
            return folder_item(folders[index])
        return item_of(entries[index - len(folders)])

    names = [*folders, *(entry["name"] for entry in entries)]
    return ObjectPage(names, item, document.get("nextPageToken") or "")


def _entries(service: GCSService, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the objects in a listing.

    Raises:
        TransientError: It is none.
    """
    entries: Any = document.get("items", [])
    folders: Any = document.get("prefixes", [])
    lists = isinstance(entries, list) and isinstance(folders, list)
    if lists and all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries):
        return list(entries)
    reason = "the answer is not a whole listing"
    raise TransientError(service.subject().error(ConnectError, reason))


async def list_versions(service: GCSService, name: str, identifier: str) -> list[DataItem]:
    """Return the earlier generations of an object, oldest first."""
    items: list[DataItem] = []
    query = {"versions": "true", "prefix": name, "maxResults": str(_VERSIONS)}
    query["fields"] = f"nextPageToken,items({_FIELDS},timeDeleted)"
    while True:
        document = await service.retries().call(
            lambda: service.read_json("GET", service.url(), query=query)  # noqa: B023
        )
        entries = _entries(service, document)
        for entry in entries:
            if entry["name"] == name and "timeDeleted" in entry:
                item = item_of(entry)
                item.metadata["kind"] = "version"
                item.path = f"?generation={entry['generation']}/{identifier}"
                items.append(item)
        token = document.get("nextPageToken")
        # Of the names that begin so, the object's own comes first.
        if not token or any(entry["name"] != name for entry in entries):
            return sorted(items, key=lambda item: int(item.version or 0))
        if token == query.get("pageToken"):
            reason = "the listing does not go on after a page"
            raise service.subject().error(ConnectError, reason)
        query = {**query, "pageToken": token}


async def head_object(
    service: GCSService, name: str, version: str | None, etag: str | None
) -> ObjectInfo:
    """Return the description of an object."""
    query = _query(version, etag)
    document = await service.read_json("GET", service.url(name), name, query=query)
    if "size" not in document or "generation" not in document:
        raise service.subject(name).error(DataFetchError, _UNKNOWN)
    return ObjectInfo(
        int(document["size"]),
        str(document["generation"]),
        document.get("contentType"),
        properties=_properties(document),
    )


async def read_object(
    service: GCSService, name: str, span: tuple[int, int], version: str | None, etag: str | None
) -> ObjectBody:
    """Request a range of an object; the caller closes the body."""
    query = {**_query(version, etag), "alt": "media"}
    # With this, an object that is stored compressed arrives as it is stored.
    headers = {"Accept-Encoding": "gzip", "Range": f"bytes={span[0]}-{span[1] - 1}"}
    url = service.url(name)
    try:
        response = await service.send("GET", url, name, query=query, headers=headers)
    except DataFetchError as exc:
        if exc.code not in ("416", "requestedRangeNotSatisfiable") or span[0]:
            raise
        # An empty object has no byte that a range could name.
        del headers["Range"]
        response = await service.send("GET", url, name, query=query, headers=headers)
    try:
        size = content_size(response.headers)
        generation = response.headers.get("x-goog-generation", "")
        if size is None or not generation:
            raise service.subject(name).error(DataFetchError, _UNKNOWN)
        if etag is not None and generation != etag:
            reason = "it changed while it was read; fetch it again"
            raise service.subject(name).error(DataFetchError, reason, code="conditionNotMet")
    except BaseException:
        response.close()
        raise
    info = ObjectInfo(
        size,
        generation,
        response.headers.get("Content-Type"),
        response.headers.get("Content-Encoding", ""),
        _checksums(response.headers) if service.options.check_md5 else {},
    )
    return service.http.body(response, info, service.subject(name))


def item_of(entry: Mapping[str, Any]) -> DataItem:
    """Return an entry of a listing as an item."""
    name, generation = entry["name"], str(entry.get("generation", ""))
    metadata = {"kind": "object", "etag": generation}
    metadata |= {key: entry[name] for name, key in _KEYS.items() if name in entry}
    return DataItem(
        last_segment(name),
        name,
        int(entry.get("size", 0)),
        unix_time(entry.get("updated", "")),
        metadata,
        generation or None,
    )


@lru_cache(maxsize=4096)
def unix_time(text: str) -> float | None:
    """Return a time as Unix seconds, or None if it is not one."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _query(version: str | None, etag: str | None) -> dict[str, str]:
    query = {"ifGenerationMatch": etag} if etag else {}
    return query | ({"generation": version.partition("=")[2]} if version else {})


def _checksums(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Return the MD5 in `x-goog-hash`, whose header may be given twice."""
    values: list[str] = getattr(headers, "getall", lambda *_: [])("x-goog-hash", [])
    for part in ",".join(values).split(","):
        algorithm, _, digest = part.strip().partition("=")
        if algorithm == "md5":
            try:
                return {"md5": base64.b64decode(digest, validate=True)}
            except binascii.Error:
                return {}
    return {}


def _properties(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "modified_at": unix_time(document.get("updated", "")),
        "created_at": unix_time(document.get("timeCreated", "")),
        **{key: document[field] for field, key in _KEYS.items() if field in document},
        "metadata": document.get("metadata") or {},
    }
