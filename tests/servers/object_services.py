"""The faulty service of `blob_server` with the protocols of Google Cloud Storage and of web servers."""

from __future__ import annotations

import itertools
import json
import re
from base64 import b64encode
from html import escape
from typing import IO, Any, ClassVar
from urllib.parse import quote, unquote

from tests.servers.blob_server import Blob, BlobService, Request


class GCSService(BlobService):
    """The JSON API; the number of a content is its generation."""

    codes: ClassVar[dict[str, str]] = {
        "BlobNotFound": "notFound",
        "ConditionNotMet": "conditionNotMet",
        "InvalidRange": "requestedRangeNotSatisfiable",
    }
    _generations = itertools.count(1_700_000_000_000_000)

    def put(self, name: str, content: bytes | IO[bytes], **kwargs: Any) -> Blob:
        blob = super().put(name, content, **kwargs)
        blob.etag = str(next(self._generations))
        blob.headers["x-goog-generation"] = blob.etag
        blob.headers["x-goog-hash"] = f"md5={b64encode(blob.md5()).decode()}"
        return blob

    def name_in(self, path: str) -> str:
        """Return the name of the object in a path, `/account/storage/v1/b/BUCKET/o/OBJECT`."""
        return unquote(path.partition("/o/")[2])

    def is_wanted(self, request: Request, blob: Blob) -> bool:
        return request.query.get("ifGenerationMatch", blob.etag) == blob.etag

    def listing(self, request: Request) -> tuple[str, bytes] | None:
        return None if request.blob else ("application/json", self.page(request.query))

    def page(self, query: dict[str, str]) -> bytes:
        """Return one answer of the listing of objects, without folders."""
        prefix, most = query.get("prefix", ""), int(query.get("maxResults", 1000))
        names = [name for name in self.blobs if name.startswith(prefix)]
        names = [name for name in sorted(names) if name > query.get("pageToken", "")]
        items = [self._described(name, self.blobs[name]) for name in names[:most]]
        token = {"nextPageToken": names[most - 1]} if names[most:] else {}
        return json.dumps({"kind": "storage#objects", "items": items, **token}).encode()

    def document(self, request: Request, blob: Blob) -> bytes | None:
        if request.query.get("alt") == "media":
            return None
        return json.dumps(self._described(request.blob, blob)).encode()

    def error_body(self, status: int, code: str) -> bytes:
        error = {"code": status, "message": code, "errors": [{"reason": code}]}
        return json.dumps({"error": error}).encode()

    @staticmethod
    def _described(name: str, blob: Blob) -> dict[str, str]:
        described = {"name": name, "size": str(blob.size), "generation": blob.etag}
        return {**described, "updated": "2023-11-14T22:13:20Z"}


class FilesService(BlobService):
    """A web server that shows pages of links for its folders, and knows ETags and no conditions."""

    def is_wanted(self, request: Request, blob: Blob) -> bool:
        return True

    def listing(self, request: Request) -> tuple[str, bytes] | None:
        folder = request.blob
        if folder and not folder.endswith("/"):
            return None
        below = (name[len(folder) :] for name in self.blobs if name.startswith(folder))
        names = {re.sub("/.*", "/", name, flags=re.DOTALL) for name in below}
        links = (f'<a href="{escape(quote(name))}">{escape(name)}</a>' for name in sorted(names))
        return "text/html; charset=utf-8", "<br>".join(links).encode()

    def error_body(self, status: int, code: str) -> bytes:
        return f"<html><h1>{status} {escape(code)}</h1></html>".encode()
