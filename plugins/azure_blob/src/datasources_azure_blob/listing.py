"""Listing a container page by page, each page parsed while it arrives."""

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

PAGE = 5000
"""Items of one page, the service's most."""
_PIECE = 64 * 1024
_TURN = 100  # items
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
_WANTED = {"Name", "Etag", "Content-Length", "Last-Modified", "ResourceType"}
_WANTED |= {tag for tag, _ in _PROPERTIES}


async def list_blobs(
    service: BlobService, prefix: str, *, delimiter: str = "", include: str = "", page: int = PAGE
) -> AsyncIterator[DataItem]:
    """Yield the blobs whose names start with `prefix`, in the service's order, page by page.

    With a delimiter, names that go on after one are put together as a folder, which ends with
    the delimiter.  The paths of the items are names in the container.

    Args:
        service: The container.
        prefix: How the names start; all names do with an empty one.
        delimiter: Usually `/`.
        include: What else each blob may be listed as, such as `snapshots`.
        page: Items asked for at once.
    """
    query = _query(prefix, delimiter) | ({"include": include} if include else {})
    marker = ""
    while True:
        found = await _page(service, query, page, marker)
        for turn in found.turns():
            await asyncio.sleep(0)  # a page at once would hold up the event loop
            for item in turn:
                yield item
        if not (marker := found.marker):
            return


async def list_page(
    service: BlobService, prefix: str, *, delimiter: str, limit: int, continuation: str | None
) -> tuple[list[DataItem], str | None]:
    """Return the next `limit` of what `list_blobs` yields, and how to go on; None at the end.

    Raises:
        OptionError: The continuation is that of another listing.
    """
    if limit < 1:
        raise OptionError(f"'limit' must be at least 1, not {limit}")
    query = _query(prefix, delimiter)
    listing = _fingerprint(service, query)
    marker = _marker(continuation, listing) if continuation is not None else ""
    items: list[DataItem] = []
    while True:
        # A page may have less than was asked for, or nothing, and not be the last one.
        found = await _page(service, query, min(PAGE, limit - len(items)), marker)
        for turn in found.turns():
            await asyncio.sleep(0)
            items += turn
        if not (marker := found.marker):
            return items, None
        if len(items) >= limit:
            return items, f"{listing}.{urlsafe_b64encode(marker.encode()).decode()}"


def _query(prefix: str, delimiter: str) -> dict[str, str]:
    query = {"restype": "container", "comp": "list"}
    query |= {"prefix": prefix} if prefix else {}
    return query | ({"delimiter": delimiter} if delimiter else {})


def _fingerprint(service: BlobService, query: dict[str, str]) -> str:
    """Return a name for a listing: some services take the marker of another as a place in it."""
    listing = [service.account.url, service.options.container, *query.items()]
    return sha256(repr(listing).encode()).hexdigest()[:16]


def _marker(continuation: str, listing: str) -> str:
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
    asked = {**query, "maxresults": str(size), **({"marker": marker} if marker else {})}
    found = await service.retry(lambda: _read_page(service, asked))
    if marker and found.marker == marker:  # as when something on the way answers from a cache
        raise service.subject().error(ConnectError, "the listing does not go on after a page")
    return found


async def _read_page(service: BlobService, query: dict[str, str]) -> _Page:
    response = await service.send("GET", query=query)
    page = _Page()
    try:
        while piece := await response.content.read(_PIECE):
            page.feed(piece)
        page.close()
        if not page.whole:
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
    """One answer of List Blobs, parsed as it arrives.

    No tree is built: of the 20 elements each blob has, most are of no use here.  Entries are
    dictionaries of strings, which the garbage collector leaves alone, until they are asked for.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self.marker = ""
        self.whole = False
        self._fields: dict[str, str] = {}
        self._text = ""
        self._parser = ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.CharacterDataHandler = self._characters
        self._parser.EndElementHandler = self._end

    def feed(self, data: bytes) -> None:
        self._parser.Parse(data)

    def close(self) -> None:
        self._parser.Parse(b"", True)

    def release(self) -> None:
        """Part with the parser, which refers back and would keep the page in memory."""
        del self._parser

    def turns(self) -> Iterator[list[DataItem]]:
        """Yield the items, as many at once as take no time to speak of."""
        for start in range(0, len(self.entries), _TURN):
            yield [_item(fields) for fields in self.entries[start : start + _TURN]]

    def _refuse(self, *_: object) -> None:
        raise ExpatError("no listing has a document type, which could define endless entities")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text = ""
        if attributes and tag == "Name":
            self._fields |= attributes

    def _characters(self, text: str) -> None:
        self._text += text  # cut where the answer is

    def _end(self, tag: str) -> None:
        if tag in _WANTED:
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
            self.marker = self._text
        elif tag == "EnumerationResults":
            self.whole = True


def _item(fields: dict[str, str]) -> DataItem:
    name = fields.get("Name", "")
    if fields.get("Encoded") == "true":  # it has characters that XML cannot hold
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
    """Return the last part of a name that is not empty, or the name."""
    return name.rstrip("/").rpartition("/")[2] or name


@lru_cache(maxsize=4096)
def http_time(text: str) -> float | None:
    """Return the Unix seconds of an HTTP date; None if it is none."""
    try:
        _, day, month, year, clock, _ = text.split(" ")
        hour, minute, second = clock.split(":")
        moment = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute))
        return float(timegm((*moment, int(second))))
    except ValueError:
        return None
