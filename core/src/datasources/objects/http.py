"""Send a store's requests over one session of aiohttp, whose addresses the policy checks."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from calendar import timegm
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from io import BytesIO
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import aiohttp
from yarl import URL

from datasources.errors import ConnectError, ConnectorError
from datasources.objects.failures import ObjectSubject, TransientError
from datasources.objects.options import ObjectStoreOptions
from datasources.objects.proxies import proxy_for
from datasources.objects.store import ObjectBody, ObjectInfo

_MAX_BODY = 256 * 1024 * 1024  # bytes; a page of links to a million files has about 100 MiB
_MAX_ERROR_BODY = 64 * 1024  # bytes; an error of a service has a few hundred
# Bytes; reading pauses while twice as many wait. asyncio receives 256 KiB at once: with less, aiohttp
# would pause and resume reading for each of these.
_READ_BUFFER = 128 * 1024
_CLOSE_TIMEOUT = 1.0  # seconds that `close` waits for sockets
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class ObjectHttp:
    """A session with the servers of one store; call `open` before use and `close` afterwards.

    It may be used by many tasks of one event loop at once. Redirects are not followed.

    Args:
        options: The options of the source, for its timeouts.
        connections: The most requests under way at the same time; further ones wait.
        check_address: As `DataSourceConnector.check_address`; called before each connection, also
            those to proxies.
        service: The kind of server that answers, for messages.
    """

    session: aiohttp.ClientSession

    def __init__(
        self,
        options: ObjectStoreOptions,
        *,
        connections: int,
        check_address: Callable[[str], None],
        service: str,
    ) -> None:
        self._options = options
        self._connections = connections
        self._check_address = check_address
        self._service = service
        self._proxies: dict[str, str | None] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()

    async def open(self, url: str, subject: ObjectSubject) -> None:
        """Make the session for a URL, without sending anything.

        Raises:
            ConnectError: The environment names a proxy that cannot be used.
        """
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._options.connect_timeout,
            sock_read=self._options.read_timeout,
        )
        self._proxy(url, subject)
        tls = await asyncio.to_thread(ssl.create_default_context) if url[:6] == "https:" else True
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ssl=tls, socket_factory=self._make_socket
            ),
            timeout=timeout,
            read_bufsize=_READ_BUFFER,
            auto_decompress=False,  # objects are fetched as they are stored
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Close the session, and wait until its sockets are closed, for a second at most.

        A connection that is closed during an upload closes its socket only when its send buffer is
        written, after `session.close()` has returned; the event loop may end before that.
        """
        await self.session.close()
        deadline = monotonic() + _CLOSE_TIMEOUT
        # Sockets have no event for this.
        while any(s.fileno() >= 0 for s in self._sockets) and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_CLOSE_TIMEOUT / 100)

    async def request(
        self,
        method: str,
        url: str,
        subject: ObjectSubject,
        *,
        headers: Mapping[str, str],
        data: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request once and return the response, of any status, with its body unread.

        The caller must close the response.

        Args:
            method: The HTTP method.
            url: The URL, encoded as it is to be sent.
            subject: The container or object, for messages.
            headers: All headers of the request.
            data: The body.

        Raises:
            TransientError: No answer came; the request may be sent again.
            ConnectorError: The request failed, and would fail again.
        """
        if self.session.closed:
            raise disconnected_error(subject)
        try:
            return await self.session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=None if data is None else BytesIO(data),  # which aiohttp sends in pieces
                proxy=self._proxy(url, subject),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as exc:  # TimeoutError is an OSError
            raise self.error_of(exc, url, subject) from safe_cause(exc)
        except RuntimeError as exc:
            if not self.session.closed:
                raise
            raise disconnected_error(subject) from exc

    async def read(self, response: aiohttp.ClientResponse, subject: ObjectSubject) -> bytes:
        """Return the body of a small response, and close it.

        Raises:
            TransientError: The connection broke.
            ConnectError: The body has more than 256 MiB.
        """
        body = bytearray()
        try:
            while data := await response.content.readany():
                body += data
                if len(body) > _MAX_BODY:
                    reason = f"the answer has more than {_MAX_BODY >> 20} MiB"
                    raise subject.error(ConnectError, reason)
        except (aiohttp.ClientError, OSError) as exc:
            raise self.error_of(exc, str(response.url), subject) from safe_cause(exc)
        finally:
            response.close()
        return bytes(body)

    async def read_error(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the body of a refusal, as much of it as arrives, and close the response."""
        body = bytearray()
        try:
            while len(body) < _MAX_ERROR_BODY and (data := await response.content.readany()):
                body += data
        except (aiohttp.ClientError, OSError):
            pass  # status, headers and the part of the body that has arrived are used
        finally:
            response.close()
        return bytes(body)

    def body(
        self, response: aiohttp.ClientResponse, info: ObjectInfo, subject: ObjectSubject
    ) -> ObjectBody:
        """Return the body of a response to a request for a range."""
        return _HttpBody(self, response, info, subject)

    def error_of(
        self, exc: BaseException, url: str, subject: ObjectSubject
    ) -> ConnectorError | TransientError:
        """Return the error for an exception of aiohttp while sending a request or reading a body.

        They are transient, but for a closed session, an untrusted certificate and a proxy that
        refuses.
        """
        if self.session.closed:
            return disconnected_error(subject)
        host = urlsplit(url).netloc
        if isinstance(exc, aiohttp.ClientSSLError):
            return subject.error(
                ConnectError,
                f"no trusted TLS connection to {host}: {exc.os_error}; SSL_CERT_FILE can name a "
                "file with the certificates of further authorities",
            )
        if isinstance(exc, aiohttp.ClientHttpProxyError) and exc.status < 500:
            reason = "the proxy asks for credentials"
            if exc.status != 407:
                reason = f"the proxy refuses to connect to {host}, with status {exc.status}"
            return subject.error(ConnectError, reason, code=str(exc.status))
        return TransientError(subject.error(ConnectError, self._reason(exc, host)))

    def _reason(self, exc: BaseException, host: str) -> str:
        if isinstance(exc, aiohttp.ClientConnectorDNSError):
            return f"the host {host} cannot be resolved"
        if isinstance(exc, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
            return f"the proxy does not lead to {host}"
        if isinstance(exc, aiohttp.ClientConnectorError):
            return f"cannot connect to {host}: {exc.os_error.strerror or exc.os_error}"
        if isinstance(exc, aiohttp.ConnectionTimeoutError):
            return f"no connection to {host} within {self._options.connect_timeout:g} s"
        if isinstance(exc, TimeoutError):
            return f"no byte from {host} within {self._options.read_timeout:g} s"
        if isinstance(exc, aiohttp.ClientResponseError):
            parser_message = exc.message.partition("\n")[0].rstrip(":")
            return f"{host} does not answer as {self._service} does: {parser_message}"
        return f"the connection to {host} was lost"

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket for one entry of `getaddrinfo`, which aiohttp connects to its address.

        Raises:
            PolicyError: The policy does not allow the address.
        """
        self._check_address(address[4][0])
        new_socket = socket.socket(*address[:3])
        self._sockets.add(new_socket)
        return new_socket

    def _proxy(self, url: str, subject: ObjectSubject) -> str | None:
        """Return the proxy for a URL; it is looked up once for each server."""
        scheme, _, rest = url.partition("://")
        origin = f"{scheme}://{rest.partition('/')[0]}"
        if origin not in self._proxies:
            self._proxies[origin] = proxy_for(origin, subject)
        return self._proxies[origin]


class _HttpBody(ObjectBody):
    """The body of a response."""

    def __init__(
        self,
        http: ObjectHttp,
        response: aiohttp.ClientResponse,
        info: ObjectInfo,
        subject: ObjectSubject,
    ) -> None:
        self.info = info
        self.partial = response.status == 206
        place = content_range(response.headers)
        self.start = place[0] if place else -1
        self._http = http
        self._response = response
        self._subject = subject

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            url = str(self._response.url)
            raise self._http.error_of(exc, url, self._subject) from safe_cause(exc)
        except RuntimeError as exc:
            if not self._http.session.closed:
                raise
            raise disconnected_error(self._subject) from exc

    def close(self) -> None:
        self._response.close()


def disconnected_error(subject: ObjectSubject) -> ConnectorError:
    """Return the error for a request during which the session was closed.

    aiohttp raises a bare RuntimeError then, at several places.
    """
    return subject.error(ConnectError, "the source was disconnected")


def safe_cause(exc: BaseException) -> BaseException | None:
    """Return the exception to chain, or None if its text has a URL, of the request or the proxy.

    The one may hold a signature, the other a password.
    """
    return None if isinstance(exc, (aiohttp.ClientResponseError, aiohttp.InvalidURL)) else exc


def content_range(headers: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the first byte of a partial response and the size of the whole; None if not told."""
    part = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    return (int(part[1]), int(part[3])) if part else None


def content_size(headers: Mapping[str, str]) -> int | None:
    """Return the bytes of the whole object that a response describes; None if not told."""
    place = content_range(headers)
    size = str(place[1]) if place else headers.get("Content-Length", "")
    return int(size) if size.isdecimal() else None


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds in `Retry-After`, which is a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        return 0.0


def clock_note(headers: Mapping[str, str], minutes: int = 15) -> str:
    """Return a note for a message if this machine's clock differs by more minutes than a signature may.

    Services refuse a signature whose date is further off than a quarter of an hour.
    """
    try:
        server_time = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (ValueError, OverflowError):
        return ""
    skew = abs(time() - server_time) / 60
    return f" (this machine's clock is {skew:.0f} minutes off)" if skew > minutes else ""


@lru_cache(maxsize=4096)
def http_time(text: str) -> float | None:
    """Return an HTTP date (RFC 9110, IMF-fixdate) as Unix seconds, or None if it is not one."""
    try:
        _, day, month, year, clock, _ = text.split(" ")
        hour, minute, second = clock.split(":")
        date = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute))
        return float(timegm((*date, int(second))))
    except (ValueError, OverflowError):
        return None
