"""Send requests to the JSON API of Google Cloud Storage over one HTTP session.

https://cloud.google.com/storage/docs/json_api
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from datasources import ConnectError, ConnectorError
from datasources.objects import ObjectHttp, ObjectSubject, Retries, TransientError
from datasources_object_store.gcs_errors import error_from_response
from datasources_object_store.gcs_options import GCSOptions
from datasources_object_store.gcs_tokens import TokenSource


class GCSService:
    """A client of one bucket; call `open` before use and `close` afterwards.

    It may be used by many tasks of one event loop at once; `connections` is the most requests that
    are under way at the same time, and further ones wait.
    """

    def __init__(
        self,
        options: GCSOptions,
        *,
        connections: int,
        check_address: Callable[[str], None],
        secret: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self.options = options
        self._secrets = tuple(options.secret_values())
        self.http = ObjectHttp(
            options,
            connections=connections,
            check_address=check_address,
            service="Google Cloud Storage",
        )
        self._tokens = TokenSource(options, self.http, self.subject(), secret)

    async def open(self) -> None:
        """Make the session, without sending anything.

        Raises:
            ConnectError: The environment names a proxy that cannot be used.
        """
        await self.http.open(self.options.service_url, self.subject())

    async def close(self) -> None:
        """Close the session."""
        await self.http.close()

    def subject(self, name: str | None = None) -> ObjectSubject:
        """Return the bucket, or an object of it, as error messages name it."""
        return ObjectSubject(self.options.bucket, name, self._secrets)

    def url(self, name: str | None = None, *, upload: bool = False) -> str:
        """Return the URL of an object, or of the list of objects.

        The whole name is encoded, slashes as well: it is one segment of the path, which nothing on
        the way resolves.
        """
        base = f"{self.options.service_url}{'/upload' if upload else ''}/storage/v1"
        path = "" if name is None else f"/{_quote_name(name)}"
        return f"{base}/b/{quote(self.options.bucket)}/o{path}"

    async def send(
        self,
        method: str,
        url: str,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        accepted: tuple[int, ...] = (),
    ) -> aiohttp.ClientResponse:
        """Send a request once and return the response, if it is a success, with its body unread.

        The caller must close the response.

        Args:
            method: The HTTP method.
            url: The URL without its query.
            name: Name of the object, for messages; None for the bucket.
            query: Parameters of the operation, decoded.
            headers: Headers of the operation; the token is added to them.
            data: The body.
            accepted: Further statuses that are a success.

        Raises:
            TransientError: The request failed and may be sent again.
            ConnectorError: The request failed, and would fail again.
        """
        parameters = {**(query or {})}
        if self.options.requester_pays and self.options.project is not None:
            parameters["userProject"] = self.options.project
        full_url = f"{url}?{urlencode(parameters, quote_via=quote)}" if parameters else url
        authorization = await self._tokens.headers()
        response = await self.http.request(
            method,
            full_url,
            self.subject(name),
            headers={**authorization, **(headers or {})},
            data=data,
        )
        if response.status < 300 or response.status in accepted:
            return response
        raise await self._response_error(response, name, method, authorization)

    async def read_json(
        self,
        method: str,
        url: str,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> dict[str, Any]:
        """Send a request with a JSON document as response, once; return the document.

        Raises:
            TransientError: The response is none.
        """
        response = await self.send(method, url, name, query=query, headers=headers, data=data)
        subject = self.subject(name)
        return self.document(await self.http.read(response, subject), subject)

    def document(self, body: bytes, subject: ObjectSubject) -> dict[str, Any]:
        """Return the JSON document in a response.

        Raises:
            TransientError: There is none.
        """
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            reason = "the answer is no document of the service"
            raise TransientError(subject.error(ConnectError, reason))
        return document

    def retries(self) -> Retries:
        """Return the retries that the options allow for one request."""
        return Retries(self.options.retries, self.options.retry_timeout)

    async def _response_error(
        self,
        response: aiohttp.ClientResponse,
        name: str | None,
        method: str,
        authorization: Mapping[str, str],
    ) -> ConnectorError | TransientError:
        body = await self.http.read_error(response)
        if response.status == 401 and self._tokens.renew_after_refusal(authorization):
            reason = "the token was refused"
            return TransientError(self.subject(name).error(ConnectError, reason))
        return error_from_response(
            self.subject(name),
            response.status,
            response.headers,
            body,
            is_upload=method in ("POST", "PUT"),
        )


def _quote_name(name: str) -> str:
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="~")
