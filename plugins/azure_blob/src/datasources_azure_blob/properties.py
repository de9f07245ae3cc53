"""What the service tells of one blob, in the words of `get_metadata`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from datasources_azure_blob.listing import http_time

_FACTS = {
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
    """Return size, times, ETag, metadata and what else there is; only what JSON can hold."""
    return {
        "size": int(headers.get("Content-Length", 0)),
        "modified_at": http_time(headers.get("Last-Modified", "")),
        "created_at": http_time(headers.get("x-ms-creation-time", "")),
        "etag": headers.get("ETag", "").strip('"'),
        **{ours: headers[theirs] for theirs, ours in _FACTS.items() if theirs in headers},
        "metadata": {
            header[len("x-ms-meta-") :]: value
            for header, value in headers.items()
            if header.lower().startswith("x-ms-meta-")
        },
    }


def tags_in(body: bytes) -> dict[str, str]:
    """Return the tags in an answer of Get Blob Tags."""
    tags = ET.fromstring(body).iter("Tag")  # noqa: S314  (the service's own)
    return {tag.findtext("Key", ""): tag.findtext("Value", "") for tag in tags}
