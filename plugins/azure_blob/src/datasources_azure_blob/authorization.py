"""Authorize requests: by SharedKey, by a bearer token, or by nothing in the headers."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from importlib import import_module
from time import time
from typing import TYPE_CHECKING, Any, Protocol

from datasources import AuthenticationError, ConnectError, ConnectorError
from datasources.objects import TransientError
from datasources_azure_blob.errors import Subject
from datasources_azure_blob.proxies import sdk_transport

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from datasources_azure_blob.account import Account
    from datasources_azure_blob.options import AzureBlobOptions

API_VERSION = "2021-12-02"
"""The `x-ms-version` of every request: the oldest one with every feature used here, so that old
releases of Azurite take it as well."""
_SCOPE = "https://storage.azure.com/.default"
_RENEW_BEFORE_EXPIRY = 300.0  # seconds; azure-core's own policy renews as early
# Seconds. A token younger than this is not renewed after a 401: a new one would be refused too.
_MIN_AGE_TO_RENEW_AFTER_401 = 60.0
_MAX_IDENTITY_MESSAGE = 2000  # characters; the longest chain of credentials has about as many
# The headers of the string to sign, in its order; a missing one is an empty line.
# https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
_SIGNED_HEADERS = (
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-MD5",
    "Content-Type",
    "Date",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Unmodified-Since",
    "Range",
)


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request that SharedKey signs."""

    method: str
    path: str
    """The path of the URL, percent-encoded."""
    query: Mapping[str, str]
    """The query, decoded, without a SAS: SharedKey and SAS are never used together."""
    headers: dict[str, str]


class Authorization(Protocol):
    """Adds headers to requests. One instance serves all requests of a connector."""

    async def apply(self, request: Request) -> None:
        """Add the headers that authorize `request`."""
        ...

    def renew_after_refusal(self, header: str | None) -> bool:
        """Discard the credential that got a 401; return True if the next request has a new one.

        Args:
            header: The `Authorization` of the request that got it.
        """
        ...

    async def close(self) -> None:
        """Release what the credential holds."""
        ...


class NoAuthorization:
    """Adds no header: for anonymous access, and for a SAS, which is part of the URL."""

    async def apply(self, request: Request) -> None:
        """Add nothing."""

    def renew_after_refusal(self, header: str | None) -> bool:  # noqa: ARG002  (the protocol's)
        """Return False: nothing can be renewed."""
        return False

    async def close(self) -> None:
        """Do nothing."""


