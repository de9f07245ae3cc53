"""Decompress the beginning of a file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from datasources.errors import DataFetchError

MAX_DECOMPRESSED = 4 * 1024 * 1024
"""Bytes that are decompressed at most, whatever the file would become."""
SUFFIXES = (".gz", ".bz2", ".xz")
"""Endings of the names of compressed files, which stand behind the extension of the content."""
# By the bytes that a compressed stream begins with. Two layers occur: a `.gz` file that is served
# with `Content-Encoding: gzip`.
_FORMATS: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zXZ\x00": ("xz", lzma.LZMADecompressor),
}
_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_MAX_LAYERS = 2
_ERRORS = (zlib.error, OSError, lzma.LZMAError, EOFError)


def decompress(name: str, head: bytes, *, complete: bool) -> tuple[bytes, str | None, bool]:
    """Decompress the first bytes of a file, if it is compressed.

    Args:
        name: The file's name, for messages.
        head: Its first bytes.
        complete: True if `head` is the whole file.

    Returns:
        The content, `MAX_DECOMPRESSED` bytes of it at most; the name of the compression, None if
        there is none; and True if the content is complete.

    Raises:
        DataFetchError: The compressed data is damaged.
    """
    compression = None
    for _ in range(_MAX_LAYERS):
        for magic, (format_name, factory) in _FORMATS.items():
            if head.startswith(magic):
                try:
                    head, complete = _decompress(head, magic, factory, complete)
                except _ERRORS as exc:
                    raise DataFetchError(f"{name!r} is not {format_name}, as it seems") from exc
                compression = format_name
                break
        else:
            break
    return head, compression, complete


def open_decompressed(blocks: Iterator[bytes], head: bytes) -> io.BufferedIOBase | None:
    """Return a reader of the content of a compressed file; None if it is not compressed.

    A read decompresses no more than it returns, and raises OSError, EOFError or lzma.LZMAError if
    the data is damaged.

    Args:
        blocks: The bytes of the file.
        head: Its first bytes.
    """
    for magic, opener in _OPENERS.items():
        if head.startswith(magic):
            return cast("io.BufferedIOBase", opener(io.BufferedReader(_Blocks(blocks))))
    return None


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._block:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._block = memoryview(block)
        size = min(len(buffer), len(self._block))
        buffer[:size] = self._block[:size]
        self._block = self._block[size:]
        return size


def inflate(name: str, head: bytes, encoding: str, *, complete: bool) -> tuple[bytes, bool]:
    """Decompress the first bytes of a file that HTTP's `Content-Encoding` says is compressed.

    Raises:
        DataFetchError: It is not compressed like that.
    """
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        return head, complete
    magic = b"\x1f\x8b" if head.startswith(b"\x1f\x8b") else head[:1]
    try:
        return _decompress(
            head, magic, lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 32), complete
        )
    except zlib.error as exc:
        raise DataFetchError(f"{name!r} is not {encoding}, as it should be") from exc


def _decompress(
    data: bytes, magic: bytes, factory: Callable[[], Any], complete: bool
) -> tuple[bytes, bool]:
    """Decompress stream after stream: each format allows several in one file."""
    content = bytearray()
    while data.startswith(magic) and len(content) < MAX_DECOMPRESSED:
        stream = factory()
        content += stream.decompress(data, MAX_DECOMPRESSED - len(content))
        if not stream.eof:
            return bytes(content), False
        data = stream.unused_data
    return bytes(content), complete and not data.startswith(magic)
