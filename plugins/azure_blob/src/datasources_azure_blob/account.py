"""Parse the account and its credential: connection strings, URLs, keys and SAS.

Every function raises `ValueError` for text that it cannot use, with a message that does not show it:
secrets are pasted at wrong places.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

# The account of every Azurite, and its published key, for `UseDevelopmentStorage=true`.
# https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
_DEVELOPMENT_URL = "http://127.0.0.1:10000/devstoreaccount1"
_DEVELOPMENT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
# Endpoints of other services of the same account, in every cloud and in DNS zones.
_OTHER_SERVICE = re.compile(
    r"\.(dfs|file|queue|table|web)\.(?:core\.[a-z.]+|storage\.azure\.net)\.?$", re.IGNORECASE
)
_MAX_HOST_NAME = 253  # characters (RFC 1035)
# Values of `sr` in a SAS: a blob, a version of it, a snapshot.
# https://learn.microsoft.com/rest/api/storageservices/create-service-sas
_SINGLE_BLOB = ("b", "bv", "bs")


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account and its key or SAS; with neither, identity or anonymous access is used."""

    url: str
    """The URL of the blob endpoint, without a slash at the end."""
    name: str | None
    key: bytes | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    """The query string of a shared access signature, without its question mark."""


def parse_connection_string(text: str) -> Account:
    """Return the account that a connection string names.

    Raises:
        ValueError: It is not a connection string, or names no account or credential.
    """
    pairs = [part.partition("=") for part in _unquoted(text).split(";") if part.strip()]
    if not pairs or not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("not a connection string; one looks like AccountName=…;AccountKey=…")
    values = {key.strip().lower(): value.strip() for key, _, value in pairs}
    if values.get("usedevelopmentstorage", "").lower() == "true":
        return Account(_DEVELOPMENT_URL, "devstoreaccount1", decode_key(_DEVELOPMENT_KEY))
    name = values.get("accountname")
    # The endpoint may have the SAS as its query, as azure-storage-blob allows.
    endpoint, _, endpoint_sas = values.get("blobendpoint", "").partition("?")
    url = endpoint.rstrip("/") or _default_url(name, values)
    split_url(url)
    if "accountkey" in values:
        name = name or account_name(url)
        if name is None:
            raise ValueError("it names no account; AccountName is missing")
        return Account(url, name, decode_key(values["accountkey"]))
    if sas := values.get("sharedaccesssignature") or endpoint_sas:
        return Account(url, name, sas=clean_sas(sas))
    raise ValueError("it holds no credential; AccountKey or SharedAccessSignature is missing")


def _default_url(name: str | None, values: Mapping[str, str]) -> str:
    if name is None:
        raise ValueError("it names no account; AccountName or BlobEndpoint is missing")
    protocol = values.get("defaultendpointsprotocol", "https")
    return f"{protocol}://{name}.blob.{values.get('endpointsuffix', 'core.windows.net')}"


def split_url(url: str) -> Any:
    """Split the URL of a blob endpoint.

    Raises:
        ValueError: It is not one; its text is not shown, since keys are pasted at wrong places.
    """
    try:
        parts = urlsplit(url)
        is_http_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bad port, or a bracket that is not closed
        is_http_url = False
    if not is_http_url:
        raise ValueError("not a URL such as https://myaccount.blob.core.windows.net")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or password is not one of Azure Storage")
    host = parts.hostname or ""
    if not _is_host_name(host):
        raise ValueError("its host is not a host name: labels have 1 to 63 letters, digits or '-'")
    if service := _OTHER_SERVICE.search(host):
        raise ValueError(f"it is the endpoint '{service[1]}'; give the one that has 'blob' there")
    return parts


def _is_host_name(host: str) -> bool:
    """Return True for an address, or a name that can be looked up."""
    if is_address(host):
        return True
    try:
        name = host.removesuffix(".").encode("idna")
    except UnicodeError:  # a label that is empty or too long, or characters that no name has
        return False
    return len(name) <= _MAX_HOST_NAME and re.fullmatch(rb"[A-Za-z0-9._-]+", name) is not None


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def account_depth(host: str) -> int:
    """Return the number of path segments that name the account: one for an address, as Azurite."""
    return 0 if ".blob." in host else 1


def account_name(url: str) -> str | None:
    """Return the account that a URL names by its path or its first label, or None."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    path = [part for part in parts.path.split("/") if part]
    if path:
        return path[0]
    return host.partition(".")[0].removesuffix("-secondary") if ".blob." in host else None


def decode_key(text: str) -> bytes:
    try:
        key = base64.b64decode(_unquoted(text), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("the account key is not base64")
    return key


def _unquoted(text: str) -> str:
    """Return a pasted text without blanks and quotes around it; files end with a newline."""
    return text.strip().strip("'\"").strip()


def clean_sas(text: str) -> str:
    """Return a SAS as the query string that it is; it may be quoted, or the query of a URL.

    Raises:
        ValueError: It is not a SAS, or one for a single blob.
    """
    text = _unquoted(text).removeprefix("SharedAccessSignature=")
    if text.startswith(("https://", "http://")):
        text = text.partition("?")[2]
    text = text.lstrip("?").strip("&")
    fields = parse_qs(text)
    if not fields.get("sig"):
        raise ValueError("not a shared access signature; one is a query string with 'sig='")
    if re.search(r"[\s\"'<>#?]|[^!-~]", text):
        raise ValueError("a shared access signature has no blanks, quotes, '#' or '?' inside")
    if fields.get("sr", [""])[0] in _SINGLE_BLOB:
        raise ValueError("it is a SAS for a single blob; give one for the container or a folder")
    return text
