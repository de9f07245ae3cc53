"""Upload a local file to a bucket: in one request, or in parts that become one object at the end."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from contextlib import suppress
from hashlib import md5, sha256
from xml.sax.saxutils import escape

from datasources import ConnectorError, DataFetchError, guess_media_type
from datasources.objects import StoredObject, TransientError, UploadSource
from datasources_object_store.s3_errors import error_from_response, xml_element
from datasources_object_store.s3_reading import head_object
from datasources_object_store.s3_service import S3Service

_MAX_SINGLE_PUT = 8 * 1024 * 1024  # bytes of a file that is one request
_PART_SIZE = 8 * 1024 * 1024  # bytes; `concurrency` parts are in memory at once
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_PARTS = 10_000


async def upload(
    service: S3Service, name: str, source: UploadSource, *, overwrite: bool
) -> StoredObject:
    """Store a local file as an object.

    Without `overwrite`, the service checks at the moment of storing that there is no such object.

    Raises:
        DataFetchError: The file changed while it was read, the object exists and `overwrite` is
            False, or the upload failed.
        ConnectorError: The service refuses the upload.
    """
    upload = _Upload(service, name, source, overwrite)
    return await (upload.put() if source.size <= _MAX_SINGLE_PUT else upload.put_parts())


class _Upload:
    """One upload of a file."""

    def __init__(
        self, service: S3Service, name: str, source: UploadSource, overwrite: bool
    ) -> None:
        self._service = service
        self._name = name
        self._source = source
        media_type = guess_media_type(name) or "application/octet-stream"
        self._type = {"Content-Type": media_type}
        self._condition = {} if overwrite else {"If-None-Match": "*"}
        self._retried = False

    async def put(self) -> StoredObject:
        """Send the file as one request."""
        data = await self._source.read()
        digest = self._source.md5()
        headers = {**self._type, **self._condition, "Content-MD5": b64encode(digest).decode()}
        try:
            etag = await self._send("PUT", {}, headers, data)
        except DataFetchError as exc:
            etag = await self._own(exc, digest.hex())
        self._source.report(len(data))
        return StoredObject(etag)

    async def put_parts(self) -> StoredObject:
        """Send the file in parts, and complete the object; a failure leaves no part behind."""
        upload_id = await self._begin()
        digests: dict[int, bytes] = {}

        async def send_part(number: int, data: bytes) -> str:
            digests[number] = await asyncio.to_thread(_md5, data)
            query = {"partNumber": str(number + 1), "uploadId": upload_id}
            headers = {"Content-MD5": b64encode(digests[number]).decode()}
            return await self._send("PUT", query, headers, data)

        size = max(_PART_SIZE, -(-self._source.size // _MAX_PARTS))
        try:
            etags = await self._source.send_parts(
                size, self._service.options.concurrency, send_part
            )
            joined = b"".join(digests[number] for number in range(len(etags)))
            return StoredObject(await self._complete(upload_id, etags, joined))
        except BaseException:
            await self._abort(upload_id)
            raise

    async def _begin(self) -> str:
        _, body = await self._service.retries().call(
            lambda: self._service.read(
                "POST", self._name, query={"uploads": ""}, headers=self._type
            )
        )
        return xml_element("UploadId", body.decode(errors="replace"))

    async def _complete(self, upload_id: str, etags: list[str], joined: bytes) -> str:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        query = {"uploadId": upload_id}
        try:
            return await self._send("POST", query, self._condition, document)
        except ConnectorError as exc:
            # The object may be this upload's: completed, and then the response was lost.
            expected = f"{md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"
            return await self._own(exc, expected)

    async def _own(self, refusal: ConnectorError, expected: str) -> str:
        """Return the ETag of the stored object if it is this upload's; raise `refusal` otherwise.

        An attempt whose response was lost may have stored it, and the next one finds it in the way.
        """
        if not self._retried or refusal.code not in ("PreconditionFailed", "412", "NoSuchUpload"):
            raise refusal
        stored = await self._service.retries().call(
            lambda: head_object(self._service, self._name, None, None)
        )
        if stored.etag != expected:
            raise refusal
        return stored.etag

    async def _abort(self, upload_id: str) -> None:
        """Have the service delete the parts; it may do so later by a rule of the bucket's owner."""
        with suppress(ConnectorError, TransientError):
            await asyncio.shield(
                self._service.read("DELETE", self._name, query={"uploadId": upload_id})
            )

    async def _send(
        self, method: str, query: dict[str, str], headers: dict[str, str], data: bytes
    ) -> str:
        """Send a request with retries; return the ETag in its response.

        The response to the completion is a success as soon as it begins, and may be an error then.
        """
        digest = await asyncio.to_thread(_sha256, data)
        attempts = 0

        async def attempt() -> str:
            nonlocal attempts
            attempts += 1
            self._retried = self._retried or attempts > 1
            answer, body = await self._service.read(
                method, self._name, query=query, headers=headers, data=data, data_sha256=digest
            )
            text = body.decode(errors="replace")
            if re.search(r"<Error\b", text):
                raise error_from_response(
                    self._service.subject(self._name), 500, answer, body, is_upload=True
                )
            return (xml_element("ETag", text) or answer.get("ETag", "")).strip('"')

        return await self._service.retries().call(attempt)


def _md5(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).digest()


def _sha256(data: bytes) -> str:
    return sha256(data).hexdigest()
