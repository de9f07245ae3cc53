"""Guess the media type of a file from its name."""

from __future__ import annotations

import mimetypes

# By the names that `mimetypes` gives to compressions. https://www.iana.org/assignments/media-types
_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
}


def guess_media_type(name: str) -> str | None:
    """Return the media type of a file of that name, None if it cannot be told.

    That of a compressed file is the compression's: `a.csv.gz` is `application/gzip`, since a reader
    of `text/csv` would find no text in it.
    """
    media_type, compression = mimetypes.guess_type(name)
    if compression is not None:
        return _COMPRESSED.get(compression, "application/octet-stream")
    return media_type
