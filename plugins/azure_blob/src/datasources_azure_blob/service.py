"""Send requests to the Blob service over one HTTP session.

Reads use aiohttp directly instead of azure-storage-blob, whose work per request and per listed
blob takes several times as long as the transfer (tests/bench/azure_blob.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, urlencode, urlsplit

import aiohttp

from datasources import ConnectorError
from datasources.objects import ObjectHttp, Retries, TransientError, quote_name
from datasources_azure_blob.account import Account
from datasources_azure_blob.authorization import (
    API_VERSION,
    Authorization,
    Request,
    key_authorization,
    token_authorization,
)
from datasources_azure_blob.errors import Subject, error_from_response
from datasources_azure_blob.options import AzureBlobOptions, account_secrets


class BlobService:
    """A client of one container; call `open` before use and `close` afterwards.

    It may be used by many tasks of one event loop at once; `connections` is the most requests
    that are under way at the same time, and further ones wait.
    """

    authorization: Authorization

    def __init__(
        self,
        options: AzureBlobOptions,
        *,
        connections: int,
        check_address: Callable[[str], None] = lambda _: None,
        secret: Callable[[str], Awaitable[str]] | None = None,
    ) -> None:
        self.options = options
        self._secret = secret
        self.account = options.account()
        self._secrets = tuple(options.secret_values())
        endpoint = urlsplit(self.account.url)
        self._origin = f"{endpoint.scheme}://{endpoint.netloc}"
        self._path = f"{quote(endpoint.path)}/{quote(options.container)}"
        self.http = ObjectHttp(
            options,
            connections=connections,
            check_address=check_address,
            service="a Blob service",
        )

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session that the SDK and azure-identity use as well."""
        return self.http.session

    def use_account(self) -> None:
        """Address requests without a blob to the account instead of the container."""
        self._path = f"{quote(urlsplit(self.account.url).path)}/"

    async def open(self) -> None:
        """Make the session and the credential, without sending anything.

        Raises:
            ConnectError: The environment names a proxy that cannot be used.
        """
        await self.http.open(self._origin, self.subject())
        try:
            self.authorization = key_authorization(self.account)
            if self.options.uses_identity:
                self.authorization = await token_authorization(
                    self.options, self.session, self.subject(), self._secret
                )
        except BaseException:
            await self.session.close()
            raise

    async def close(self) -> None:
        """Close the session and the credential."""
        try:
            await self.authorization.close()
        finally:
            await self.http.close()

    def subject(self, blob: str | None = None) -> Subject:
        """Return the container, or a blob of it, as error messages name it."""
        return Subject(self.options.container, blob, self._secrets)

    async def send(
        self,
        method: str,
        blob: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request once and return the response, if it is a success, with its body unread.

        The caller must close the response.

        Args:
            method: The HTTP method.
            blob: Name of the blob, decoded; None for the container.
            query: Parameters of the operation, decoded; a SAS is added to them.
            headers: Headers of the operation; version and authorization are added to them.

        Raises:
            TransientError: The request failed and may be sent again.
            ConnectorError: The request failed, and would fail again.
        """
        query = query or {}
        path = self._path if blob is None else f"{self._path}/{quote_name(blob)}"
        all_headers = {"x-ms-version": API_VERSION, **(headers or {})}
        account = self.account
        await self.authorization.apply(Request(method, path, query, all_headers))
        # The SAS is appended as it was given: decoding and encoding could change its signature.
        full_query = "&".join(filter(None, (urlencode(query, quote_via=quote), account.sas)))
        url = f"{self._origin}{path}{'?' if full_query else ''}{full_query}"
        subject = self.subject(blob)
        response = await self.http.request(method, url, subject, headers=all_headers)
        if response.status < 300:
            return response
        raise await self._response_error(response, blob, account, all_headers)

    async def _response_error(
        self,
        response: aiohttp.ClientResponse,
        blob: str | None,
        account: Account,
        headers: Mapping[str, str],
    ) -> ConnectorError | TransientError:
        body = await self.http.read_error(response)
        error = error_from_response(self.subject(blob), response.status, response.headers, body)
        refused = headers.get("Authorization")
        if isinstance(error, ConnectorError) and await self.renew(
            response.status, account, refused
        ):
            return TransientError(error)
        return error

    async def renew(self, status: int, account: Account, header: str | None) -> bool:
        """Renew the credential of a request that was refused; return True if it is to be repeated.

        Key and SAS are resolved anew, once for all requests that had the same ones.

        Args:
            status: The status of the response.
            account: What `account` was when the request was sent.
            header: The `Authorization` of the request.
        """
        if status == 401 and self.authorization.renew_after_refusal(header):
            return True
        name = self.options.credential_option
        if status not in (401, 403) or name is None or self._secret is None:
            return False
        if account is self.account:
            renewed = self.options.renewed(account, await self._secret(name))
            if account is self.account and renewed != account:  # none of the others was faster
                self.account, self.authorization = renewed, key_authorization(renewed)
                self._secrets = (*self._secrets, *account_secrets(renewed))
        return account is not self.account

    def retries(self) -> Retries:
        """Return the retries that the options allow for one request."""
        return Retries(self.options.retries, self.options.retry_timeout)

    async def read(
        self,
        method: str,
        blob: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Mapping[str, str], bytes]:
        """Send a request with a small response; return headers and body. Retry on failure."""

        async def attempt() -> tuple[Mapping[str, str], bytes]:
            response = await self.send(method, blob, query=query, headers=headers)
            return response.headers, await self.http.read(response, self.subject(blob))

        return await self.retries().call(attempt)
