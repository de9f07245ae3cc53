"""Read a local file for an upload: in order, once, hashed on the way, in parts if it is large."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import md5
from typing import BinaryIO, TypeVar

from datasources.errors import DataFetchError
from datasources.files import open_regular
from datasources.gathering import gather
from datasources.objects.failures import ObjectSubject
from datasources.threads import run_in_thread

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called on the event loop with the bytes stored so far and the file's size."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object that an upload has made, as the service describes it."""

    etag: str
    """Without quotes, as in the items of a listing."""
    modified_at: float | None = None
    """Unix seconds."""


class UploadSource:
    """A local file that is being uploaded; its size must not change meanwhile.

    Args:
        file: The open file, at its beginning.
        subject: The object that it becomes, for messages.
        progress: As `ObjectUploads.upload_file` gets it.
    """

    def __init__(
        self, file: BinaryIO, subject: ObjectSubject, progress: Progress | None = None
    ) -> None:
        self.size = os.fstat(file.fileno()).st_size
        """Bytes of the file when it was opened."""
        self._file = file
        self._subject = subject
        self._progress = progress
        self._bytes_read = 0
        self._bytes_sent = 0
        self._md5 = md5(usedforsecurity=False)

    async def read(self) -> bytes:
        """Return the whole of a small file.

        Raises:
            DataFetchError: The file has changed.
        """
        data = await run_in_thread(self._read, self.size + 1)
        self.check_size()
        return data

    def md5(self) -> bytes:
        """Return the MD5 of the bytes read so far."""
        return self._md5.digest()

    def report(self, count: int) -> None:
        """Add to the bytes that are stored, and tell the caller's `progress`."""
        self._bytes_sent += count
        if self._progress is not None:
            self._progress(self._bytes_sent, self.size)

    def check_size(self) -> None:
        """Check that all bytes were read, and no more.

        Raises:
            DataFetchError: The file has changed.
        """
        if self._bytes_read != self.size:
            raise self._subject.error(
                DataFetchError, "the local file changed while it was read; upload it again"
            )

    async def send_parts(
        self, size: int, concurrency: int, send: Callable[[int, bytes], Awaitable[T]]
    ) -> list[T]:
        """Send the file in parts, several at once; return what `send` returned, in their order.

        Args:
            size: Bytes of each part but the last.
            concurrency: Parts that are in memory and on their way at once.
            send: Called with the number of a part, from 0, and its bytes.

        Raises:
            DataFetchError: The file has changed.
        """
        sent: list[T | None] = []
        reading = asyncio.Lock()  # a part and its place in `sent` are taken together

        async def send_next() -> None:
            while True:
                async with reading:
                    data = await run_in_thread(self._read, size)
                    if not data:
                        return
                    number = len(sent)
                    sent.append(None)
                sent[number] = await send(number, data)
                self.report(len(data))

        await gather([send_next() for _ in range(concurrency)])
        self.check_size()
        return [part for part in sent if part is not None]

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._md5.update(data)
        self._bytes_read += len(data)
        return data


def open_file(path: str) -> BinaryIO:
    """Open a local regular file, or a link to one, for reading.

    Raises:
        DataFetchError: That is not possible.
    """
    try:
        return open(path, "rb", opener=partial(open_regular, follow_links=True))
    except OSError as exc:
        raise DataFetchError(f"cannot read {path!r}: {exc.strerror}") from exc
