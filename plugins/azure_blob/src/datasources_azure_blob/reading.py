"""Request a range of a blob, and read its size, ETag and MD5 from the response."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from datasources import DataFetchError, ItemNotFoundError
from datasources.objects import ObjectBody, ObjectInfo, content_range, content_size
from datasources_azure_blob.folders import is_directory
from datasources_azure_blob.properties import properties_in
from datasources_azure_blob.service import BlobService
from datasources_azure_blob.versions import is_version, version_query

# Types of blobs that are written to after they were created.
_CHANGING_TYPES = ("AppendBlob", "PageBlob")


@dataclass(frozen=True, slots=True)
class BlobInfo(ObjectInfo):
    """The properties of a blob."""

    has_tags: bool = False


async def head_blob(
    service: BlobService, blob: str, version: str | None, etag: str | None
) -> BlobInfo:
    """Return what Get Blob Properties tells of a blob."""
    query = version_query(version)
    response = await service.send("HEAD", blob, query=query, headers=_pinned(etag))
    response.close()
    headers = response.headers
    if not is_version(query, headers):
        raise service.subject(blob).error(ItemNotFoundError, "it has no such version")
    return BlobInfo(
        int(headers.get("Content-Length", 0)),
        headers.get("ETag", "").strip('"'),
        headers.get("Content-Type"),
        is_folder=is_directory(headers),
        properties=properties_in(headers),
        has_tags=headers.get("x-ms-tag-count", "0") != "0",
    )


async def read_blob(
    service: BlobService, blob: str, span: tuple[int, int], version: str | None, etag: str | None
) -> ObjectBody:
    """Request a range of a blob; the caller closes the body."""
    query, headers = version_query(version), _pinned(etag)
    try:
        part = {"Range": f"bytes={span[0]}-{span[1] - 1}", **headers}
        response = await service.send("GET", blob, query=query, headers=part)
    except DataFetchError as exc:
        if exc.code != "InvalidRange" or span[0]:
            raise
        # An empty blob has no byte that a range could name.
        response = await service.send("GET", blob, query=query, headers=headers)
    try:
        info = _info(service, blob, query, response)
    except BaseException:
        response.close()
        raise
    return service.http.body(response, info, service.subject(blob))


def _pinned(etag: str | None) -> dict[str, str]:
    return {"If-Match": f'"{etag}"'} if etag else {}


def _info(
    service: BlobService,
    blob: str,
    query: Mapping[str, str],
    response: aiohttp.ClientResponse,
) -> ObjectInfo:
    headers, subject = response.headers, service.subject(blob)
    size, etag = content_size(headers), headers.get("ETag", "")
    if size is None or not etag:
        raise subject.error(DataFetchError, "the service does not tell its length and ETag")
    if not is_version(query, headers):
        raise subject.error(ItemNotFoundError, "the service has no such version of it")
    # In a response to a range, Content-MD5 is that of the range, and x-ms-blob-content-md5 that
    # of the blob. There is no CRC64 of a blob: the service makes one of a range of 4 MiB at
    # most. https://learn.microsoft.com/rest/api/storageservices/get-blob
    whole = "" if content_range(headers) else headers.get("Content-MD5")
    md5 = _decode_digest(headers.get("x-ms-blob-content-md5") or whole)
    # The service stores the MD5 that a client gave and computes none itself, but for Put Blob.
    # Whoever appends to a blob, or writes pages of it, leaves the one it was created with.
    if headers.get("x-ms-blob-type") in _CHANGING_TYPES or not service.options.check_md5:
        md5 = None
    return ObjectInfo(
        size,
        etag.strip('"'),
        headers.get("Content-Type"),
        headers.get("Content-Encoding", ""),
        {"md5": md5} if md5 is not None else {},
        is_directory(headers),
    )


def _decode_digest(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if text else None
    except binascii.Error:
        return None
