"""List the folders of a web server: by the links of its pages, or by WebDAV."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree as ET

from datasources import ConnectError, DataItem
from datasources.objects import (
    ObjectPage,
    ObjectSubject,
    TransientError,
    folder_item,
    http_time,
    last_segment,
)

_DAV = "{DAV:}"
PROPFIND = (
    b'<?xml version="1.0"?><propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/>'
    b"<getlastmodified/><getetag/></prop></propfind>"
)
"""The body of a request for the entries of a folder (RFC 4918, 9.1)."""

ReadFolder = Callable[[str], Awaitable[list[DataItem]]]


async def scan_folders(
    read_folder: ReadFolder, prefix: str, delimiter: str, limit: int, marker: str
) -> ObjectPage:
    """Return one page of the names below a prefix, as `ObjectStore.scan` does.

    Names come in the order of their characters; the marker is the last name of a page. Folders are
    read one after the other, those before the marker not at all.

    Args:
        read_folder: Returns the entries of a folder, with their paths below the URL; none if there
            is no such folder.
        prefix: As for `scan`.
        delimiter: As for `scan`.
        limit: As for `scan`.
        marker: As for `scan`.
    """
    folder = prefix[: prefix.rfind("/") + 1]
    items: list[DataItem] = []
    walk = _walk(read_folder, folder, prefix, marker, descend=not delimiter)
    async for item in walk:
        items.append(item)
        if len(items) > limit:
            await walk.aclose()
            break
    page = items[:limit]
    next_marker = page[-1].path if len(items) > limit else ""
    return ObjectPage([item.path for item in page], page.__getitem__, next_marker)


async def _walk(
    read_folder: ReadFolder, folder: str, prefix: str, after: str, *, descend: bool
) -> AsyncGenerator[DataItem]:
    """Yield the entries after a name whose paths start with a prefix, in the order of the paths."""
    for item in sorted(await read_folder(folder), key=lambda item: item.path):
        path, is_folder = item.path, item.path.endswith("/")
        if is_folder and descend:
            within = path.startswith(prefix) or prefix.startswith(path)
            if within and (path > after or after.startswith(path)):
                async for below in _walk(read_folder, path, prefix, after, descend=True):
                    yield below
        elif path.startswith(prefix) and path > after:
            yield item


def items_of_links(page: bytes, charset: str | None, url: str, folder: str) -> list[DataItem]:
    """Return the direct children of a folder that its page links to; sizes are not known.

    Servers encode different characters, and so decoded paths are compared.

    Args:
        page: The HTML document.
        charset: Its encoding, None for UTF-8.
        url: The URL of the folder, which ends in a slash.
        folder: The path of the folder below the URL of the source; empty or ending in a slash.
    """
    parser = _Links()
    try:
        text = page.decode(charset or "utf-8", errors="replace")
    except LookupError:  # an encoding that Python does not know
        text = page.decode(errors="replace")
    parser.feed(text)
    base, names = urlsplit(url), set()
    above = unquote(base.path)
    for link in parser.targets:
        with suppress(ValueError):  # no URL
            target = urlsplit(urljoin(url, link))
            path = unquote(target.path)
            if (target.scheme, target.netloc.lower()) == (base.scheme, base.netloc.lower()):
                names |= {path[len(above) :]} if path.startswith(above) else set()
    return [_item(folder + name) for name in sorted(names) if is_child(name)]


def items_of_webdav(body: bytes, path: str, folder: str, subject: ObjectSubject) -> list[DataItem]:
    """Return the direct children of a folder in a response to PROPFIND.

    Args:
        body: The document.
        path: The path of the folder's URL, decoded, ending in a slash.
        folder: The path of the folder below the URL of the source; empty or ending in a slash.
        subject: The source, for messages.

    Raises:
        TransientError: The response is no such document.
    """
    try:
        if b"<!DOCTYPE" in body:  # it could define endless entities
            raise ET.ParseError
        root = ET.fromstring(body)  # noqa: S314  (without a document type)
    except ET.ParseError:
        root = ET.Element("none")
    if root.tag != f"{_DAV}multistatus":
        reason = "the answer is not a whole listing"
        raise TransientError(subject.error(ConnectError, reason))
    items = []
    for response in root.iterfind(f"{_DAV}response"):
        try:
            place = unquote(urlsplit(response.findtext(f"{_DAV}href", "")).path)
        except ValueError:  # no URL
            continue
        is_folder = response.find(f".//{_DAV}resourcetype/{_DAV}collection") is not None
        name = place.removeprefix(path).rstrip("/") + ("/" if is_folder else "")
        if place.startswith(path) and is_child(name):
            items.append(_dav_item(response, folder + name))
    return items


def is_child(name: str) -> bool:
    """Return True if a name, with a slash at the end for a folder, is one segment of a path."""
    segment = name.removesuffix("/")
    return segment not in ("", ".", "..") and "/" not in segment


def _item(path: str) -> DataItem:
    if path.endswith("/"):
        return folder_item(path)
    return DataItem(last_segment(path), path, metadata={"kind": "file"})


def _dav_item(response: ET.Element, path: str) -> DataItem:
    item = _item(path)
    if path.endswith("/"):
        return item
    size = response.findtext(f".//{_DAV}getcontentlength", "")
    item.size = int(size) if size.isdecimal() else None
    item.modified_at = http_time(response.findtext(f".//{_DAV}getlastmodified", ""))
    item.version = response.findtext(f".//{_DAV}getetag", "").strip('"') or None
    return item


class _Links(HTMLParser):
    """Collects the targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]
