"""Send requests to the Blob service over one HTTP session, and retry them.

Reads use aiohttp directly instead of azure-storage-blob, whose work per request and per listed
blob takes several times as long as the transfer (tests/bench/azure_blob.py).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from weakref import WeakSet

import aiohttp
from yarl import URL

from datasources import ConnectError, ConnectorError, backoff
from datasources_azure_blob.account import Account
from datasources_azure_blob.authorization import (
    API_VERSION,
    Authorization,
    Request,
    key_authorization,
    token_authorization,
)
from datasources_azure_blob.errors import Subject, TransientError, error_from_response
from datasources_azure_blob.options import AzureBlobOptions, account_secrets
from datasources_azure_blob.proxies import proxy_for

T = TypeVar("T")

_FIRST_BACKOFF = 0.1  # seconds before the second attempt; doubled for each further one
_MAX_BACKOFF = 10.0  # seconds
_MAX_ERROR_BODY = 64 * 1024  # bytes; an error of the service has a few hundred
_CLOSE_TIMEOUT = 1.0  # seconds that `close` waits for sockets


class BlobService:
    """A client of one container; call `open` before use and `close` afterwards.

    It may be used by many tasks of one event loop at once; `connections` is the most requests
    that are under way at the same time, and further ones wait.
    """

    session: aiohttp.ClientSession
    authorization: Authorization

    def __init__(
        self,
        options: AzureBlobOptions,
        *,
        connections: int,
        check_address: Callable[[str], None] = lambda _: None,
        secret: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self.options = options
        self._check_address = check_address
        self._secret = secret
        self.account = options.account()
        self._connections = connections
        self._secrets = tuple(options.secret_values())
        endpoint = urlsplit(self.account.url)
        self._origin = f"{endpoint.scheme}://{endpoint.netloc}"
        self._path = f"{quote(endpoint.path)}/{quote(options.container)}"
        self._proxy: str | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def use_account(self) -> None:
        """Address requests without a blob to the account instead of the container."""
        self._path = f"{quote(urlsplit(self.account.url).path)}/"

    async def open(self) -> None:
        """Make the session and the credential, without sending anything.

        Raises:
            ConnectError: The environment names a proxy that cannot be used.
        """
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self.options.connect_timeout,
            sock_read=self.options.read_timeout,
        )
        secure = self._origin.startswith("https:")
        self._proxy = proxy_for(self._origin, self.subject())
        tls = await asyncio.to_thread(ssl.create_default_context) if secure else True
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ssl=tls, socket_factory=self._make_socket
            ),
            timeout=timeout,
            auto_decompress=False,  # blobs are fetched as they are stored
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
        )
        try:
            self.authorization = key_authorization(self.account)
            if self.options.uses_identity:
                self.authorization = await token_authorization(
                    self.options, self.session, self.subject(), self._secret
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
            await self._wait_for_sockets()

    async def _wait_for_sockets(self) -> None:
        """Wait until the sockets are closed, for `_CLOSE_TIMEOUT` at most.

        A connection that is closed during an upload closes its socket only when its send buffer is
        written, after `session.close()` has returned; the event loop may end before that.
        """
        deadline = monotonic() + _CLOSE_TIMEOUT
        # Sockets have no event for this.
        while any(s.fileno() >= 0 for s in self._sockets) and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_CLOSE_TIMEOUT / 100)

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket for one entry of `getaddrinfo`, which aiohttp connects to its address.

        All connections are made here: of blobs, of tokens, to proxies, and after redirects.

        Raises:
            PolicyError: The policy does not allow the address.
        """
        self._check_address(address[4][0])
        new_socket = socket.socket(*address[:3])
        self._sockets.add(new_socket)
        return new_socket

    def subject(self, blob: str | None = None) -> Subject:
        """Return the container, or a blob of it, as error messages name it."""
        return Subject(self.options.container, blob, self._secrets)

    async def send(
        self,
        method: str,
        blob: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request once and return the response, if it is a success, with its body unread.

        The caller must close the response.

        Args:
            method: The HTTP method.
            blob: Name of the blob, decoded; None for the container.
            query: Parameters of the operation, decoded; a SAS is added to them.
            headers: Headers of the operation; version and authorization are added to them.

        Raises:
            TransientError: The request failed and may be sent again.
            ConnectorError: The request failed, and would fail again.
        """
        if self.session.closed:
            raise self.disconnected_error(blob)
        query = query or {}
        path = self._path if blob is None else f"{self._path}/{quote_name(blob)}"
        all_headers = {"x-ms-version": API_VERSION, **(headers or {})}
        account = self.account
        await self.authorization.apply(Request(method, path, query, all_headers))
        # The SAS is appended as it was given: decoding and encoding could change its signature.
        full_query = "&".join(filter(None, (urlencode(query, quote_via=quote), account.sas)))
        url = URL(f"{self._origin}{path}{'?' if full_query else ''}{full_query}", encoded=True)
        try:
            response = await self.session.request(
                method, url, headers=all_headers, proxy=self._proxy, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as exc:  # TimeoutError is an OSError
            if self.session.closed:
                raise self.disconnected_error(blob) from safe_cause(exc)
            raise self.network_error(exc, blob) from safe_cause(exc)
        except RuntimeError as exc:
            if not self.session.closed:
                raise
            raise self.disconnected_error(blob) from exc
        if response.status < 300:
            return response
        raise await self._response_error(response, blob, account)

    async def _response_error(
        self, response: aiohttp.ClientResponse, blob: str | None, account: Account
    ) -> ConnectorError | TransientError:
        body = bytearray()
        try:
            while len(body) < _MAX_ERROR_BODY and (data := await response.content.readany()):
                body += data
        except (aiohttp.ClientError, OSError):
            pass  # status, headers and the part of the body that has arrived are used
        finally:
            response.close()
        error = error_from_response(self.subject(blob), response.status, response.headers, body)
        if isinstance(error, ConnectorError) and await self.renew(response.status, account):
            return TransientError(error)
        return error

    async def renew(self, status: int, account: Account) -> bool:
        """Renew the credential of a request that was refused; return True if it is to be repeated.

        Key and SAS are resolved anew, once for all requests that had the same ones.

        Args:
            status: The status of the response.
            account: What `account` was when the request was sent.
        """
        if status == 401 and self.authorization.renew_after_refusal():
            return True
        name = self.options.credential_option
        if status not in (401, 403) or name is None or self._secret is None:
            return False
        if account is self.account:
            renewed = self.options.renewed(account, await self._secret(name))
            if account is self.account and renewed != account:  # none of the others was faster
                self.account, self.authorization = renewed, key_authorization(renewed)
                self._secrets = (*self._secrets, *account_secrets(renewed))
        return account is not self.account

    def disconnected_error(self, blob: str | None) -> ConnectorError:
        """Return the error for a request during which the session was closed.

        aiohttp raises a bare RuntimeError then, at several places.
        """
        return self.subject(blob).error(ConnectError, "the source was disconnected")

    def network_error(
        self, exc: BaseException, blob: str | None
    ) -> ConnectorError | TransientError:
        """Return the error for an exception of aiohttp while sending a request or reading a body.

        They are transient, but for an untrusted certificate and a proxy that refuses.
        """
        subject, host = self.subject(blob), urlsplit(self._origin).netloc
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
            parser_message = exc.message.partition("\n")[0].rstrip(":")
            reason = f"{host} does not answer as a Blob service does: {parser_message}"
        else:
            reason = f"the connection to {host} was lost"
        return TransientError(subject.error(ConnectError, reason))

    def retries(self) -> Retries:
        """Return the retries that the options allow for one request."""
        return Retries(self.options.retries, self.options.retry_timeout)

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it ends without `TransientError`, or no retry is left.

        Raises:
            ConnectorError: The error of the last attempt.
        """
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
        """Send a request with a small response; return headers and body. Retry on failure."""

        async def attempt() -> tuple[Mapping[str, str], bytes]:
            response = await self.send(method, blob, query=query, headers=headers)
            try:
                return response.headers, await response.read()
            except (aiohttp.ClientError, OSError) as exc:
                raise self.network_error(exc, blob) from safe_cause(exc)
            finally:
                response.close()

        return await self.retry(attempt)


class Retries:
    """Exponential backoff with jitter for one request, limited in number and in time.

    Args:
        attempts: Attempts after the first one.
        timeout: Seconds from the first attempt, after which none is begun.
    """

    def __init__(self, attempts: int, timeout: float) -> None:
        self._attempts = attempts
        self._timeout = timeout
        self.reset()

    def reset(self) -> None:
        """Start counting anew, as after an attempt that brought data."""
        self._delays = backoff(
            first=_FIRST_BACKOFF, maximum=_MAX_BACKOFF, attempts=self._attempts + 1
        )
        self._deadline = monotonic() + self._timeout

    async def pause(self, failure: TransientError) -> None:
        """Wait before the next attempt, for `Retry-After` seconds at least.

        Raises:
            ConnectorError: No attempt is left; it is `failure.error`.
        """
        delay = next(self._delays, None)
        if delay is None or monotonic() + max(failure.retry_after, delay) > self._deadline:
            raise failure.error from failure.__cause__
        await asyncio.sleep(max(failure.retry_after, delay))


def has_dot_segments(name: str) -> bool:
    """Return True if a segment of the name, between slashes or backslashes, is `.` or `..`."""
    return any(segment in (".", "..") for segment in re.split(r"[/\\]", name))


def quote_name(name: str) -> str:
    """Percent-encode a blob's name for a URL's path, so that no server on the way changes it."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    # Servers and proxies resolve dot segments and merge slashes, but not encoded slashes.
    encode_slashes = has_dot_segments(name) or "" in name.split("/")
    return quote(name, safe="~" if encode_slashes else "/~")


def safe_cause(exc: BaseException) -> BaseException | None:
    """Return the exception to chain, or None if its text has a URL, of the request or the proxy.

    The one may hold a SAS, the other a password.
    """
    return None if isinstance(exc, (aiohttp.ClientResponseError, aiohttp.InvalidURL)) else exc
