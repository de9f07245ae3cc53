"""Serve the files below one URL of a web server as a source."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    DataItem,
    ItemNotFoundError,
    PermissionDeniedError,
)
from datasources.objects import (
    ObjectBody,
    ObjectConnector,
    ObjectHttp,
    ObjectInfo,
    ObjectPage,
    ObjectSubject,
    TransientError,
    clock_note,
    content_size,
    http_time,
    last_segment,
    retry_after,
)
from datasources_object_store.checking import check_within
from datasources_object_store.http_listing import (
    PROPFIND,
    items_of_links,
    items_of_webdav,
    scan_folders,
)
from datasources_object_store.http_options import HTTPFilesOptions

_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_ERRORS: dict[int, tuple[type[ConnectorError], str]] = {
    401: (AuthenticationError, "the server refuses the credentials"),
    403: (PermissionDeniedError, "the server does not allow it"),
    404: (ItemNotFoundError, "it does not exist"),
    407: (ConnectError, "the proxy asks for credentials"),
    410: (ItemNotFoundError, "it is gone"),
    412: (DataFetchError, "it changed while it was read; fetch it again"),
    416: (DataFetchError, "it has no such range"),
}
_REDIRECTS = (301, 302, 303, 307, 308)


class FilesSubject(ObjectSubject):
    """The URL of a source or a file below it, as error messages name it."""

    container_noun = "server"
    object_noun = "file"


class HTTPFilesConnector(ObjectConnector):
    """Reads through one session. No redirect is followed: it could lead anywhere.

    The mark of a file's content is its ETag, or the time of its last change with its size; a file of
    which the server tells neither is read in one piece, and not resumed.
    """

    type = "http_files"
    api_version = 1
    options_class = HTTPFilesOptions
    options: HTTPFilesOptions
    subject_class = FilesSubject
    distribution = "datasources-object-store"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the path of a file; None for a path that is no file's."""
        return identifier if is_path(identifier) else None

    def object_name(self, identifier: str) -> str:
        """Return the path below the URL; one with dot segments would lead elsewhere."""
        name = super().object_name(identifier)
        if not is_path(identifier):
            raise self.subject(name).error(ItemNotFoundError, "no file can have this path")
        return name

    async def open_store(self) -> ObjectHttp:
        """Return the session with the server."""
        http = ObjectHttp(
            self.options,
            connections=self.pool_config.max_size,
            check_address=self.check_address,
            service="a web server",
        )
        await http.open(self.options.url, self.subject())
        return http

    async def close_store(self, store: ObjectHttp) -> None:
        """Close the session."""
        await store.close()

    async def check_store(self, store: ObjectHttp) -> None:
        """Read the topmost folder; without listings, check that the server answers."""

        async def check() -> None:
            try:
                if self.options.listing == "none":
                    (await self._send(store, "HEAD", self.options.prefix)).close()
                else:
                    await self._read_folder(store, self.options.prefix)
            except ItemNotFoundError as exc:
                if self.options.listing != "none":
                    raise self.subject().error(ConnectError, "there is no such folder") from exc
            except DataFetchError as exc:
                raise self.subject().error(ConnectError, str(exc), code=exc.code) from exc

        await check_within(self.options.connect_timeout, check, self.subject())

    async def head_object(
        self,
        name: str,
        *,
        version: str | None = None,  # noqa: ARG002  (there are none)
        etag: str | None = None,
    ) -> ObjectInfo:
        """Describe a file: `modified_at` (Unix seconds or None) and `content_type`."""
        response = await self._send(self._http, "HEAD", name)
        response.close()
        return self._info(name, response, etag)

    async def read_object(
        self,
        name: str,
        start: int,
        stop: int,
        *,
        version: str | None = None,  # noqa: ARG002  (there are none)
        etag: str | None = None,
    ) -> ObjectBody:
        """Request a range of a file; the whole of one that has no mark."""
        part = {"Range": f"bytes={start}-{stop - 1}"}
        if start and not etag:
            reason = (
                "it can be read from its beginning only, as the server tells neither an ETag nor the "
                "time of its last change"
            )
            raise self.subject(name).error(DataFetchError, reason)
        try:
            response = await self._send(self._http, "GET", name, part)
        except DataFetchError as exc:
            if exc.code != "416" or start:
                raise
            # An empty file has no byte that a range could name.
            response = await self._send(self._http, "GET", name)
        try:
            info = self._info(name, response, etag)
            if response.status == 206 and not info.etag:
                response.close()
                response = await self._send(self._http, "GET", name)
                info = self._info(name, response, etag)
        except BaseException:
            response.close()
            raise
        body = self._http.body(response, info, self.subject(name))
        return _PartOfWhole(body, start, stop) if start and not body.partial else body

    async def scan(self, prefix: str, *, delimiter: str, limit: int, marker: str) -> ObjectPage:
        """Return one page of the paths below a prefix."""
        if self.options.listing == "none":
            reason = "'listing' is 'none'; files are fetched by their paths"
            raise self.subject().error(ConnectError, reason)
        if not is_path(prefix.removesuffix("/") or "x"):
            return ObjectPage([], [].__getitem__)
        store = self._http

        async def read_folder(folder: str) -> list[DataItem]:
            try:
                return await self._read_folder(store, folder)
            except ItemNotFoundError:
                return []  # deleted meanwhile, or the prefix is no folder's

        return await scan_folders(read_folder, prefix, delimiter, limit, marker)

    def subject(self, name: str | None = None) -> ObjectSubject:
        """Return the URL, or a file below it, as error messages name it."""
        return FilesSubject(self.options.url, name, self._secrets)

    @property
    def _http(self) -> ObjectHttp:
        http: ObjectHttp = self.require_connection()
        return http

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        return tuple(self.options.secret_values())

    def _url(self, name: str) -> str:
        return f"{self.options.url}/{quote(name, safe='/~')}"

    async def _read_folder(self, store: ObjectHttp, folder: str) -> list[DataItem]:
        """Return the entries of a folder.

        Raises:
            ItemNotFoundError: There is none.
        """
        url, subject = self._url(folder), self.subject(folder or None)
        if self.options.listing == "webdav":
            headers = {"Depth": "1", "Content-Type": "application/xml"}
            response = await self._send(store, "PROPFIND", folder, headers, PROPFIND)
            body = await store.read(response, subject)
            return items_of_webdav(body, unquote(urlsplit(url).path), folder, subject)
        response = await self._send(store, "GET", folder)
        if response.content_type not in ("text/html", "application/xhtml+xml"):
            response.close()
            raise subject.error(ConnectError, "the server shows no page of links for it")
        page = await store.read(response, subject)
        # In a thread, because a page of many links takes long to parse.
        return await asyncio.to_thread(items_of_links, page, response.charset, url, folder)

    async def _send(
        self,
        store: ObjectHttp,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request once; return the response, if it is a success, with its body unread."""
        subject = self.subject(name or None)
        all_headers = {
            "Accept-Encoding": "identity",
            **self.options.request_headers(),
            **(headers or {}),
        }
        response = await store.request(
            method, self._url(name), subject, headers=all_headers, data=data
        )
        if response.status < 300:
            return response
        await store.read_error(response)
        raise self._error(name, response)

    def _error(
        self, name: str, response: aiohttp.ClientResponse
    ) -> ConnectorError | TransientError:
        status, headers, subject = response.status, response.headers, self.subject(name or None)
        code = str(status)
        of_folder = not name or name.endswith("/")
        default_class = ConnectError if of_folder else DataFetchError
        if status in _REDIRECTS:
            location = unquote(headers.get("Location", "").partition("?")[0])
            if not of_folder and location.endswith(f"{last_segment(name)}/"):
                return subject.error(ItemNotFoundError, "it is a folder", code=code)
            reason = "the server redirects to another address, which is not followed"
            return subject.error(default_class, reason, code=code)
        default = (default_class, f"the server answered with status {status}")
        error_class, reason = _ERRORS.get(status, default)
        if error_class is AuthenticationError:
            reason += clock_note(headers)
        error = subject.error(error_class, reason, code=code)
        if status in _TRANSIENT_STATUSES:
            return TransientError(error, retry_after(headers))
        return error

    def _info(self, name: str, response: aiohttp.ClientResponse, etag: str | None) -> ObjectInfo:
        headers, subject = response.headers, self.subject(name)
        size = content_size(headers)
        if size is None:
            raise subject.error(DataFetchError, "the server does not tell its length")
        modified = http_time(headers.get("Last-Modified", ""))
        mark = headers.get("ETag", "").strip('"')
        if not mark and modified is not None:
            mark = f"{modified:.0f}-{size:x}"
        if etag and mark != etag:
            reason = "it changed while it was read; fetch it again"
            raise subject.error(DataFetchError, reason, code="412")
        properties: dict[str, Any] = {"modified_at": modified}
        properties["content_type"] = headers.get("Content-Type")
        return ObjectInfo(
            size,
            mark,
            headers.get("Content-Type"),
            headers.get("Content-Encoding", ""),
            properties=properties,
        )


class _PartOfWhole(ObjectBody):
    """A range of a file from a server that knows no ranges: what is before it is read in vain."""

    partial = True

    def __init__(self, body: ObjectBody, start: int, stop: int) -> None:
        self.info = body.info
        self.start = start
        self._body = body
        self._position = 0
        self._stop = min(stop, body.info.size)

    async def read(self) -> bytes:
        while self._position < self._stop and (data := await self._body.read()):
            begin = max(0, self.start - self._position)
            part = data[begin : self._stop - self._position]
            self._position += len(data)
            if part:
                return part
        return b""

    def close(self) -> None:
        self._body.close()


def is_path(path: str) -> bool:
    """Return True if a text can be the path of a file below a URL."""
    return "\\" not in path and {"", ".", ".."}.isdisjoint(path.split("/"))
