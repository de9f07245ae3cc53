"""Convert URLs to the paths of the file system, and back."""

from __future__ import annotations

from urllib.parse import quote, unquote

PROTOCOL = "datasource"
_SCHEME = f"{PROTOCOL}://"
_FORMAT = "?format="


def to_path(url: str) -> str:
    """Return the path that a URL names, `SOURCE/ITEM`; a text without the scheme is a path already.

    Only a URL is percent-encoded, and may end in `?format=F`, as the URI of an item does: the path
    then ends in `.F`. Other question marks are wildcards.
    """
    if not url.startswith(_SCHEME):
        return url.rstrip("/")
    path, query, ending = url.removeprefix(_SCHEME).partition(_FORMAT)
    path = unquote(path.rstrip("/"))
    return f"{path}.{ending}" if query else path


def to_url(path: str) -> str:
    """Return the URL of a path."""
    return path if path.startswith(_SCHEME) else _SCHEME + quote(path, safe="/*?[]")


def split(path: str) -> tuple[str, str]:
    """Return the source id and the name that a path consists of; each may be empty."""
    source, _, name = path.partition("/")
    return source, name
