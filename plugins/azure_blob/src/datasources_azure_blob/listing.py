"""List the blobs of a container page by page, each page parsed while it arrives.

The XML is parsed by hand with expat instead of into a tree or by azure-storage-blob, because
listing is the operation whose time grows with the size of a container: a page of 5,000 blobs has
100,000 elements, of which a sixth is used. See "Speed" in the README for the figures.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from calendar import timegm
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from hashlib import sha256
from urllib.parse import unquote
from xml.parsers.expat import ExpatError, ParserCreate

import aiohttp

from datasources import ConnectError, DataItem, OptionError
from datasources_azure_blob.errors import TransientError
from datasources_azure_blob.service import BlobService, safe_cause

MAX_PAGE = 5000
"""The most items that the service returns as one page.

https://learn.microsoft.com/rest/api/storageservices/list-blobs"""
_READ_SIZE = 64 * 1024  # bytes given to the parser at once
_BATCH = 100  # items made before other tasks of the event loop run; takes about 0.2 ms
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PROPERTIES = (
    ("Content-Type", "content_type"),
    ("Content-Encoding", "content_encoding"),
    ("Content-MD5", "content_md5"),
    ("AccessTier", "tier"),
    ("BlobType", "blob_type"),
    ("Snapshot", "snapshot"),
    ("VersionId", "version_id"),
    ("IsCurrentVersion", "is_current_version"),
)
"""Elements of an entry that become metadata, and the keys there."""
_ELEMENTS = {"Name", "Etag", "Content-Length", "Last-Modified", "ResourceType"}
_ELEMENTS |= {tag for tag, _ in _PROPERTIES}


async def list_blobs(
    service: BlobService,
    prefix: str,
    *,
    delimiter: str = "",
    include: str = "",
    page: int = MAX_PAGE,
) -> AsyncIterator[DataItem]:
    """Yield the blobs whose names start with `prefix`, in the service's order, page by page.

    With a delimiter, blobs whose names contain it after the prefix are yielded as one folder,
    whose path ends with the delimiter. The paths of the items are names in the container.

    Args:
        service: The container.
        prefix: The beginning of the names; empty for all.
        delimiter: Usually `/`; empty for none.
        include: The parameter `include` of the request, such as `snapshots`.
        page: Items per request, `MAX_PAGE` at most.
    """
    query = _query(prefix, delimiter) | ({"include": include} if include else {})
    marker = ""
    while True:
        answer = await _page(service, query, page, marker)
        for batch in answer.batches():
            await asyncio.sleep(0)  # 5,000 items at once would hold up the event loop
            for item in batch:
                yield item
        if not (marker := answer.next_marker):
            return


