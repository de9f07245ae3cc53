"""Listing a container page by page, each page parsed while it arrives."""

from __future__ import annotations

import asyncio
from calendar import timegm
from collections.abc import AsyncIterator
from functools import lru_cache
from urllib.parse import unquote
from xml.parsers.expat import ExpatError, ParserCreate

import aiohttp

from datasources import ConnectError, DataItem
from datasources_azure_blob.errors import TransientError
from datasources_azure_blob.service import BlobService, cause

PAGE = 5000
"""Items of one page, the service's most."""
_PIECE = 64 * 1024
_TURN = 500  # items
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PROPERTIES = (
    ("Content-Type", "content_type"),
    ("Content-Encoding", "content_encoding"),
    ("Content-MD5", "content_md5"),
    ("AccessTier", "tier"),
    ("BlobType", "blob_type"),
)
_WANTED = {"Name", "Etag", "Content-Length", "Last-Modified", "ResourceType"}
_WANTED |= {tag for tag, _ in _PROPERTIES}


async def list_blobs(
    service: BlobService, prefix: str, *, delimiter: str = "", page: int = PAGE
) -> AsyncIterator[DataItem]:
    """Yield the blobs whose names start with `prefix`, in the service's order, page by page.

    With a delimiter, names that go on after one are put together as a folder, which ends with
    the delimiter.  The paths of the items are names in the container.
    """
    query = {"restype": "container", "comp": "list", "maxresults": str(page)}
    query |= {"prefix": prefix} if prefix else {}
    query |= {"delimiter": delimiter} if delimiter else {}
    while True:

        async def attempt() -> _Page:
            return await _read_page(service, query)

        found = await service.retried(attempt)
        for count, fields in enumerate(found.entries):
            if count % _TURN == 0:
                await asyncio.sleep(0)  # a page at once would hold up the event loop
            yield _item(fields)
        if not found.marker:
            return
        query["marker"] = found.marker


async def _read_page(service: BlobService, query: dict[str, str]) -> _Page:
    response = await service.send("GET", query=query)
    page = _Page()
    try:
        while piece := await response.content.read(_PIECE):
            page.feed(piece)
        page.close()
    except (aiohttp.ClientError, OSError) as exc:
        raise service.lost(exc, None) from cause(exc)
    except ExpatError as exc:
        raise TransientError(
            service.subject().error(ConnectError, "the listing is not whole XML")
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
        self._fields: dict[str, str] = {}
        self._text = ""
        self._parser = ParserCreate()
        self._parser.buffer_text = True
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


def _item(fields: dict[str, str]) -> DataItem:
    name = fields.get("Name", "")
    if fields.get("Encoded") == "true":  # it has characters that XML cannot hold
        name = unquote(name)
    if fields["kind"] == "BlobPrefix":
        return DataItem(last_segment(name), name, metadata={"kind": "folder"})
    metadata = {"kind": "blob", "etag": fields.get("Etag", "").strip('"')}
    for tag, key in _PROPERTIES:
        if tag in fields:
            metadata[key] = fields[tag]
    size = fields.get("Content-Length")
    return DataItem(
        last_segment(name),
        name,
        int(size) if size else None,
        http_time(fields.get("Last-Modified", "")),
        metadata,
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
