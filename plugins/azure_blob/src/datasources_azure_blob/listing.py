"""List the blobs of a container page by page, each page parsed while it arrives.

The XML is parsed by hand with expat instead of into a tree or by azure-storage-blob, because
listing is the operation whose time grows with the size of a container: a page of 5,000 blobs has
100,000 elements, of which a sixth is used. See "Speed" in the README for the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from urllib.parse import unquote
from xml.parsers.expat import ExpatError, ParserCreate

import aiohttp

from datasources import ConnectError, DataItem
from datasources.objects import TransientError, folder_item, http_time, last_segment
from datasources_azure_blob.service import BlobService

MAX_PAGE = 5000
"""The most items that the service returns as one page.

https://learn.microsoft.com/rest/api/storageservices/list-blobs"""
_READ_SIZE = 64 * 1024  # bytes given to the parser at once
_BATCH = 100  # items made before other tasks of the event loop run; takes about 0.2 ms
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
    service: BlobService, prefix: str, *, include: str = "", page: int = MAX_PAGE
) -> AsyncIterator[DataItem]:
    """Yield the blobs whose names start with `prefix`, in the service's order, page by page.

    Every entry is yielded as the service lists it, also the markers of folders.
    The paths of the items are names in the container.

    Args:
        service: The container.
        prefix: The beginning of the names; empty for all.
        include: The parameter `include` of the request, such as `snapshots`.
        page: Items per request, `MAX_PAGE` at most.
    """
    query = list_query(prefix) | ({"include": include} if include else {})
    marker = ""
    while True:
        answer = await service.retries().call(partial(read_page, service, query, page, marker))
        for batch in batches(answer.entries):
            await asyncio.sleep(0)  # 5,000 items at once would hold up the event loop
            for entry in batch:
                yield item_of(entry, name_of(entry))
        if not (marker := answer.next_marker):
            return


def batches(entries: list[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Yield the entries, as many at a time as take about 0.2 ms to become items."""
    for start in range(0, len(entries), _BATCH):
        yield entries[start : start + _BATCH]


def list_query(prefix: str, delimiter: str = "") -> dict[str, str]:
    """Return the parameters of List Blobs; with a delimiter, names are grouped up to it."""
    query = {"restype": "container", "comp": "list"}
    query |= {"prefix": prefix} if prefix else {}
    return query | ({"delimiter": delimiter} if delimiter else {})


async def read_page(service: BlobService, query: dict[str, str], size: int, marker: str) -> Page:
    """Request one page of a listing, once.

    Raises:
        TransientError: The response is no listing, or broke off.
    """
    query = {**query, "maxresults": str(size), **({"marker": marker} if marker else {})}
    response = await service.send("GET", query=query)
    page = Page()
    try:
        while data := await response.content.read(_READ_SIZE):
            page.feed(data)
        page.close()
        if not page.complete:
            raise ExpatError("another document")
    except (aiohttp.ClientError, OSError) as exc:
        raise service.http.error_of(exc, service.account.url, service.subject()) from None
    except ExpatError as exc:
        raise TransientError(
            service.subject().error(ConnectError, "the answer is not a whole listing")
        ) from exc
    finally:
        page.release()
        response.close()
    return page


class Page:
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
        self._metadata_depth = 0  # elements that are open, from <Metadata> inwards
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

    def _on_doctype(self, *_: object) -> None:
        raise ExpatError("no listing has a document type, which could define endless entities")

    def _on_start(self, tag: str, attributes: dict[str, str]) -> None:
        self._text = ""
        if self._metadata_depth or tag == "Metadata":
            self._metadata_depth += 1
        elif attributes and tag == "Name":
            self._fields |= attributes

    def _on_text(self, text: str) -> None:
        self._text += text  # one text arrives in several calls if `feed` cut it

    def _on_end(self, tag: str) -> None:
        if self._metadata_depth:
            self._metadata_depth -= 1
            self._on_metadata(tag)
        elif tag in _ELEMENTS:
            if self._text:
                self._fields[tag] = self._text
                self._text = ""
        elif tag in ("Blob", "BlobPrefix"):
            self._fields["kind"] = tag
            self.entries.append(self._fields)
            self._fields = {}
        elif tag == "NextMarker":
            self.next_marker = self._text
        elif tag == "EnumerationResults":
            self.complete = True

    def _on_metadata(self, tag: str) -> None:
        # Names of metadata are the user's, and may be those of other elements; case is ignored.
        if tag.lower() == "hdi_isfolder" and self._text.strip().lower() == "true":
            self._fields["hdi_isfolder"] = "true"


def name_of(fields: dict[str, str]) -> str:
    """Return the name in an entry."""
    name = fields.get("Name", "")
    # Names with characters that XML cannot hold are percent-encoded.
    return unquote(name) if fields.get("Encoded") == "true" else name


def item_of(fields: dict[str, str], name: str) -> DataItem:
    """Return an entry of that name as an item; a `BlobPrefix` becomes a folder."""
    if fields["kind"] == "BlobPrefix":
        return folder_item(name)
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