async def list_page(
    service: BlobService, prefix: str, *, delimiter: str, limit: int, continuation: str | None
) -> tuple[list[DataItem], str | None]:
    """Return the next `limit` items of `list_blobs` and the continuation; None after the last.

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
        answer = await _page(service, query, min(MAX_PAGE, limit - len(items)), marker)
        for batch in answer.batches():
            await asyncio.sleep(0)
            items += batch
        if not (marker := answer.next_marker):
            return items, None
        if len(items) >= limit:
            return items, f"{listing}.{urlsafe_b64encode(marker.encode()).decode()}"


def _query(prefix: str, delimiter: str) -> dict[str, str]:
    query = {"restype": "container", "comp": "list"}
    query |= {"prefix": prefix} if prefix else {}
    return query | ({"delimiter": delimiter} if delimiter else {})


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
        if fingerprint == listing and marker:
            return urlsafe_b64decode(marker.encode("ascii")).decode()
    except ValueError:
        pass
    raise OptionError(
        "the continuation is not of this listing; go on with the source, path and continuation "
        "that belong together"
    )


async def _page(service: BlobService, query: dict[str, str], size: int, marker: str) -> _Page:
    query = {**query, "maxresults": str(size), **({"marker": marker} if marker else {})}
    page = await service.retry(lambda: _read_page(service, query))
    if marker and page.next_marker == marker:  # a cache on the way would make the loop endless
        raise service.subject().error(ConnectError, "the listing does not go on after a page")
    return page


async def _read_page(service: BlobService, query: dict[str, str]) -> _Page:
    response = await service.send("GET", query=query)
    page = _Page()
    try:
        while data := await response.content.read(_READ_SIZE):
            page.feed(data)
        page.close()
        if not page.complete:
            raise ExpatError("another document")
    except (aiohttp.ClientError, OSError) as exc:
        raise service.network_error(exc, None) from safe_cause(exc)
    except ExpatError as exc:
        raise TransientError(
            service.subject().error(ConnectError, "the answer is not a whole listing")
        ) from exc
    finally:
        page.release()
        response.close()
    return page


class _Page:
    """One response of List Blobs, parsed as it arrives: `feed` each part of it, then `close`.

    Entries stay dictionaries of strings until they are needed as items: the garbage collector
    does not track these, so that a large page causes no collections.

    https://learn.microsoft.com/rest/api/storageservices/list-blobs#response-body
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self.next_marker = ""
        self.complete = False
        self._fields: dict[str, str] = {}
        self._text = ""
        self._parser = ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._on_doctype
        self._parser.StartElementHandler = self._on_start
        self._parser.CharacterDataHandler = self._on_text
        self._parser.EndElementHandler = self._on_end

    def feed(self, data: bytes) -> None:
        self._parser.Parse(data)

    def close(self) -> None:
        self._parser.Parse(b"", True)

    def release(self) -> None:
        """Drop the parser: it and the page refer to each other, so both would stay in memory."""
        del self._parser

    def batches(self) -> Iterator[list[DataItem]]:
        """Yield the items, `_BATCH` at a time."""
        for start in range(0, len(self.entries), _BATCH):
            yield [_item(fields) for fields in self.entries[start : start + _BATCH]]

    def _on_doctype(self, *_: object) -> None:
        raise ExpatError("no listing has a document type, which could define endless entities")

    def _on_start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text = ""
        if attributes and tag == "Name":
            self._fields |= attributes

    def _on_text(self, text: str) -> None:
        self._text += text  # one text arrives in several calls if `feed` cut it

    def _on_end(self, tag: str) -> None:
        if tag in _ELEMENTS:
            if self._text:
                self._fields[tag] = self._text
                self._text = ""
        elif tag in ("Blob", "BlobPrefix"):
            # Directories of a hierarchical namespace are listed, but are no blobs.
            if self._fields.pop("ResourceType", "") != "directory":
                self._fields["kind"] = tag
                self.entries.append(self._fields)
            self._fields = {}
        elif tag == "NextMarker":
            self.next_marker = self._text
        elif tag == "EnumerationResults":
            self.complete = True


def _item(fields: dict[str, str]) -> DataItem:
    name = fields.get("Name", "")
    if fields.get("Encoded") == "true":  # percent-encoded, for characters that XML cannot hold
        name = unquote(name)
    if fields["kind"] == "BlobPrefix":
        return DataItem(last_segment(name), name, metadata={"kind": "folder"})
    etag = fields.get("Etag", "").strip('"')
    metadata = {"kind": "blob", "etag": etag}
    for tag, key in _PROPERTIES:
        if tag in fields:
            metadata[key] = fields[tag]
    size = fields.get("Content-Length", "")
    return DataItem(
        last_segment(name),
        name,
        int(size) if size.isdecimal() else None,
        http_time(fields.get("Last-Modified", "")),
        metadata,
        etag or None,
    )


def last_segment(name: str) -> str:
    """Return the last segment of a name that is not empty, or the name if all are empty."""
    return name.rstrip("/").rpartition("/")[2] or name


@lru_cache(maxsize=4096)
def http_time(text: str) -> float | None:
    """Return an HTTP date (RFC 9110, IMF-fixdate) as Unix seconds, or None if it is not one."""
    try:
        _, day, month, year, clock, _ = text.split(" ")
        hour, minute, second = clock.split(":")
        date = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute))
        return float(timegm((*date, int(second))))
    except ValueError:
        return None
