"""Send signed requests to a bucket over one HTTP session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

import aiohttp

from datasources import ConnectorError
from datasources.objects import ObjectHttp, ObjectSubject, Retries, TransientError
from datasources_object_store.s3_credentials import CredentialSource
from datasources_object_store.s3_errors import EXPIRED, error_from_response
from datasources_object_store.s3_options import S3Options
from datasources_object_store.signing import EMPTY_SHA256, Credentials, Signer, encode_query


class S3Service:
    """A client of one bucket; call `open` before use and `close` afterwards.

    It may be used by many tasks of one event loop at once; `connections` is the most requests that
    are under way at the same time, and further ones wait.
    """

    def __init__(
        self,
        options: S3Options,
        *,
        connections: int,
        check_address: Callable[[str], None],
        secret: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self.options = options
        self._url = options.bucket_url
        self._secrets = tuple(options.secret_values())
        self._signer = Signer(options.region)
        self.http = ObjectHttp(
            options, connections=connections, check_address=check_address, service="S3"
        )
        self._credentials = CredentialSource(options, self.http, self.subject(), secret)

    def use_service(self) -> None:
        """Address requests without an object to the service instead of the bucket."""
        self._url = self.options.service_url

    async def open(self) -> None:
        """Make the session, without sending anything.

        Raises:
            ConnectError: The environment names a proxy that cannot be used.
        """
        await self.http.open(self._url, self.subject())

    async def close(self) -> None:
        """Close the session."""
        await self.http.close()

    def subject(self, name: str | None = None) -> ObjectSubject:
        """Return the bucket, or an object of it, as error messages name it."""
        return ObjectSubject(self.options.bucket, name, self._secrets)

    async def send(
        self,
        method: str,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        data_sha256: str = EMPTY_SHA256,
    ) -> aiohttp.ClientResponse:
        """Send a request once and return the response, if it is a success, with its body unread.

        The caller must close the response.

        Args:
            method: The HTTP method.
            name: Name of the object, decoded; None for the bucket.
            query: Parameters of the operation, decoded.
            headers: Headers of the operation; those of the signature are added to them.
            data: The body.
            data_sha256: Its SHA-256, in hexadecimal.

        Raises:
            TransientError: The request failed and may be sent again.
            ConnectorError: The request failed, and would fail again.
        """
        query, subject = query or {}, self.subject(name)
        url = f"{self._url}/{quote(name or '', safe='/~')}"
        all_headers = {**(headers or {})}
        if self.options.requester_pays:
            all_headers["x-amz-request-payer"] = "requester"
        credentials = await self._credentials.current()
        if credentials is not None:
            all_headers = self._signer.headers(
                credentials, method, url, query, all_headers, data_sha256
            )
        all_headers.pop("host", None)  # aiohttp sets it
        full_url = f"{url}?{encode_query(query)}" if query else url
        response = await self.http.request(
            method, full_url, subject, headers=all_headers, data=data
        )
        if response.status < 300:
            return response
        raise await self._response_error(response, name, method, credentials)

    async def read(
        self,
        method: str,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        data_sha256: str = EMPTY_SHA256,
    ) -> tuple[Mapping[str, str], bytes]:
        """Send a request with a small response, once; return headers and body."""
        response = await self.send(
            method, name, query=query, headers=headers, data=data, data_sha256=data_sha256
        )
        return response.headers, await self.http.read(response, self.subject(name))

    def retries(self) -> Retries:
        """Return the retries that the options allow for one request."""
        return Retries(self.options.retries, self.options.retry_timeout)

    async def explain_head(
        self, name: str, refusal: ConnectorError, **query: str
    ) -> ConnectorError:
        """Return the error of a GET request in place of that of a HEAD request, which has no body.

        Only a body tells a missing bucket from a missing object, and a wrong key from a missing
        permission.

        Raises:
            TransientError: The GET request may be sent again, as after a renewal of the credentials.
        """
        if refusal.code not in ("400", "401", "403", "404"):
            return refusal
        try:
            (await self.send("GET", name, query=query, headers={"Range": "bytes=0-0"})).close()
        except ConnectorError as exc:
            return exc
        return refusal

    async def _response_error(
        self,
        response: aiohttp.ClientResponse,
        name: str | None,
        method: str,
        credentials: Credentials | None,
    ) -> ConnectorError | TransientError:
        body = await self.http.read_error(response)
        error = error_from_response(
            self.subject(name),
            response.status,
            response.headers,
            body,
            is_upload=method in ("PUT", "POST"),
        )
        if isinstance(error, TransientError) or error.code not in EXPIRED:
            return error
        renewed = await self._credentials.renew_after_refusal(credentials)
        return TransientError(error) if renewed else error
