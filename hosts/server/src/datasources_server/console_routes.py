"""The console: static pages that use the API, and the headers that they are sent with."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Scripts and styles are files of ours; no page may contain the console, and no text may become
# HTML or a script (https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def console_routes(route_class: type[APIRoute]) -> APIRouter:
    """Return the routes of the console: the page at `/`, and its files below `/console`.

    The files are read once, now. They hold no data and need no token.
    """
    routes = APIRouter(route_class=route_class, include_in_schema=False)
    folder = resources.files("datasources_server") / "console"
    for entry in folder.iterdir():
        media_type = _MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if media_type is None:
            continue
        content = entry.read_bytes()
        file = _File(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        is_page = entry.name == "index.html"
        path = "/" if is_page else f"/console/{entry.name}"
        caching = "no-store" if is_page else "no-cache"
        routes.get(path)(_answer(file, caching))
    return routes


def _answer(file: _File, caching: str) -> Callable[[Request], Awaitable[Response]]:
    headers = _HEADERS | {
        "Content-Type": file.media_type,
        "Cache-Control": caching,
        "ETag": file.etag,
    }

    async def answer(request: Request) -> Response:
        if caching == "no-cache" and request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers)

    return answer
