"""The files below one URL, as a web server lists them: crawled, described, fetched."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any
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
_SILENCE = 30.0  # seconds without a byte after which a read fails
_STATUS: dict[int, tuple[type[ConnectorError], str]] = {
    401: (AuthenticationError, "the server refuses the credentials"),
    403: (PermissionDeniedError, "the server does not allow it"),
    404: (ItemNotFoundError, "it does not exist"),
    410: (ItemNotFoundError, "it is gone"),
}


class HttpDirectoryOptions(ConnectorOptions):
    """Where the listing is, and who reads it."""

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
        return [urlsplit(self.url).hostname or ""]

    def authorization(self) -> dict[str, str]:
        """Return the header that lets in."""
        pair = f"{self.user}:{self.password.get_secret_value()}" if self.password else ""
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"} if pair else {}


class HttpDirectoryConnector(DataSourceConnector):
    """Reads through one session, which pools; redirects, which may lead elsewhere, are errors."""

    type = "http_directory"
    api_version = 1
    options_class = HttpDirectoryOptions
    options: HttpDirectoryOptions
    shareable = True

    async def connect(self) -> bool:
        if self._connection is None:
            pool = self.pool_config
            times = aiohttp.ClientTimeout(sock_connect=pool.connect_timeout, sock_read=_SILENCE)
            self._connection = aiohttp.ClientSession(
                headers={"Accept-Encoding": "identity", **self.options.authorization()},
                timeout=times,
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
        waiting = [f"{path}/" if path else ""]
        while waiting:
            for item in await self._page(waiting.pop()):
                if item.metadata:
                    waiting.append(item.path)
                else:
                    yield item

    async def fetch_data(self, identifier: str, workspace: str) -> str:
        target = Workspace.of(workspace)
        target.require_format(None)
        async with self._get("GET", identifier) as answer:
            with target.create(identifier, size=answer.content_length) as file:
                file.version = answer.headers.get("ETag")
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    file.write(chunk)
        return file.path

    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        async with self._get("HEAD", identifier) as answer:
            changed = answer.headers.get("Last-Modified")
            return {
                "path": identifier,
                "size": answer.content_length,
                "modified_at": parsedate_to_datetime(changed).timestamp() if changed else None,
                "content_type": answer.content_type,
                "etag": answer.headers.get("ETag"),
            }

    async def _page(self, folder: str) -> list[DataItem]:
        async with self._get("GET", folder) as answer:
            links = _Links(await answer.text(errors="replace"))
        here = self._url(folder)
        found = {urljoin(here, link).partition("#")[0].partition("?")[0] for link in links.found}
        names = sorted(unquote(url[len(here) :]) for url in found if url.startswith(here))
        return [_item(folder, name) for name in names if name.strip("/") and "/" not in name[:-1]]

    @asynccontextmanager
    async def _get(self, method: str, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        session: aiohttp.ClientSession = self.require_connection()
        what = f"{path!r} of {self.options.url!r}" if path else f"{self.options.url!r}"
        url = URL(self._url(path), encoded=True)
        try:
            async with session.request(method, url, allow_redirects=False) as answer:
                if answer.status != 200:
                    default = (DataFetchError, f"the server answered {answer.status}")
                    kind, reason = _STATUS.get(answer.status, default)
                    raise kind(f"{what}: {reason}", code=str(answer.status))
                yield answer
        except (aiohttp.ClientConnectionError, TimeoutError) as exc:
            reason = str(exc) or "no answer"
            raise ConnectError(f"{what}: the server cannot be reached: {reason}") from exc
        except aiohttp.ClientError as exc:
            raise DataFetchError(f"{what}: {exc}") from exc
        except RuntimeError as exc:
            if not session.closed:
                raise
            raise ConnectError(f"{what}: the source was disconnected") from exc

    def _url(self, path: str) -> str:
        if path and {"", ".", ".."} & set(path.removesuffix("/").split("/")):
            raise ItemNotFoundError(f"{path!r} is no path of a file below {self.options.url!r}")
        # A name that is no Unicode text goes out as bytes that no server knows.
        return self.options.url + quote(path, errors="surrogatepass")


def _item(folder: str, name: str) -> DataItem:
    metadata = {"kind": "folder"} if name.endswith("/") else {}
    return DataItem(name.rstrip("/"), folder + name, metadata=metadata)


class _Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]
