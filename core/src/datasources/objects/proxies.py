"""Find the proxy for a URL in the environment."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from datasources.errors import ConnectError
from datasources.objects.failures import ObjectSubject

_DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, subject: ObjectSubject) -> str | None:
    """Return the URL of the proxy for `url`, from `HTTPS_PROXY` and the like; None for none.

    aiohttp can look it up itself, but does so in a thread for each request. `NO_PROXY` is a list of
    hosts and domain endings, each with or without a port, of `*.` before such an ending, of
    networks such as `10.0.0.0/8`, or `*`. Link-local addresses, such as those of clouds' metadata
    services, have no proxy.

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
