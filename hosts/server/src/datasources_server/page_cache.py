"""Pages of lists of sources as they were sent, as clients ask for the same ones again and again."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import NamedTuple

from datasources import Principal, Store

_MAX_PAGES = 256
_MAX_AGE = 60.0  # seconds; the cursor in a page can be used for an hour after it was made


class PageVersion(NamedTuple):
    """All that a page depends on, beside what was asked for."""

    principal: Principal
    """With the grants of the request."""
    store: Store
    revision: int | None
    """Of the sources in the store, before the page was read."""


class PageCache:
    """Keeps pages until a source or a grant changes; its methods belong to one event loop."""

    def __init__(self) -> None:
        self._pages: dict[Hashable, tuple[float, PageVersion, bytes]] = {}

    def get(self, key: Hashable, version: PageVersion) -> bytes | None:
        """Return a page of this version."""
        kept_at, kept_version, page = self._pages.get(key, (0.0, None, None))
        is_same = kept_version == version and version.revision is not None
        return page if is_same and time.monotonic() < kept_at + _MAX_AGE else None

    def put(self, key: Hashable, version: PageVersion, page: bytes) -> None:
        """Keep a page; the oldest one makes room."""
        self._pages.pop(key, None)
        if len(self._pages) >= _MAX_PAGES:
            del self._pages[next(iter(self._pages))]
        self._pages[key] = (time.monotonic(), version, page)
