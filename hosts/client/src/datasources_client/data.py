"""Methods that read items of sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from datasources_client.content import Content, download
from datasources_client.errors import OptionError, ResponseError, error_from_problem
from datasources_client.files import default_path
from datasources_client.models import (
    ColumnStatistics,
    ContentReceipt,
    Item,
    Link,
    Page,
    Preview,
    Receipt,
    UploadReceipt,
)
from datasources_client.reading import read_model
from datasources_client.requests import (
    Requests,
    all_items,
    encode,
    member,
    query_string,
    segment,
    source_path,
)
from datasources_client.transport import read_pieces


class DataMethods(Requests):
    """The routes below `/sources/{id}` that read data."""

    _content_timeout: float

    def items(
        self, source: str, path: str | None = None, *, pattern: str | None = None
    ) -> Iterator[Item]:
        """Yield the items of a source; arguments as for `items_page`."""
        return all_items(
            lambda cursor: self.items_page(source, path, pattern=pattern, cursor=cursor)
        )

    def items_page(
        self,
        source: str,
        path: str | None = None,
        *,
        pattern: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[Item]:
        """Return one page of the items of a source.

        Args:
            source: The id of the source.
            path: Only items below this path.
            pattern: Only items that match, such as `**.csv`; not together with `path`.
            cursor: Of the page before; None for the first page.
            limit: Items at most; by default as many as the server sends.
        """
        query = {"path": path, "pattern": pattern, "cursor": cursor, "limit": limit}
        return self._page(Item, f"{source_path(source)}/items", query)

    def describe(self, source: str, item: str, *, refresh: bool = False) -> dict[str, Any]:
        """Return the metadata of an item, as its connector describes it.

        Args:
            source: The id of the source.
            item: The path of an item, or a query if the grant has `query`.
            refresh: True to ask the source although the server has a description.
        """
        answer = self._json(
            "POST", f"{source_path(source)}/describe", {"item": item, "refresh": refresh}
        )
        return member(answer, "metadata", dict)

    def preview(
        self,
        source: str,
        item: str,
        rows: int = 10,
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Return the first rows of an item or a query.

        Args:
            source: The id of the source.
            item: The path of an item, a query, or `query:NAME` for a stored one.
            rows: The most rows.
            parameters: Values of the parameters of a stored query.
        """
        body = {"item": item, "rows": rows, "parameters": dict(parameters or {})}
        return read_model(Preview, self._json("POST", f"{source_path(source)}/preview", body))

    def statistics(
        self, source: str, item: str, *, parameters: Mapping[str, Any] | None = None
    ) -> dict[str, ColumnStatistics]:
        """Return figures of the numeric columns of an item or a query, by column.

        The arguments are those of `preview`.
        """
        body = {"item": item, "parameters": dict(parameters or {})}
        answer = self._json("POST", f"{source_path(source)}/statistics", body)
        columns = member(answer, "columns", dict)
        return {name: read_model(ColumnStatistics, figures) for name, figures in columns.items()}

    def open_content(
        self,
        source: str,
        item: str,
        *,
        format: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        stream: bool = False,
        start: int = 0,
        etag: str | None = None,
    ) -> Content:
        """Open the content of an item or a query, a context manager that yields bytes.

        Args:
            source: The id of the source.
            item: The path of an item, or a query.
            format: Such as `csv` or `parquet`; by default that of the connector.
            parameters: As for `preview`.
            stream: True to have bytes sent as the source gives them, without size and receipt; False
                to have the server fetch the item completely first, within its limits.
            start: The first byte.
            etag: Of the content that `start` belongs to. If the content has another one, all of it is
                sent; see `Content.start`.
        """
        body: dict[str, Any] = {"item": item, "parameters": dict(parameters or {})}
        if format is not None:
            body["format"] = format
        headers = {"Content-Type": "application/json"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if etag is not None:
                if not (etag.isascii() and etag.isprintable()):
                    raise OptionError("the ETag has characters that no ETag has")
                headers["If-Range"] = etag
        response = self._transport.send(
            "POST",
            f"{source_path(source)}/content{query_string({'stream': stream})}",
            body=encode(body),
            headers=headers,
            timeout=self._content_timeout,
        )
        return Content(response)

    def fetch(
        self,
        source: str,
        item: str,
        *,
        format: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        path: str | None = None,
        directory: str = ".",
        stream: bool = False,
    ) -> Receipt:
        """Download an item or a query into a file, and return its receipt.

        The file is complete or absent, whatever happens; an older file of that path is replaced. A
        download that breaks is continued where it ended, if the content is still the same.

        Args:
            source: The id of the source.
            item: The path of an item, or a query.
            format: Such as `csv` or `parquet`; by default that of the connector.
            parameters: As for `preview`.
            path: The path of the file. By default it is below `directory`, in a folder named like
                the source, under the name that the server gives.
            directory: For files without `path`.
            stream: As for `open_content`; such a download needs `path` and is not continued.

        Raises:
            OSError: The file cannot be written.
        """
        if stream and path is None:
            raise OptionError("a stream has no name; give 'path'")

        def open_content(start: int, etag: str | None) -> Content:
            return self.open_content(
                source,
                item,
                format=format,
                parameters=parameters,
                stream=stream,
                start=start,
                etag=etag,
            )

        def path_of(content: Content) -> str:
            return path or default_path(directory, source, item, content.filename)

        retries = self._transport.retries
        return download(open_content, path_of, source=source, item=item, retries=retries)

    def upload(
        self,
        source: str,
        item: str,
        content: str | os.PathLike[str] | BinaryIO | Iterable[bytes],
        *,
        overwrite: bool = True,
    ) -> UploadReceipt:
        """Store a file in a source, sent in pieces as it is read.

        The item appears in the source when it is complete: if anything fails, nothing of it is
        there, and an older item of that path is as it was.

        Args:
            source: The id of the source.
            item: The path of the item.
            content: The path of a file; or a binary file, or an iterable of bytes.
            overwrite: False to refuse if there is such an item.

        Raises:
            ItemExistsError: There is such an item, and `overwrite` is False.
            ResponseError: The server has received other bytes than were sent.
            OSError: The file cannot be read.
        """
        if isinstance(content, (str, os.PathLike)):
            with open(content, "rb") as file:
                return self.upload(source, item, file, overwrite=overwrite)
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            for piece in read_pieces(content):
                digest.update(piece)
                yield piece

        headers = {"Content-Type": "application/octet-stream"}
        if not overwrite:
            headers["If-None-Match"] = "*"
        path = f"{source_path(source)}/upload{query_string({'item': item})}"
        timeout = self._content_timeout
        answer = self._send_json("POST", path, pieces(), headers, timeout)
        receipt = read_model(UploadReceipt, answer)
        if receipt.sha256 != digest.hexdigest():
            raise ResponseError("the server has received other bytes than were sent")
        return receipt

    def receipt(self, request_id: str) -> ContentReceipt:
        """Return the server's receipt of a stream that has ended within the last hour.

        Args:
            request_id: That of the stream's `Content`.

        Raises:
            DataSourceError: What has ended the stream early, or the server has no receipt.
        """
        outcome = self._json("GET", f"/v1/receipts/{segment(request_id)}")
        if isinstance(outcome, dict) and isinstance(problem := outcome.get("problem"), dict):
            status = problem.get("status")
            raise error_from_problem(problem, status if isinstance(status, int) else 500, None)
        return read_model(ContentReceipt, member(outcome, "receipt", dict))

    def make_link(
        self,
        source: str,
        item: str,
        *,
        format: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Link:
        """Make a link to the content of an item, for a browser: usable once, within a minute.

        Args:
            source: The id of the source.
            item: Its identifier, which may be a query.
            format: Of the content, such as `csv`; by default that of the item.
            parameters: The values of the parameters of a stored query.
        """
        body: dict[str, Any] = {"source": source, "item": item, "format": format}
        body |= {"parameters": dict(parameters)} if parameters else {}
        return read_model(Link, self._json("POST", "/v1/links", body))

    def open_link(self, link: Link) -> Content:
        """Open the content of a link of this server; the link cannot be used again."""
        path = f"/v1/links/{segment(link.url.rpartition('/')[2])}"
        return Content(self._transport.send("GET", path, timeout=self._content_timeout))
