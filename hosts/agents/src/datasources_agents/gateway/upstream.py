"""The server of the model: its chat, its models, its files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import httpx

from datasources import DataFetchError, redact_text
from datasources_agents.gateway.settings import GatewaySettings
from datasources_server import Problem

# Everything else of a request is the client's own: its token, its cookies, its address.
_SENT = re.compile(
    r"accept|content-type|user-agent|openai-beta|idempotency-key|traceparent|tracestate|x-stainless-.*"
)
# Everything else of a response belongs to the connection, to the server's own site, or to the guard.
_RETURNED = re.compile(
    r"content-type|content-encoding|retry-after(-ms)?|x-should-retry|openai-.*|x-ratelimit-.*"
)
_MAX_ERROR = 1 << 20  # bytes of the body of an error
_PAGE = 1000  # files that are listed at once
_MAX_PAGES = 100
_MASK = b"***"


class Upstream:
    """Sends requests to the server of the model, with its key and nothing of the client's.

    Redirects are not followed, and the environment's proxies are not used, so that the key goes
    nowhere else.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._key = None if settings.key is None else settings.key.encode()
        self._timeout = settings.connect_timeout
        self._purpose = settings.purpose
        headers = {"Accept-Encoding": "identity"}
        if settings.key is not None:
            headers["Authorization"] = f"Bearer {settings.key}"
        self._client = httpx.AsyncClient(
            base_url=settings.url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=15),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def send(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes, query: str = ""
    ) -> AsyncIterator[Answer]:
        """Send a request of a client, and return the answer before its body has arrived.

        Args:
            method: Of the request.
            path: The path below the address of the API.
            headers: Those of the client, of which most are left out.
            content: The body.
            query: The query of the client's URL.

        Raises:
            Problem: 502 or 504, the server cannot be reached, or does not answer.
        """
        chosen = {name: value for name, value in headers.items() if _SENT.fullmatch(name.lower())}
        request = self._client.build_request(
            method, f"{path}?{query}" if query else path, headers=chosen, content=content
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as exc:
            raise _unreachable(exc) from None
        try:
            yield Answer(response, self._key)
        finally:
            await response.aclose()

    async def upload(self, name: str, file: BinaryIO, media_type: str) -> str:
        """Upload a file, and return its id.

        Raises:
            UpstreamError: The server refuses it.
            Problem: As `send`; or the server does not name the file.
        """
        files = {"file": (name, file, media_type)}
        document = await self._files("POST", "files", data={"purpose": self._purpose}, files=files)
        file_id = document.get("id")
        if not isinstance(file_id, str) or not file_id:
            raise Problem(502, "upstream-failed", "the model's server gave no id for a file")
        return file_id

    async def delete(self, file_id: str) -> None:
        """Delete a file; raises as `upload` does. A file that is not there is deleted."""
        try:
            await self._files("DELETE", f"files/{_segment(file_id)}", timeout=self._timeout)
        except UpstreamError as exc:
            if exc.status != 404:
                raise

    async def find(self, mark: str) -> list[str]:
        """Return the ids of the files that have a mark in their names; raises as `upload` does."""
        ids, after = [], None
        for _ in range(_MAX_PAGES):
            query: dict[str, Any] = {"limit": _PAGE, "order": "desc"}
            if after is not None:
                query["after"] = after
            page = await self._files("GET", "files", params=query, timeout=self._timeout)
            entries = [entry for entry in page.get("data") or () if isinstance(entry, dict)]
            ids += [entry["id"] for entry in entries if mark in str(entry.get("filename"))]
            if not entries or not page.get("has_more") or entries[-1].get("id") == after:
                break
            after = entries[-1].get("id")
        return ids

    async def _files(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send a request about files, and return the object that is answered."""
        try:
            response = await self._client.request(method, path, **arguments)
        except httpx.HTTPError as exc:
            raise _unreachable(exc) from None
        if not response.is_success:
            raise UpstreamError(response.status_code, *_error_of(response, self._key))
        try:
            document = response.json()
        except ValueError:
            document = None
        return document if isinstance(document, dict) else {}


class UpstreamError(Exception):
    """An error of the model's server, which the client gets as it is.

    Args:
        status: The status.
        content: The body.
        headers: Those that a client may get.
    """

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"the model's server answered with status {status}")
        self.status = status
        self.content = content
        self.headers = dict(headers)


class Answer:
    """An answer of the model's server, whose body is still on its way."""

    def __init__(self, response: httpx.Response, key: bytes | None) -> None:
        self._response = response
        self._key = key
        self.status = response.status_code
        self.headers = _headers_of(response, key)
        """Those that a client may get."""

    async def raise_error(self) -> None:
        """Raise UpstreamError if the answer is an error, with its whole body."""
        if self.status < 300:
            return
        content = bytearray()
        async for chunk in self.chunks():
            content += chunk
            if len(content) > _MAX_ERROR:
                break
        raise UpstreamError(self.status, bytes(content[:_MAX_ERROR]), self.headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the body as they arrive, with the key of the server masked.

        Raises:
            DataFetchError: The body ends early.
        """
        mask = KeyMask(self._key)
        try:
            async for chunk in self._response.aiter_raw():
                if masked := mask.feed(chunk):
                    yield masked
        except httpx.HTTPError as exc:
            raise DataFetchError(
                f"the answer of the model ended early: {type(exc).__name__}"
            ) from None
        if rest := mask.end():
            yield rest


class KeyMask:
    """Replaces a key in a stream; only bytes that may begin the key wait for the next ones."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes that can be sent on."""
        if not self._key:
            return chunk
        content = (self._held + chunk).replace(self._key, _MASK)
        length = min(len(self._key) - 1, len(content))
        while length and not self._key.startswith(content[-length:]):
            length -= 1
        self._held = content[len(content) - length :]
        return content[: len(content) - length]

    def end(self) -> bytes:
        """Return the bytes that were held back."""
        return self._held


def _headers_of(response: httpx.Response, key: bytes | None) -> dict[str, str]:
    secret = (key or b"").decode()
    return {
        name: value
        for name, value in response.headers.items()
        if _RETURNED.fullmatch(name.lower()) and not (secret and secret in value)
    }


def _error_of(response: httpx.Response, key: bytes | None) -> tuple[bytes, dict[str, str]]:
    mask = KeyMask(key)
    return mask.feed(response.content[:_MAX_ERROR]) + mask.end(), _headers_of(response, key)


def _unreachable(error: httpx.HTTPError) -> Problem:
    if isinstance(error, httpx.TimeoutException):
        detail = "the model's server did not answer in time"
        return Problem(504, "upstream-timeout", detail, retryable=True)
    detail = f"the model's server cannot be reached: {redact_text(type(error).__name__)}"
    return Problem(502, "upstream-unreachable", detail, retryable=True)


def _segment(text: str) -> str:
    """Return a text as one segment of a path."""
    from urllib.parse import quote

    encoded = quote(text, safe="")
    return encoded.replace(".", "%2E") if encoded.strip(".") == "" else encoded
