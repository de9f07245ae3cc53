"""List, describe and fetch the files below one URL of a web server that lists directories."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any, Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

import aiohttp
from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    ConnectorOptions,
    DataFetchError,
    DataItem,
    DataSourceConnector,
    ItemNotFoundError,
    PermissionDeniedError,
    Workspace,
)
from pydantic import Field, SecretStr, field_validator
from yarl import URL

_CHUNK = 256 * 1024  # bytes written at once
_READ_TIMEOUT = 30.0  # seconds without a byte after which a read fails
_ERRORS: dict[int, tuple[type[ConnectorError], str]] = {
    401: (AuthenticationError, "the server refuses the credentials"),
    403: (PermissionDeniedError, "the server does not allow it"),
    404: (ItemNotFoundError, "it does not exist"),
    410: (ItemNotFoundError, "it is gone"),
}


class HttpDirectoryOptions(ConnectorOptions):
    """The URL of the listing, and the credentials."""

    url: str = Field(
        description="The topmost page of the listing; nothing above it is read.",
        examples=["https://files.example.com/reports/"],
    )
    user: str = Field(default="", description="Name for basic authentication.")
    password: SecretStr | None = Field(default=None, description="Password that goes with it.")

    sample_identifiers = (("2024/january.csv", "one file, by its path below the URL"),)

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be a URL that starts with http:// or https://")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("it must hold no query, fragment, user or password")
        return url.rstrip("/") + "/"

    def hosts(self) -> list[str]:
        """Return the host of the URL, for the host application's policy."""
        return [urlsplit(self.url).hostname or ""]

    def authorization(self) -> dict[str, str]:
        """Return the header of basic authentication; none without a password."""
        pair = f"{self.user}:{self.password.get_secret_value()}" if self.password else ""
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"} if pair else {}


class HttpDirectoryConnector(DataSourceConnector):
    """Reads through one session of aiohttp, which pools connections.

    Redirects are errors: they could lead to a host that the policy does not allow.
    """

    type = "http_directory"
    api_version = 1
    options_class = HttpDirectoryOptions
    options: HttpDirectoryOptions
    shareable = True

    @classmethod
    def identifier_kind(cls, identifier: str) -> Literal["item", "query"]:
        return "item"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        return identifier if _is_path(identifier) else None

    async def connect(self) -> bool:
        if self._connection is None:
            pool = self.pool_config
            timeout = aiohttp.ClientTimeout(
                sock_connect=pool.connect_timeout, sock_read=_READ_TIMEOUT
            )
            self._connection = aiohttp.ClientSession(
                headers={"Accept-Encoding": "identity", **self.options.authorization()},
                timeout=timeout,
                connector=aiohttp.TCPConnector(limit=pool.max_size),
                auto_decompress=False,
            )
            try:
                await self._page("")
            except BaseException as exc:
                await self.disconnect()
                if isinstance(exc, ItemNotFoundError):
                    raise ConnectError(str(exc)) from exc
                raise
        return True

    async def disconnect(self) -> None:
        session, self._connection = self._connection, None
        if session is not None:
            await session.close()

    async def test_connection(self) -> bool:
        try:
            await self._page("")
        except ConnectorError:
            return False
        return True

    async def list_items(self, path: str | None = None) -> list[DataItem]:
        if path and path.endswith("/"):
            return await self._page(path.removeprefix("/"))
        return [item async for item in self.iter_items(path)]

    async def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield all files below a path, page by page."""
        pending = [f"{path}/" if path else ""]
        while pending:
            for item in await self._page(pending.pop()):
                if item.metadata:  # a folder
                    pending.append(item.path)
                else:
                    yield item

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        target = Workspace.of(workspace)
        target.require_format(None)
        async with self._request("GET", identifier) as response:
            with target.create(identifier, size=response.content_length) as file:
                file.version = response.headers.get("ETag")
                async for chunk in response.content.iter_chunked(_CHUNK):
                    file.write(chunk)
        return file.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        async with self._request("HEAD", identifier) as response:
            modified = response.headers.get("Last-Modified")
            return {
                "path": identifier,
                "size": response.content_length,
                "modified_at": parsedate_to_datetime(modified).timestamp() if modified else None,
                "content_type": response.content_type,
                "etag": response.headers.get("ETag"),
            }

    async def _page(self, folder: str) -> list[DataItem]:
        """Return the links of a folder's page that lead to its direct children."""
        async with self._request("GET", folder) as response:
            links = _Links(await response.text(errors="replace"))
        base = self._url(folder)
        urls = {urljoin(base, link).partition("#")[0].partition("?")[0] for link in links.targets}
        names = sorted(unquote(url[len(base) :]) for url in urls if url.startswith(base))
        return [_item(folder, name) for name in names if name.strip("/") and "/" not in name[:-1]]

    @asynccontextmanager
    async def _request(self, method: str, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the response to a request for a path, with aiohttp's errors mapped to ours."""
        session: aiohttp.ClientSession = self.require_connection()
        subject = f"{path!r} of {self.options.url!r}" if path else f"{self.options.url!r}"
        url = URL(self._url(path), encoded=True)
        try:
            async with session.request(method, url, allow_redirects=False) as response:
                if response.status != 200:
                    default = (DataFetchError, f"the server answered {response.status}")
                    error_class, reason = _ERRORS.get(response.status, default)
                    raise error_class(f"{subject}: {reason}", code=str(response.status))
                yield response
        except (aiohttp.ClientConnectionError, TimeoutError) as exc:
            reason = str(exc) or "no answer"
            raise ConnectError(f"{subject}: the server cannot be reached: {reason}") from exc
        except aiohttp.ClientError as exc:
            raise DataFetchError(f"{subject}: {exc}") from exc
        except RuntimeError as exc:  # aiohttp's error for a session that is closed meanwhile
            if not session.closed:
                raise
            raise ConnectError(f"{subject}: the source was disconnected") from exc

    def _url(self, path: str) -> str:
        """Return the URL of a path; one with dot segments would lead elsewhere."""
        if path and not _is_path(path.removesuffix("/")):
            raise ItemNotFoundError(f"{path!r} is no path of a file below {self.options.url!r}")
        # A lone surrogate is sent as bytes that match no name, so the server answers 404.
        return self.options.url + quote(path, errors="surrogatepass")


def _is_path(path: str) -> bool:
    return {"", ".", ".."}.isdisjoint(path.split("/"))


def _item(folder: str, name: str) -> DataItem:
    metadata = {"kind": "folder"} if name.endswith("/") else {}
    return DataItem(name.rstrip("/"), folder + name, metadata=metadata)


class _Links(HTMLParser):
    """Collects the targets of a page's links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]
