"""The address of a server, and connections to it."""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from datasources_client.errors import OptionError

SOCKET = "DATASOURCES_SOCKET"
URL = "DATASOURCES_URL"
TOKEN = "DATASOURCES_TOKEN"  # noqa: S105  (the name of a variable)
CA_FILE = "DATASOURCES_CA_FILE"
WORKSPACE = "DATASOURCES_WORKSPACE"

_BLOCK = 256 * 1024  # bytes read at once of a file that is sent
_HOST = re.compile(r"[^\s\x00-\x20\x7f%\\]+")
_PATH = re.compile(r"[!-~]*")  # http.client takes no other characters
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Address:
    """The place of a server: a host and a port, or a Unix socket."""

    scheme: str
    """`http`, `https` or `unix`."""
    host: str
    """A name or an address; for `unix`, the path of the socket."""
    port: int = 0
    prefix: str = ""
    """The path below which the server has `/v1`, without a slash at its end."""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    @property
    def is_private(self) -> bool:
        """True if nobody on a network can read along."""
        if self.scheme != "http":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and the secret and trust for it."""

    address: Address
    token: str | None
    ca_file: str | None

    def __repr__(self) -> str:
        return f"Target({self.address})"


def find_target(
    url: str | None,
    socket_path: str | None,
    token: str | None,
    ca_file: str | None,
    environment: Mapping[str, str],
) -> Target:
    """Return the target that arguments name, or else the environment.

    The token of the environment is for the server of the environment. An argument that names
    another server does not get it.

    Raises:
        OptionError: There is no address, or an argument is malformed.
    """
    if url is not None and socket_path is not None:
        raise OptionError("give either a URL or the path of a socket")
    own = _environment_address(environment)
    if socket_path is not None:
        address = Address("unix", os.path.abspath(socket_path))
    elif url is not None:
        address = parse_url(url)
    elif own is not None:
        address = own
    else:
        raise OptionError(f"give the URL of a server, or set {URL} or {SOCKET}")
    if own is None or own == address:
        token = environment.get(TOKEN) if token is None else token
    if address.scheme == "https":
        ca_file = environment.get(CA_FILE) if ca_file is None else ca_file
    elif ca_file is not None:
        raise OptionError("a file of certificates needs a URL that begins with https://")
    token = (token or "").strip() or None
    if token is not None and not _TOKEN.fullmatch(token):
        raise OptionError("the token has characters that no token has")
    return Target(address, token, ca_file)


def parse_url(url: str) -> Address:
    """Return the address of a URL such as `https://data.example.com/base`.

    Raises:
        OptionError: It is not one of a server, or has a user, a query or a fragment.
    """
    problem = OptionError(
        "the URL of a server must be like https://data.example.com, without user and query"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError:
        raise problem from None
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(host)
        or not _PATH.fullmatch(parts.path)
    ):
        raise problem
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise problem
    default = 443 if parts.scheme == "https" else 80
    return Address(parts.scheme, host, port or default, parts.path.rstrip("/"))


def _environment_address(environment: Mapping[str, str]) -> Address | None:
    if path := environment.get(SOCKET):
        return Address("unix", os.path.abspath(path))
    if url := environment.get(URL):
        return parse_url(url)
    return None


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout, blocksize=_BLOCK)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


def new_connection(
    address: Address, timeout: float, context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    """Return a connection that is not connected yet; proxies of the environment are not used."""
    if address.scheme == "unix":
        return UnixConnection(address.host, timeout)
    if context is not None:
        return http.client.HTTPSConnection(
            address.host, address.port, timeout=timeout, context=context, blocksize=_BLOCK
        )
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout, blocksize=_BLOCK)


def new_context(target: Target) -> ssl.SSLContext | None:
    """Return the TLS context for a target, None for one without TLS.

    Raises:
        OptionError: The file of certificates cannot be used.
    """
    if target.address.scheme != "https":
        return None
    try:
        return ssl.create_default_context(cafile=target.ca_file)
    except OSError as exc:
        raise OptionError(
            f"the file of certificates {target.ca_file!r} cannot be used; it must be PEM"
        ) from exc
