"""The client: a method for each route of the API."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from datasources_client.addresses import find_target
from datasources_client.data import DataMethods
from datasources_client.errors import OptionError
from datasources_client.sources import SourceMethods
from datasources_client.splits import SplitMethods
from datasources_client.tokens import TokenMethods
from datasources_client.transport import Transport
from datasources_client.workspaces import WorkspaceMethods

_LARGEST_METRICS = 64 << 20  # bytes


class Client(SourceMethods, DataMethods, SplitMethods, WorkspaceMethods, TokenMethods):
    """A client of one server.

    It may be used by several threads at once. One connection is kept open; calls that run at the
    same time open more. As a context manager, it closes the kept one. It cannot be pickled.

    Without `url` and `socket`, the environment names the server: `DATASOURCES_SOCKET`, or else
    `DATASOURCES_URL`. `DATASOURCES_TOKEN` is then the token, and `DATASOURCES_CA_FILE` the
    certificates; a server that an argument names gets that token only if the environment names the
    same one, or none. Proxies of the environment are not used, and redirects are not followed.

    All methods raise `DataSourceError`: the class of the error that the server describes, or a
    `ServerError` if there is no usable response. Errors hold no token.

    Args:
        url: Such as `https://data.example.com`, below which the server has `/v1`.
        socket: The path of a Unix socket, instead of a URL.
        token: A token of the server; none is needed on a socket of a workspace.
        ca_file: Certificates in PEM that are trusted, instead of those of the system.
        timeout: Seconds that the server may be silent.
        content_timeout: The same until content begins, which the server fetches completely first.
        retries: Attempts after the first one where repeating is safe: a refused connection, a GET
            that gets 503 with `Retry-After`, the rest of a download that broke.
        insecure: True to send the token without TLS to a host that is not this machine.

    Raises:
        OptionError: There is no address, an argument is malformed, or the token would be sent in
            clear over a network.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        socket: str | None = None,
        token: str | None = None,
        ca_file: str | None = None,
        timeout: float = 90.0,
        content_timeout: float = 600.0,
        retries: int = 2,
        insecure: bool = False,
    ) -> None:
        target = find_target(url, socket, token, ca_file, os.environ)
        if target.token is not None and not (target.address.is_private or insecure):
            raise OptionError(
                "the token would cross the network in clear; use https, or pass insecure=True"
            )
        if min(timeout, content_timeout) <= 0 or retries < 0:
            raise OptionError("time-outs must be more than 0, and retries at least 0")
        self._address = str(target.address)
        self._content_timeout = content_timeout
        self._transport = Transport(target, timeout=timeout, retries=retries)

    def __repr__(self) -> str:
        return f"Client({self._address!r})"

    def __reduce__(self) -> str:
        raise TypeError("a client cannot be pickled, as it holds a token and a connection")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection that is kept; a later call opens another."""
        self._transport.close()

    def check_health(self) -> None:
        """Return if the server serves requests."""
        self._json("GET", "/healthz")

    def check_ready(self) -> None:
        """Return if the server can read its store of sources."""
        self._json("GET", "/readyz")

    def metrics(self) -> str:
        """Return the figures of the server's process, in the text format of Prometheus."""
        return self._transport.send("GET", "/metrics").read(_LARGEST_METRICS).decode()
