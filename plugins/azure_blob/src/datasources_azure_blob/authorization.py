"""What lets a request in: a shared key, a signature in the URL, a token, or nothing."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from importlib import import_module
from time import time
from typing import TYPE_CHECKING, Any, Protocol

from datasources import AuthenticationError, ConnectError
from datasources_azure_blob.errors import Subject, TransientError

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from datasources_azure_blob.options import Account, AzureBlobOptions

API_VERSION = "2021-12-02"
"""Of the service: the first that Azurite, old and new, and every feature used here agree on."""
_SCOPE = "https://storage.azure.com/.default"
_EARLY = 300.0  # seconds before its end at which a token is replaced
_RETRY_REFUSED = 60.0  # a younger token that is refused will not be replaced by a better one
# The order in which the signed headers stand in the string to sign.
# https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
_SIGNED = (
    *("Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type"),
    *("Date", "If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a signature is made from."""

    method: str
    path: str
    """As the URL has it, encoded."""
    query: Mapping[str, str]
    """Not encoded, and without a SAS."""
    headers: dict[str, str]


class Authorization(Protocol):
    """Adds what authorises a request to its headers."""

    async def apply(self, request: Request) -> None:
        """Add headers."""
        ...

    def expire(self) -> bool:
        """Give up what was refused; True if there will be another."""
        ...

    async def close(self) -> None:
        """Close what makes the authorisation."""
        ...


class Unsigned:
    """For a SAS, which stands in the URL, and for anonymous access."""

    async def apply(self, request: Request) -> None:
        """Add nothing."""

    def expire(self) -> bool:
        """Return False: there is no other."""
        return False

    async def close(self) -> None:
        """Do nothing."""


class SharedKey(Unsigned):
    """Signs each request with the account's key."""

    def __init__(self, account: str, key: bytes) -> None:
        self._account = account
        self._hmac = hmac.new(key, digestmod=sha256)

    async def apply(self, request: Request) -> None:
        """Add the date and the signature."""
        headers, query = request.headers, request.query
        headers["x-ms-date"] = formatdate(usegmt=True)
        lines = [request.method, *(headers.get(name, "") for name in _SIGNED)]
        lines += (f"{name}:{headers[name]}" for name in sorted(headers) if name[:5] == "x-ms-")
        lines.append(f"/{self._account}{request.path}")
        lines += (f"{name}:{query[name]}" for name in sorted(query))
        signature = self._hmac.copy()
        signature.update("\n".join(lines).encode())
        headers["Authorization"] = (
            f"SharedKey {self._account}:{base64.b64encode(signature.digest()).decode()}"
        )


class Token:
    """Sends a bearer token of azure-identity, replaced in time."""

    def __init__(self, credential: Any, subject: Subject) -> None:
        self.credential = credential
        self._subject = subject
        self._lock = asyncio.Lock()
        self._header = ""
        self._since = self._renew_at = 0.0

    async def apply(self, request: Request) -> None:
        """Add the token."""
        if time() >= self._renew_at:
            async with self._lock:
                if time() >= self._renew_at:
                    await self._renew()
        request.headers["Authorization"] = self._header

    def expire(self) -> bool:
        """Ask for another token, unless this one is new."""
        if time() - self._since < _RETRY_REFUSED:
            return False
        self._renew_at = 0.0
        return True

    async def close(self) -> None:
        """Close the credential."""
        await self.credential.close()

    async def _renew(self) -> None:
        from azure.core.exceptions import AzureError, ClientAuthenticationError

        try:
            token = await self.credential.get_token(_SCOPE)
        except ClientAuthenticationError as exc:
            reason = str(exc.message).partition("\n")[0]
            raise self._subject.error(
                AuthenticationError, f"azure-identity gives no token: {reason}"
            ) from exc
        except AzureError as exc:
            raise TransientError(
                self._subject.error(ConnectError, "the service that gives tokens did not answer")
            ) from exc
        self._header = f"Bearer {token.token}"
        self._since = time()
        left = token.expires_on - self._since
        self._renew_at = self._since + max(left - _EARLY, left / 2)


async def authorization(
    options: AzureBlobOptions, account: Account, session: ClientSession, subject: Subject
) -> Authorization:
    """Return the authorization that the options ask for."""
    if options.uses_identity:
        return Token(await _identity(options, session), subject)
    if account.key is not None and account.name is not None:
        return SharedKey(account.name, account.key)
    return Unsigned()


async def _identity(options: AzureBlobOptions, session: ClientSession) -> Any:
    identity = await import_slowly("azure.identity.aio")
    transports = await import_slowly("azure.core.pipeline.transport")
    transport = transports.AioHttpTransport(session=session, session_owner=False)
    if options.client_secret is None:
        return identity.DefaultAzureCredential(transport=transport)
    return identity.ClientSecretCredential(
        options.tenant_id,
        options.client_id,
        options.client_secret.get_secret_value(),
        transport=transport,
    )


async def import_slowly(name: str) -> Any:
    """Import a large module in a thread, so that the event loop goes on meanwhile."""
    return await asyncio.to_thread(import_module, name)
