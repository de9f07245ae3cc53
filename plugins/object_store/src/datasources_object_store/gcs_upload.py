"""Upload a local file to a bucket: in one request, or in chunks of a resumable session.

https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import suppress
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

from datasources import ConnectorError, DataFetchError, guess_media_type
from datasources.objects import ObjectInfo, StoredObject, TransientError, UploadSource
from datasources_object_store.gcs_reading import head_object, unix_time
from datasources_object_store.gcs_service import GCSService

_MAX_SINGLE_PUT = 8 * 1024 * 1024  # bytes of a file that is one request
_CHUNK_SIZE = 8 * 1024 * 1024  # bytes; a multiple of 256 KiB
_INCOMPLETE = 308  # status of a chunk that is not the last one


async def upload(
    service: GCSService, name: str, source: UploadSource, *, overwrite: bool
) -> StoredObject:
    """Store a local file as an object.

    Without `overwrite`, the service checks at the moment of storing that there is no such object.

    Raises:
        DataFetchError: The file changed while it was read, the object exists and `overwrite` is
            False, or the upload failed.
        ConnectorError: The service refuses the upload.
    """
    upload = _Upload(service, name, source, overwrite)
    document = await (upload.put() if source.size <= _MAX_SINGLE_PUT else upload.put_chunks())
    digest = b64encode(source.md5()).decode()
    if document.get("md5Hash", digest) != digest:
        raise service.subject(name).error(
            DataFetchError, "it arrived damaged at the service; upload it again"
        )
    return StoredObject(str(document.get("generation", "")), unix_time(document.get("updated", "")))


class _Upload:
    """One upload of a file."""

    def __init__(
        self, service: GCSService, name: str, source: UploadSource, overwrite: bool
    ) -> None:
        self._service = service
        self._name = name
        self._source = source
        self._overwrite = overwrite
        self._type = guess_media_type(name) or "application/octet-stream"
        self._condition = {} if overwrite else {"ifGenerationMatch": "0"}
        self._url = service.url(upload=True)

    async def put(self) -> dict[str, Any]:
        """Send the file as one request, with its MD5, which the service checks."""
        data = await self._source.read()
        digest = b64encode(self._source.md5()).decode()
        about = {"name": self._name, "contentType": self._type, "md5Hash": digest}
        boundary = token_hex(16)
        parts = [
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
            json.dumps(about).encode(),
            f"\r\n--{boundary}\r\nContent-Type: {self._type}\r\n".encode(),
            b"Content-Transfer-Encoding: binary\r\n\r\n",
            data,
            f"\r\n--{boundary}--\r\n".encode(),
        ]
        body = b"".join(parts)
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        query = {**self._condition, "uploadType": "multipart"}
        attempts = 0

        async def attempt() -> dict[str, Any]:
            nonlocal attempts
            attempts += 1
            return await self._service.read_json(
                "POST", self._url, self._name, query=query, headers=headers, data=body
            )

        try:
            document = await self._service.retries().call(attempt)
        except DataFetchError:
            # An attempt whose response was lost may have stored it; the next one finds it there.
            stored = None if self._overwrite or attempts == 1 else await self._stored(digest)
            if stored is None:
                raise
            document = {"generation": stored.etag}
        self._source.report(len(data))
        return document

    async def put_chunks(self) -> dict[str, Any]:
        """Send the file in chunks, one after the other, as the service demands."""
        session = await self._service.retries().call(self._begin)
        documents: list[dict[str, Any]] = []

        async def send_chunk(number: int, data: bytes) -> None:
            document = await self._send_chunk(session, number * _CHUNK_SIZE, data)
            if document is not None:
                documents.append(document)

        await self._source.send_parts(_CHUNK_SIZE, 1, send_chunk)
        if not documents:
            raise self._service.subject(self._name).error(
                DataFetchError, "the service does not say that it is stored"
            )
        return documents[-1]

    async def _begin(self) -> dict[str, str]:
        """Begin a session; return the parameters that name it.

        The address that the service names is not used: another host would get the token.
        """
        query = {**self._condition, "uploadType": "resumable", "name": self._name}
        about = json.dumps({"name": self._name, "contentType": self._type}).encode()
        headers = {"Content-Type": "application/json; charset=UTF-8"}
        headers["X-Upload-Content-Type"] = self._type
        headers["X-Upload-Content-Length"] = str(self._source.size)
        response = await self._service.send(
            "POST", self._url, self._name, query=query, headers=headers, data=about
        )
        response.close()
        place = parse_qs(urlsplit(response.headers.get("Location", "")).query)
        if "upload_id" not in place:
            raise self._service.subject(self._name).error(
                DataFetchError, "the service begins no resumable upload"
            )
        return {"uploadType": "resumable", "upload_id": place["upload_id"][0]}

    async def _send_chunk(
        self, session: dict[str, str], offset: int, data: bytes
    ) -> dict[str, Any] | None:
        """Send a chunk, the rest of it again after a failure; return the document of the last."""
        retries, position, end = self._service.retries(), offset, offset + len(data)
        while True:
            span = f"bytes {position}-{end - 1}/{self._source.size}"
            try:
                stored, document = await self._put(session, span, data[position - offset :])
                if document is not None or stored >= end:
                    return document
                if stored <= position:
                    reason = "the service stores nothing of what it is sent"
                    error = self._service.subject(self._name).error(DataFetchError, reason)
                    raise TransientError(error)
                position = stored
            except TransientError as failure:
                await retries.pause(failure)
                stored, document = await retries.call(
                    lambda: self._put(session, f"bytes */{self._source.size}", b"")
                )
                if document is not None or stored >= end:
                    return document
                position = max(stored, offset)

    async def _put(
        self, session: dict[str, str], span: str, data: bytes
    ) -> tuple[int, dict[str, Any] | None]:
        """Send bytes, or none to ask; return the bytes stored so far, and the complete object."""
        response = await self._service.send(
            "PUT",
            self._url,
            self._name,
            query=session,
            headers={"Content-Range": span},
            data=data,
            accepted=(_INCOMPLETE,),
        )
        subject = self._service.subject(self._name)
        body = await self._service.http.read(response, subject)
        if response.status != _INCOMPLETE:
            return self._source.size, self._service.document(body, subject)
        _, _, last = response.headers.get("Range", "").rpartition("-")
        return (int(last) + 1 if last.isdecimal() else 0), None

    async def _stored(self, digest: str) -> ObjectInfo | None:
        """Return the object if it is of this upload."""
        with suppress(ConnectorError):
            info = await self._service.retries().call(
                lambda: head_object(self._service, self._name, None, None)
            )
            return info if info.properties.get("content_md5") == digest else None
        return None
