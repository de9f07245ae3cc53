"""The Blob service over plain HTTP: one session, one way to send, one way to try again."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from yarl import URL

from datasources import ConnectError, ConnectorError
from datasources_azure_blob.authorization import API_VERSION, Authorization, Request, authorization
from datasources_azure_blob.errors import Subject, TransientError, refused
from datasources_azure_blob.options import AzureBlobOptions

T = TypeVar("T")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_ERROR_BODY = 64 * 1024
_CLOSING = 1.0  # seconds at the most


class BlobService:
    """One container, reached through one HTTP session; open it before use."""

    session: aiohttp.ClientSession
    authorization: Authorization

    def __init__(self, options: AzureBlobOptions, *, connections: int) -> None:
        self.options = options
        self.account = options.account()
        self._connections = connections
        self._secrets = tuple(options.secret_values())
        endpoint = urlsplit(self.account.url)
        self._origin = f"{endpoint.scheme}://{endpoint.netloc}"
        self._path = f"{quote(endpoint.path)}/{quote(options.container)}"
        self._sas = self.account.sas or ""
        self._proxy: str | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()

    async def open(self) -> None:
        """Make the session; nothing is sent yet."""
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self.options.connect_timeout,
            sock_read=self.options.read_timeout,
        )
        secure = self._origin.startswith("https:")
        # Looked up once: aiohttp's own look-up costs each request two hops to a thread.
        self._proxy = _proxy(self._origin, self.subject())
        tls = await asyncio.to_thread(ssl.create_default_context) if secure else True
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ssl=tls, socket_factory=self._socket
            ),
            timeout=timeout,
            auto_decompress=False,  # a blob stored with gzip encoding arrives as it is stored
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
        )
        try:
            self.authorization = await authorization(
                self.options, self.account, self.session, self.subject()
            )
        except BaseException:
            await self.session.close()
            raise

    async def close(self) -> None:
        """Close the session and the credential."""
        try:
            await self.authorization.close()
        finally:
            await self.session.close()
            await self._closed()

    async def _closed(self) -> None:
        """Wait for connections that were cut off in mid-upload: they close once that is sent."""
        deadline = monotonic() + _CLOSING
        while any(s.fileno() >= 0 for s in self._sockets) and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_CLOSING / 100)

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    def subject(self, blob: str | None = None) -> Subject:
        """Return what messages say a request is about."""
        return Subject(self.options.container, blob, self._secrets)

    async def send(
        self,
        method: str,
        blob: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request once and return the answer of a success, its body unread.

        Raises:
            TransientError: Another attempt may succeed.
            ConnectorError: None can.
        """
        if self.session.closed:
            raise self.disconnected(blob)
        query = query or {}
        path = self._path if blob is None else f"{self._path}/{quote_name(blob)}"
        sent = {"x-ms-version": API_VERSION, **(headers or {})}
        await self.authorization.apply(Request(method, path, query, sent))
        tail = "&".join(filter(None, (urlencode(query, quote_via=quote), self._sas)))
        url = URL(f"{self._origin}{path}{'?' if tail else ''}{tail}", encoded=True)
        try:
            response = await self.session.request(
                method, url, headers=sent, proxy=self._proxy, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as exc:  # a timeout is an OSError as well
            raise self.lost(exc, blob) from cause(exc)
        except RuntimeError as exc:
            if not self.session.closed:
                raise
            raise self.disconnected(blob) from exc
        if response.status < 300:
            return response
        raise await self._refused(response, blob)

    async def _refused(self, response: aiohttp.ClientResponse, blob: str | None) -> Exception:
        body = bytearray()
        try:
            while len(body) < _ERROR_BODY and (piece := await response.content.readany()):
                body += piece
        except (aiohttp.ClientError, OSError):
            pass  # what has arrived is enough
        finally:
            response.close()
        if response.status == 401 and self.authorization.expire():
            return TransientError(self.subject(blob).error(ConnectError, "the token was refused"))
        return refused(self.subject(blob), response.status, response.headers, body)

    def disconnected(self, blob: str | None) -> ConnectorError:
        """Return the error for what was under way when the session was closed.

        aiohttp has a bare RuntimeError for it, at several places.
        """
        return self.subject(blob).error(ConnectError, "the source was disconnected")

    def lost(self, exc: BaseException, blob: str | None) -> Exception:
        """Return the error for a request or body that the network did not let through."""
        kind = ConnectError
        subject, host = self.subject(blob), urlsplit(self._origin).netloc
        if isinstance(exc, aiohttp.ClientSSLError):
            return subject.error(kind, f"no trusted TLS connection to {host}: {exc.os_error}")
        if isinstance(exc, aiohttp.ClientConnectorDNSError):
            reason = f"the host {host} cannot be resolved"
        elif isinstance(exc, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
            reason = f"the proxy does not lead to {host}"
        elif isinstance(exc, aiohttp.ClientConnectorError):
            reason = f"cannot connect to {host}: {exc.os_error.strerror or exc.os_error}"
        elif isinstance(exc, aiohttp.ConnectionTimeoutError):
            reason = f"no connection to {host} within {self.options.connect_timeout:g} s"
        elif isinstance(exc, TimeoutError):
            reason = f"no byte from {host} within {self.options.read_timeout:g} s"
        elif isinstance(exc, aiohttp.ClientResponseError):
            said = exc.message.partition("\n")[0].rstrip(":")
            reason = f"{host} does not answer as a Blob service does: {said}"
        else:
            reason = f"the connection to {host} was lost"
        return TransientError(subject.error(kind, reason))

    def retries(self) -> Retries:
        """Return the attempts that one request has."""
        return Retries(self.options.retries, self.options.retry_timeout)

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call until it ends without `TransientError` or the attempts are used up."""
        retries = self.retries()
        while True:
            try:
                return await attempt()
            except TransientError as failure:
                await retries.pause(failure)

    async def read(
        self,
        method: str,
        blob: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of a small answer, tried again where that can help."""

        async def attempt() -> tuple[Mapping[str, str], bytes]:
            response = await self.send(method, blob, query=query, headers=headers)
            try:
                return response.headers, await response.read()
            except (aiohttp.ClientError, OSError) as exc:
                raise self.lost(exc, blob) from cause(exc)
            finally:
                response.close()

        return await self.retried(attempt)


class Retries:
    """The further attempts of one request: doubling pauses with jitter, bounded twice."""

    def __init__(self, attempts: int, seconds: float) -> None:
        self._attempts = attempts
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Start counting again, as after an attempt that brought something."""
        self._used = 0
        self._deadline = monotonic() + self._seconds

    async def pause(self, failure: TransientError) -> None:
        """Wait before the next attempt, as long as the service asks at least.

        Raises:
            ConnectorError: There is no further attempt; it is the failure's error.
        """
        backoff = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._used)
        delay = max(failure.retry_after, backoff * random.uniform(0.5, 1))  # noqa: S311
        self._used += 1
        if self._used > self._attempts or monotonic() + delay > self._deadline:
            raise failure.error from failure.__cause__
        await asyncio.sleep(delay)


def has_dot_segments(name: str) -> bool:
    """Tell whether a name has `.` or `..` between slashes or backslashes, as paths have them."""
    return any(segment in (".", "..") for segment in re.split(r"[/\\]", name))


def quote_name(name: str) -> str:
    """Encode a blob's name as the rest of a URL's path, so that nobody on the way changes it."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    # Servers and proxies resolve dot segments and merge slashes, but not when they are encoded.
    odd = has_dot_segments(name) or "" in name.split("/")
    return quote(name, safe="~" if odd else "/~")


def _proxy(origin: str, subject: Subject) -> str | None:
    parts = urlsplit(origin)
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if found is None or proxy_bypass(parts.hostname or ""):
        return None
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        reason = "the proxy that the environment names is not one of HTTP"
        raise subject.error(ConnectError, reason)
    return proxy


def cause(exc: BaseException) -> BaseException | None:
    """Return what to chain: the exception, unless its text could hold a secret."""
    # The text of this one has the URL, and that may have a SAS.
    return None if isinstance(exc, aiohttp.ClientResponseError) else exc
