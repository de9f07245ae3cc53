"""Find the proxy for a URL in the environment, and send the SDK's requests through it.

Reads and the requests of azure-storage-blob and azure-identity share one aiohttp session. aiohttp
can look up the proxy itself (`trust_env`), but does so in a thread for each request, and
`AioHttpTransport` of azure-core switches that on only for a session of its own. So the proxy is
looked up here, for all three.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from datasources import ConnectError
from datasources_azure_blob.errors import Subject

_DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, subject: Subject) -> str | None:
    """Return the URL of the proxy for `url`, from `HTTPS_PROXY` and the like; None for none.

    `NO_PROXY` is a list of hosts and domain endings, each with or without a port, of `*.` before
    such an ending, of networks such as `10.0.0.0/8`, or `*`.
    Link-local addresses, such as that of Azure's metadata service, have no proxy.

    Raises:
        ConnectError: The variable holds no URL of an HTTP proxy. It is not shown, since it may
            hold a password.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)
    proxies = getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    proxy = proxies.get(scheme)
    if not proxy or _is_link_local(host) or proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return None
    if any(_is_in(host, entry.strip()) for entry in proxies.get("no", "").split(",")):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not _is_proxy_url(proxy):
        name = f"{scheme}_proxy" if f"{scheme}_proxy" in os.environ else f"{scheme}_proxy".upper()
        raise subject.error(
            ConnectError,
            f"the environment variable {name} holds no URL of an HTTP proxy, such as "
            "http://proxy:3128; special characters of a password must be percent-encoded",
        )
    return proxy


def _is_proxy_url(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        # A `#`, `?` or `/` of a password ends the address: the rest of it becomes path or query.
        rest = parts.path.strip("/") or parts.query or parts.fragment
        usable = bool(parts.hostname) and parts.port != 0 and not rest
    except ValueError:  # a port that is no number, or a bracket that is not closed
        return False
    return usable and parts.scheme in ("http", "https") and not any(map(str.isspace, proxy))


def _is_in(host: str, entry: str) -> bool:
    """Return True if a host is of a network or a `*.ending`, which `proxy_bypass` does not know."""
    if entry.startswith("*."):
        return host.endswith(entry[1:].lower())
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


def sdk_transport(session: aiohttp.ClientSession, subject: Subject) -> Any:
    """Return a transport of azure-core on `session`, which stays the caller's to close."""
    from azure.core.pipeline.transport import AioHttpTransport

    class Transport(AioHttpTransport):  # type: ignore[misc]  # azure-core exports it untyped
        async def send(self, request: Any, **config: Any) -> Any:
            config.setdefault("proxy", proxy_for(request.url, subject))
            return await super().send(request, **config)

    return Transport(session=session, session_owner=False)
