"""Requests of JSON, which the methods of the client are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from datasources_client.errors import OptionError, ResponseError
from datasources_client.models import Page
from datasources_client.reading import read_model
from datasources_client.transport import Body, Transport

if TYPE_CHECKING:
    from datasources_client.reading import Model

T = TypeVar("T")

_LARGEST_JSON = 64 << 20  # bytes of a response that is held in memory
_MALFORMED = object()


class Requests:
    """Base of the classes that have the methods of the client."""

    _transport: Transport

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        media_type: str = "application/json",
        timeout: float | None = None,
    ) -> Any:
        """Send a request and return the JSON of its response, None if that has no content."""
        conditions = {"If-Match": if_match, "If-None-Match": if_none_match}
        headers = {name: value for name, value in conditions.items() if value is not None}
        if body is not None:
            headers["Content-Type"] = media_type
        content = None if body is None else encode(body)
        path = f"{path}{query_string(query or {})}"
        return self._send_json(method, path, content, headers, timeout)

    def _send_json(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Any:
        """Send a request with any body; as `_json`."""
        response = self._transport.send(method, path, body=body, headers=headers, timeout=timeout)
        answer = decode(response.read(_LARGEST_JSON))
        if response.status == 204:
            return None
        if answer is _MALFORMED:
            raise ResponseError("the server's response is not JSON", status=response.status)
        return answer

    def _list(self, model: type[Model], path: str) -> tuple[Model, ...]:
        items = member(self._json("GET", path), "items", list)
        return tuple(read_model(model, item) for item in items)

    def _page(self, model: type[Model], path: str, query: Mapping[str, Any]) -> Page[Model]:
        answer = self._json("GET", path, query=query)
        items = member(answer, "items", list)
        cursor = answer.get("next_cursor")
        if not (cursor is None or isinstance(cursor, str)):
            raise ResponseError("the server's response has a cursor that is no text")
        return Page(tuple(read_model(model, item) for item in items), cursor)


def all_items(page_of: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Yield the items of all pages; each page is requested when the one before is used up."""
    cursor: str | None = None
    while True:
        page = page_of(cursor)
        yield from page.items
        if page.cursor is None:
            return
        if page.cursor == cursor:
            raise ResponseError("the server's listing does not proceed")
        cursor = page.cursor


def decode(content: bytes) -> Any:
    """Return the value of JSON, or `_MALFORMED`; an exception would hold the content."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return _MALFORMED


def member(answer: object, name: str, cls: type[T]) -> T:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, cls):
        raise ResponseError(f"the server's response has no {name!r}")
    return value


def source_path(id: str) -> str:
    return f"/v1/sources/{segment(id)}"


def segment(name: str) -> str:
    """Return a name as one segment of a path; servers and proxies resolve `.` and `..`.

    Raises:
        OptionError: The name cannot be one.
    """
    try:
        segment = quote(name, safe="")
    except UnicodeEncodeError:
        segment = ""
    if segment in ("", ".", ".."):
        raise OptionError(f"{name!r} is no name")
    return segment


def query_string(values: Mapping[str, Any]) -> str:
    """Return a query with its question mark; without what is None or False."""
    given = {
        name: "true" if value is True else value
        for name, value in values.items()
        if value is not None and value is not False
    }
    try:
        return f"?{urlencode(given)}" if given else ""
    except UnicodeEncodeError:
        raise OptionError(f"{' or '.join(given)} is not valid Unicode text") from None


def encode(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(dict(body), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise OptionError("a value cannot be sent as JSON") from None
