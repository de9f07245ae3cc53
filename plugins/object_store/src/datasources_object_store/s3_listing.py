"""List a bucket's objects and versions, a page of at most 1,000 per request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from datasources import ConnectError, ConnectorError, DataItem
from datasources.objects import ObjectPage, TransientError, folder_item, last_segment
from datasources_object_store.s3_service import S3Service

_MAX_PAGE = 1000  # names in one response
_VERSIONS = 100  # per response: those of longer names, which follow the object's, are not used
# Elements of an entry that become metadata, and the keys there.
_PROPERTIES = (("StorageClass", "storage_class"), ("VersionId", "version_id"))


async def scan(
    service: S3Service, prefix: str, delimiter: str, limit: int, marker: str
) -> ObjectPage:
    """Return one page of the bucket's listing, as `ObjectStore.scan` does.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
    """
    query = {"list-type": "2", "max-keys": str(min(limit, _MAX_PAGE)), "encoding-type": "url"}
    query |= {"prefix": prefix} if prefix else {}
    query |= {"delimiter": delimiter} if delimiter else {}
    query |= {"continuation-token": marker} if marker else {}
    root, space, decode = await _read(service, query, "ListBucketResult")
    folders = [
        decode(element.findtext(f"{space}Prefix", ""))
        for element in root.iterfind(f"{space}CommonPrefixes")
    ]
    entries = [_fields(element, space) for element in root.iterfind(f"{space}Contents")]
    names = [decode(fields.get("Key", "")) for fields in entries]

    def item(index: int) -> DataItem:
        if index < len(folders):
            return folder_item(folders[index])
        return item_of(entries[index - len(folders)], names[index - len(folders)])

    next_marker = ""
    if root.findtext(f"{space}IsTruncated") == "true":
        next_marker = root.findtext(f"{space}NextContinuationToken", "")
        if not next_marker:
            raise _broken_off(service)
    return ObjectPage([*folders, *names], item, next_marker)


async def list_versions(service: S3Service, name: str, identifier: str) -> list[DataItem]:
    """Return the earlier versions of an object, oldest first; markers of deletion are none.

    The content that an object had before its bucket kept versions has the version `null`.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
    """
    query = {"versions": "", "prefix": name, "encoding-type": "url", "max-keys": str(_VERSIONS)}
    items: list[DataItem] = []
    place: dict[str, str] = {}
    while True:
        root, space, decode = await service.retries().call(
            lambda: _read(service, {**query, **place}, "ListVersionsResult")  # noqa: B023
        )
        for element in root.iterfind(f"{space}Version"):
            fields = _fields(element, space)
            if decode(fields.get("Key", "")) != name:
                return items[::-1]  # of the names that begin so, the object's own comes first
            if fields.get("IsLatest") != "true":
                items.append(_version_item(fields, name, identifier))
        if root.findtext(f"{space}IsTruncated") != "true":
            return items[::-1]
        before = place
        place = {
            "key-marker": decode(root.findtext(f"{space}NextKeyMarker", "")),
            "version-id-marker": root.findtext(f"{space}NextVersionIdMarker", ""),
        }
        if not place["key-marker"] or place == before:
            raise _broken_off(service)


def _broken_off(service: S3Service) -> ConnectorError:
    reason = "the service says that the listing goes on, and not where"
    return service.subject().error(ConnectError, reason)


def item_of(fields: Mapping[str, str], name: str) -> DataItem:
    """Return an entry of that name as an item."""
    etag = fields.get("ETag", "").strip('"')
    metadata = {"kind": "object", "etag": etag}
    for tag, key in _PROPERTIES:
        if tag in fields:
            metadata[key] = fields[tag]
    size = fields.get("Size", "")
    return DataItem(
        last_segment(name),
        name,
        int(size) if size.isdecimal() else None,
        _time(fields.get("LastModified", "")),
        metadata,
        etag or None,
    )


def _version_item(fields: Mapping[str, str], name: str, identifier: str) -> DataItem:
    item = item_of(fields, name)
    item.metadata["kind"] = "version"
    item.path = f"?versionid={fields['VersionId']}/{identifier}"
    return item


class _Decoder:
    """Decodes names of a listing: in the encoding that the service says that it has used."""

    def __init__(self, encoded: bool) -> None:
        self._encoded = encoded

    def __call__(self, text: str) -> str:
        return unquote_plus(text) if self._encoded else text


async def _read(
    service: S3Service, query: Mapping[str, str], document: str
) -> tuple[ET.Element, str, _Decoder]:
    """Return the root of a listing, the namespace of its elements, and the decoder of its names.

    Raises:
        TransientError: The response is no listing, or broke off.
    """
    _, body = await service.read("GET", query=query)
    try:
        if b"<!DOCTYPE" in body:  # no listing has one, which could define endless entities
            raise ET.ParseError
        root = ET.fromstring(body)  # noqa: S314  (without a document type)
    except ET.ParseError:
        root = ET.Element("none")
    space, _, tag = root.tag.rpartition("}")
    if tag != document:
        reason = "the answer is not a whole listing"
        raise TransientError(service.subject().error(ConnectError, reason))
    space = f"{space}}}" if space else ""
    return root, space, _Decoder(root.findtext(f"{space}EncodingType") == "url")


def _fields(element: ET.Element, space: str) -> dict[str, str]:
    start = len(space)
    return {child.tag[start:]: child.text or "" for child in element}


@lru_cache(maxsize=4096)
def _time(text: str) -> float | None:
    """Return a time as Unix seconds, or None if it is not one."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
