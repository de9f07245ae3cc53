"""Progress of a fetch, reported on the event loop whichever thread writes the file."""

from __future__ import annotations

import asyncio
import threading

from datasources.workspace import Progress


class LoopProgress:
    """Calls a progress callback on the event loop that this object was made on.

    A connector may write its file in any thread. Calls on the loop go through at once. Those of
    other threads never wait for the loop: of the calls that it has not made yet, only the latest
    is made.

    An error of the callback ends the fetch. It is raised where the bytes were written, or, if that
    was in another thread, by the next call; and again, whatever the connector made of it, by
    `raise_error`.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()  # held while `_latest` is looked at and changed
        self._latest: tuple[int, int | None] | None = None
        self._error: Exception | None = None

    def __call__(self, done: int, total: int | None) -> None:
        self.raise_error()
        if threading.get_ident() == self._thread:
            try:
                self._progress(done, total)
            except Exception as exc:
                self._error = exc
                raise
            return
        with self._lock:
            scheduled = self._latest is not None
            self._latest = done, total
        if not scheduled:
            self._loop.call_soon_threadsafe(self._report)

    def raise_error(self) -> None:
        """Raise what the callback has raised."""
        if self._error is not None:
            raise self._error

    def _report(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
        if latest is None or self._error is not None:
            return
        try:
            self._progress(*latest)
        except Exception as exc:  # noqa: BLE001  (raised again in the fetch)
            self._error = exc
