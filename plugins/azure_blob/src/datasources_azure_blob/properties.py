"""Convert the properties and tags of a blob to the keys of `get_metadata`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from datasources.objects import http_time

_KEYS = {
    "Content-Type": "content_type",
    "Content-Encoding": "content_encoding",
    "Content-Language": "content_language",
    "Content-Disposition": "content_disposition",
    "Cache-Control": "cache_control",
    "Content-MD5": "content_md5",
    "x-ms-blob-type": "blob_type",
    "x-ms-access-tier": "tier",
    "x-ms-archive-status": "archive_status",
    "x-ms-lease-state": "lease_state",
    "x-ms-expiry-time": "expires",
    "x-ms-version-id": "version_id",
}


def properties_in(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the properties in the headers of Get Blob Properties, as values that JSON can hold.

    Times are Unix seconds; `metadata` is what the owner of the blob has set.
    https://learn.microsoft.com/rest/api/storageservices/get-blob-properties
    """
    return {
        "modified_at": http_time(headers.get("Last-Modified", "")),
        "created_at": http_time(headers.get("x-ms-creation-time", "")),
        **{key: headers[header] for header, key in _KEYS.items() if header in headers},
        "metadata": {
            header[len("x-ms-meta-") :]: value
            for header, value in headers.items()
            if header.lower().startswith("x-ms-meta-")
        },
    }


def tags_in(body: bytes) -> dict[str, str]:
    """Return the tags in a response of Get Blob Tags.

    Raises:
        SyntaxError: It is not XML (`ElementTree.ParseError`).
    """
    tags = ET.fromstring(body).iter("Tag")  # noqa: S314  (from the service itself)
    return {tag.findtext("Key", ""): tag.findtext("Value", "") for tag in tags}
