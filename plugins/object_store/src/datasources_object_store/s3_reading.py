"""Describe an object and request ranges of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from datasources import ConnectorError, DataFetchError, ItemNotFoundError
from datasources.objects import ObjectBody, ObjectInfo, content_size, http_time
from datasources_object_store.s3_service import S3Service

_HEADERS = {
    "Content-Type": "content_type",
    "Content-Encoding": "content_encoding",
    "Content-Language": "content_language",
    "Content-Disposition": "content_disposition",
    "Cache-Control": "cache_control",
    "x-amz-storage-class": "storage_class",
    "x-amz-version-id": "version_id",
    "x-amz-server-side-encryption": "encryption",
    "x-amz-archive-status": "archive_status",
    "x-amz-restore": "restore",
}
"""Headers of an object that `get_metadata` shows, and the keys there."""
_USER_METADATA = "x-amz-meta-"
_MD5 = re.compile(r"[0-9a-f]{32}")


async def head_object(
    service: S3Service, name: str, version: str | None, etag: str | None
) -> ObjectInfo:
    """Return what HeadObject tells of an object."""
    query = _query(version)
    try:
        response = await service.send("HEAD", name, query=query, headers=_pinned(etag))
    except ConnectorError as refusal:
        raise await service.explain_head(name, refusal, **query) from None
    response.close()
    _check_version(service, name, version, response)
    return _info(service, name, response)


async def read_object(
    service: S3Service, name: str, span: tuple[int, int], version: str | None, etag: str | None
) -> ObjectBody:
    """Request a range of an object; the caller closes the body."""
    query, headers = _query(version), _pinned(etag)
    try:
        part = {"Range": f"bytes={span[0]}-{span[1] - 1}", **headers}
        response = await service.send("GET", name, query=query, headers=part)
    except DataFetchError as exc:
        if exc.code not in ("InvalidRange", "416") or span[0]:
            raise
        # An empty object has no byte that a range could name.
        response = await service.send("GET", name, query=query, headers=headers)
    try:
        _check_version(service, name, version, response)
        info = _info(service, name, response)
        if etag is not None and info.etag != etag:  # a service that does not know the condition
            reason = "it changed while it was read; fetch it again"
            raise service.subject(name).error(DataFetchError, reason, code="PreconditionFailed")
    except BaseException:
        response.close()
        raise
    return service.http.body(response, info, service.subject(name))


def _query(version: str | None) -> dict[str, str]:
    return {"versionId": version.partition("=")[2]} if version else {}


def _check_version(
    service: S3Service, name: str, version: str | None, response: aiohttp.ClientResponse
) -> None:
    """Refuse the response of a service without versions, which sends the object as it is now."""
    wanted = _query(version).get("versionId", "null")
    if version is not None and response.headers.get("x-amz-version-id", "null") != wanted:
        response.close()
        reason = "the service has no such version"
        raise service.subject(name).error(ItemNotFoundError, reason, code="NoSuchVersion")


def _pinned(etag: str | None) -> dict[str, str]:
    return {"If-Match": f'"{etag}"'} if etag else {}


def _info(service: S3Service, name: str, response: aiohttp.ClientResponse) -> ObjectInfo:
    headers = response.headers
    size, etag = content_size(headers), headers.get("ETag", "").strip('"')
    if size is None or not etag:
        raise service.subject(name).error(
            DataFetchError, "the service does not tell its length and ETag"
        )
    return ObjectInfo(
        size,
        etag,
        headers.get("Content-Type"),
        _encoding(headers),
        _checksums(headers, etag) if service.options.check_md5 else {},
        properties=_properties(headers),
    )


def _encoding(headers: Mapping[str, str]) -> str:
    """Return the Content-Encoding of the content; `aws-chunked` is that of an upload."""
    parts = (part.strip() for part in headers.get("Content-Encoding", "").split(","))
    return ", ".join(part for part in parts if part and part != "aws-chunked")


def _checksums(headers: Mapping[str, str], etag: str) -> dict[str, bytes]:
    """Return the MD5 of an object: its ETag, if it was stored in one part and without KMS.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    own_key = "x-amz-server-side-encryption-customer-algorithm" in headers
    by_kms = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    if own_key or by_kms or not _MD5.fullmatch(etag):
        return {}
    return {"md5": bytes.fromhex(etag)}


def _properties(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "modified_at": http_time(headers.get("Last-Modified", "")),
        **{key: headers[header] for header, key in _HEADERS.items() if header in headers},
        "metadata": {
            header[len(_USER_METADATA) :].lower(): value
            for header, value in headers.items()
            if header.lower().startswith(_USER_METADATA)
        },
    }
