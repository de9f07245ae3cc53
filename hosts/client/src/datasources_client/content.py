"""The content of an item as it arrives, and downloads of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Protocol
from urllib.parse import unquote

from datasources_client.errors import ResponseError, ServerError
from datasources_client.files import PartFile
from datasources_client.models import ContentReceipt, Receipt
from datasources_client.reading import read_model
from datasources_client.responses import Response

_FILENAME = re.compile(r"filename\*=UTF-8''([^;\s]+)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Content:
    """The content of an item, or of a range of it, in pieces as they arrive.

    It is iterated once, and is a context manager: leaving it early closes the connection, which ends
    what the server does for it. Iteration raises ResponseError if the content ends before its end.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        header = response.header
        self.media_type: str = header("Content-Type") or "application/octet-stream"
        """Such as `text/csv; charset=utf-8`."""
        self.etag: str | None = header("ETag")
        """The version of the content, in quotes; None for a stream."""
        self.size: int | None = response.length
        """Bytes that will arrive; None for a stream."""
        match = _FILENAME.search(header("Content-Disposition") or "")
        self.filename: str | None = unquote(match[1]) if match else None
        """The name that the server suggests; None for a stream."""
        self.start: int = 0
        """The first byte that will arrive, 0 if the server sends all."""
        self.request_id: str | None = header("X-Request-Id")
        """The id of the request in the server's log and audit trail."""
        self.receipt: ContentReceipt | None = None
        """The receipt of all of the content; None for a stream."""
        try:
            self._read_headers()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self._response.chunks()

    def close(self) -> None:
        """Close the connection if bytes are still to come."""
        self._response.close()

    def _read_headers(self) -> None:
        header = self._response.header
        if (header("Content-Encoding") or "identity").lower() != "identity":
            raise ResponseError("the content is encoded, which was not asked for")
        if self._response.status == 206:
            match = _RANGE.fullmatch(header("Content-Range") or "")
            if match is None or int(match[2]) - int(match[1]) + 1 != self.size:
                raise ResponseError("the server's response does not say which range it is")
            self.start = int(match[1])
        elif self._response.status != 200:
            raise ResponseError(f"the server answered with the status {self._response.status}")
        described = header("Datasources-Receipt")
        if described is not None:
            try:
                values = json.loads(described)
            except (ValueError, RecursionError):
                raise ResponseError("the receipt of the content cannot be read") from None
            self.receipt = read_model(ContentReceipt, values)


class OpenContent(Protocol):
    """Opens the content of one item from a byte on, if it still has the ETag."""

    def __call__(self, start: int, etag: str | None) -> Content: ...


def download(
    open_content: OpenContent,
    path_of: Callable[[Content], str],
    *,
    source: str,
    item: str,
    retries: int,
) -> Receipt:
    """Download an item into a file, which is complete or absent.

    A download that breaks is continued where it ended, if the content has an ETag: the server then
    sends the rest, or, if the content has changed, all of it again.

    Args:
        open_content: Opens the content.
        path_of: Returns the path of the file.
        source: For the receipt.
        item: For the receipt.
        retries: How many times a download is continued.

    Raises:
        DataSourceError: As `open_content`, or the last attempt broke.
        ResponseError: The file is not what the receipt says.
        OSError: The file cannot be written.
    """
    content = open_content(0, None)
    try:
        with PartFile(path_of(content)) as file:
            while not _receive(content, file, is_last=retries <= 0):
                retries -= 1
                content = _continue(open_content, content, file)
            _check(content.receipt, file)
            file.complete()
            return Receipt(source, item, file.path, file.size, file.sha256, content.receipt)
    finally:
        content.close()


def _receive(content: Content, file: PartFile, *, is_last: bool) -> bool:
    """Write what arrives; return False if it broke and can be continued.

    Raises:
        ServerError: It broke, and cannot.
    """
    try:
        for chunk in content:
            file.write(chunk)
    except ServerError:
        if is_last or content.etag is None:
            raise
        return False
    return True


def _continue(open_content: OpenContent, broken: Content, file: PartFile) -> Content:
    """Open the rest of a content, or all of it if it has changed.

    Raises:
        DataSourceError: As `open_content`.
        ResponseError: The server sends another range than the rest.
    """
    content = open_content(file.size, broken.etag)
    if content.start == 0:
        file.restart()
    elif content.start != file.size or content.etag != broken.etag:
        content.close()
        raise ResponseError("the server sent another part of the content than the rest")
    return content


def _check(receipt: ContentReceipt | None, file: PartFile) -> None:
    if receipt is not None and (receipt.size, receipt.sha256) != (file.size, file.sha256):
        raise ResponseError(
            "the content is not what its receipt says; nothing was written", retryable=True
        )