class SharedKey(NoAuthorization):
    """Signs each request with the account's key.

    The string to sign has one line for each of these, in this order: the method; the values of
    `_SIGNED_HEADERS`; every `x-ms-` header as `name:value`, sorted; the canonical resource, which
    is `/`, the account and the URL's path, encoded; every query parameter as `name:value`,
    decoded, sorted. Requests with the key have no body, hence no Content-Length.

    https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
    """

    def __init__(self, account: str, key: bytes) -> None:
        self._account = account
        self._hmac = hmac.new(key, digestmod=sha256)

    async def apply(self, request: Request) -> None:
        """Add `x-ms-date` and `Authorization`."""
        headers, query = request.headers, request.query
        headers["x-ms-date"] = formatdate(usegmt=True)
        lines = [request.method, *(headers.get(name, "") for name in _SIGNED_HEADERS)]
        lines += (f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-"))
        lines.append(f"/{self._account}{request.path}")
        lines += (f"{name}:{query[name]}" for name in sorted(query))
        signature = self._hmac.copy()
        signature.update("\n".join(lines).encode())
        headers["Authorization"] = (
            f"SharedKey {self._account}:{base64.b64encode(signature.digest()).decode()}"
        )


class Token:
    """Sends a bearer token of azure-identity.

    The token is renewed before it expires: `_RENEW_BEFORE_EXPIRY` seconds before, or half-way if
    it is valid for less than twice that, so that a short-lived token is not renewed at each
    request. Times are Unix seconds, as `expires_on` is; if the clock is set back meanwhile, the
    expired token gets a 401 from the service and is renewed for that.
    """

    def __init__(
        self, credential: Any, subject: Subject, newer_credential: Callable[[], Awaitable[Any]]
    ) -> None:
        self._credential = credential
        self._subject = subject
        self._newer_credential = newer_credential
        self._lock = asyncio.Lock()
        self._token: Any = None
        self._received_at = 0.0
        self._renew_at = 0.0

    async def apply(self, request: Request) -> None:
        """Add the token, as `get_token` returns it."""
        request.headers["Authorization"] = _header(await self.get_token())

    async def get_token(self, *_scopes: str, **_options: Any) -> Any:
        """Return the token; renew it first if it is time. The SDK calls this as well.

        Raises:
            AuthenticationError: azure-identity gives no token.
            TransientError: The authority did not answer.
        """
        if time() >= self._renew_at:
            async with self._lock:
                # Of the requests that wait here, the first one renews.
                if time() >= self._renew_at:
                    await self._renew()
        return self._token

    def renew_after_refusal(self, header: str | None) -> bool:
        """Have the next request renew the token, unless it is new, or another one already."""
        if header != _header(self._token):
            return True
        if time() - self._received_at < _MIN_AGE_TO_RENEW_AFTER_401:
            return False
        self._renew_at = 0.0
        return True

    async def close(self) -> None:
        """Close the credential of azure-identity."""
        await self._credential.close()

    async def _renew(self) -> None:
        """Renew the token, after a refusal with the client secret of now, if that is another one."""
        try:
            token = await self._request_token()
        except AuthenticationError:
            newer = await self._newer_credential()
            if newer is None:
                raise
            refused, self._credential = self._credential, newer
            await refused.close()
            token = await self._request_token()
        self._token = token
        self._received_at = time()
        lifetime = token.expires_on - self._received_at
        self._renew_at = self._received_at + max(lifetime - _RENEW_BEFORE_EXPIRY, lifetime / 2)

    async def _request_token(self) -> Any:
        from azure.core.exceptions import AzureError, ClientAuthenticationError

        try:
            return await self._credential.get_token(_SCOPE)
        except ClientAuthenticationError as exc:
            raise _identity_error(self._subject, exc) from exc
        except AzureError as exc:
            raise TransientError(
                self._subject.error(ConnectError, "the service that gives tokens did not answer")
            ) from exc


def _header(token: Any) -> str:
    return f"Bearer {token.token}"


def key_authorization(account: Account) -> Authorization:
    """Return the authorization by the account's key, or by nothing in the headers."""
    if account.key is not None and account.name is not None:
        return SharedKey(account.name, account.key)
    return NoAuthorization()


async def token_authorization(
    options: AzureBlobOptions,
    session: ClientSession,
    subject: Subject,
    secret: Callable[[str], Awaitable[str]] | None,
) -> Authorization:
    """Return the authorization by tokens of azure-identity.

    Tokens are requested through `session`, which stays the caller's to close. `secret` resolves
    the client secret anew when it is refused.
    """
    current = options.client_secret.get_secret_value() if options.client_secret else None

    async def newer_credential() -> Any:
        nonlocal current
        if current is None or secret is None:
            return None
        newer = await secret("client_secret")
        if newer == current:
            return None
        credential = await _identity_credential(options, newer, session, subject)
        current = newer  # not before: a request that is cancelled here leaves it to the next one
        return credential

    credential = await _identity_credential(options, current, session, subject)
    return Token(credential, subject, newer_credential)


async def _identity_credential(
    options: AzureBlobOptions, client_secret: str | None, session: ClientSession, subject: Subject
) -> Any:
    identity = await import_in_thread("azure.identity.aio")
    await import_in_thread("azure.core.pipeline.transport")
    transport = sdk_transport(session, subject)
    try:
        if client_secret is None:
            return identity.DefaultAzureCredential(
                transport=transport, **_managed_identity(options.client_id)
            )
        return identity.ClientSecretCredential(
            options.tenant_id,
            options.client_id,
            client_secret,
            transport=transport,
        )
    except ValueError as exc:  # a malformed tenant, AZURE_AUTHORITY_HOST, AZURE_TOKEN_CREDENTIALS
        raise _identity_error(subject, exc) from exc


def _managed_identity(client_id: str | None) -> dict[str, str]:
    """Return the arguments that name a user-assigned identity; AZURE_CLIENT_ID does by default."""
    return {"managed_identity_client_id": client_id} if client_id else {}


def _identity_error(subject: Subject, exc: Exception) -> ConnectorError:
    """Return the error for an exception of azure-identity, with all of its text.

    The text has a line for each way that was tried. Lines such as `AzureCliCredential: ...` would
    be masked as if a credential followed, hence `says`.
    """
    lines = [line.strip() for line in str(getattr(exc, "message", exc)).splitlines()]
    steps = [
        re.sub(r"^(\w+Credential): ", r"\1 says: ", line.rstrip("."))
        for line in lines
        if line and not line.startswith(("Attempted credentials", "To mitigate", "Visit "))
    ]
    reason = "; ".join(steps)[:_MAX_IDENTITY_MESSAGE]
    return subject.error(AuthenticationError, f"azure-identity could not authenticate: {reason}")


async def import_in_thread(name: str) -> Any:
    """Import a module in a thread: large ones would hold up the event loop for 100 ms and more."""
    return await asyncio.to_thread(import_module, name)
