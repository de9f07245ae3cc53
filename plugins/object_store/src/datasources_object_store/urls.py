"""Check the URLs of services in options."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_MAX_HOST_NAME = 253  # characters (RFC 1035)


def check_url(value: str, example: str) -> str:
    """Return the URL of a service without a slash at its end.

    Raises:
        ValueError: It is none; its text is not shown, since secrets are pasted at wrong places.
    """
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or a bracket that is not closed
        is_url = False
    if not is_url or re.search(r"[\s\\]", url):
        raise ValueError(f"it is no URL such as {example}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("it must hold no user, password, query or fragment")
    if not _is_host_name(parts.hostname or ""):
        raise ValueError("its host is not a host name: labels have 1 to 63 letters, digits or '-'")
    return url


def _is_host_name(host: str) -> bool:
    """Return True for an address, or a name that can be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return True
    try:
        name = host.removesuffix(".").encode("idna")
    except UnicodeError:  # a label that is empty or too long, or characters that no name has
        return False
    return len(name) <= _MAX_HOST_NAME and re.fullmatch(rb"[A-Za-z0-9._-]+", name) is not None
