"""A loopback Blob service: fast, so that clients are what a benchmark measures, and faulty on order.

It knows Get Blob with ranges and conditions, Get Blob Properties and List Blobs, and checks no
signature.  In a test it runs on the test's own event loop; `BlobServerProcess` runs it in a
process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import socket
import struct
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import IO, Any, ClassVar, Self
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

HOST = "127.0.0.1"
PAGE = 5000
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}
_DATE = formatdate(1_700_000_000, usegmt=True)
NOW = "2023-11-14T22:13:20.0000000Z"
"""The version that blobs with earlier ones have now."""
ROWS_OF_A_TABLE = 650


@dataclass
class Fault:
    """What goes wrong with one answer; the rest of it is right."""

    status: int = 0
    """Answer with this status and `code` instead."""
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer, or in place of its own."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    reset: bool = False
    """Reset instead of closing; without `cut`, before the first byte."""
    stall: int | None = None
    """Say nothing more after so many bytes of the body, and keep the connection."""
    damage: bool = False
    """Turn one bit of the body."""


@dataclass
class Request:
    method: str
    path: str
    """As it was sent, encoded."""
    query: dict[str, str]
    headers: dict[str, str]
    """By lower-case name."""
    blob: str = ""
    """The name of the blob; empty for the container."""


class Blob:
    """A blob in memory, or in a file of its own for one that is sent without being copied."""

    def __init__(
        self,
        content: bytes | IO[bytes],
        *,
        md5: bool = False,
        properties: str = "",
        **headers: str,
    ) -> None:
        self.content = content
        self.size = (
            len(content) if isinstance(content, bytes) else os.fstat(content.fileno()).st_size
        )
        self.etag = f'"0x{os.urandom(7).hex().upper()}"'
        self.headers = headers
        self.properties = properties
        """More elements for its entry in a listing."""
        self.versions: dict[str, Blob] = {}
        """What it was, by time: with some, each answer tells a version."""
        if md5:
            self.headers["x-ms-blob-content-md5"] = b64encode(self.md5()).decode()

    def md5(self) -> bytes:
        """Return the MD5 of the content."""
        if isinstance(self.content, bytes):
            return hashlib.md5(self.content).digest()
        found = hashlib.md5()
        self.content.seek(0)
        while piece := self.content.read(1 << 20):
            found.update(piece)
        return found.digest()


class BlobService:
    """Any number of blobs in the one container there is, whatever its name."""

    codes: ClassVar[dict[str, str]] = {}
    """Codes of errors in another protocol, by those of this one."""

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self.fault: Callable[[Request], Fault | None] = lambda _: None
        """Called with each request, before it is answered."""
        self.requests: list[Request] = []
        self.record = True
        self.sent: Counter[str] = Counter()
        """Bytes of the bodies sent so far, by blob; what a fault cut off counts as well."""
        self.ranges = True
        """False to ignore them, as some servers in between do."""
        self.connected = 0
        """Connections made so far."""
        self.connections: set[_Connection] = set()
        self._pages: dict[tuple[str, ...], bytes] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start(0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            await connection.close()
        await self._server.wait_closed()

    async def start(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), HOST, port)

    async def serve_forever(self) -> None:
        assert self._server is not None
        await self._server.serve_forever()

    @property
    def url(self) -> str:
        """The URL of the account."""
        assert self._server is not None
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}/account"

    def put(self, name: str, content: bytes | IO[bytes], **kwargs: Any) -> Blob:
        self._pages.clear()
        self.blobs[name] = blob = Blob(content, **kwargs)
        return blob

    def find(self, request: Request) -> Blob | None:
        """Return the blob, or the version of it, that a request is about."""
        blob, version = self.blobs.get(request.blob), request.query.get("versionid", NOW)
        return blob.versions.get(version) if blob and version != NOW else blob

    def name_in(self, path: str) -> str:
        """Return the name of the blob in a path, `/account/container/blob`; empty without one."""
        return unquote(path.split("/", 3)[3]) if path.count("/") > 2 else ""

    def is_wanted(self, request: Request, blob: Blob) -> bool:
        """Return True if a blob meets the condition of a request."""
        return request.headers.get("if-match", blob.etag) in (blob.etag, "*")

    def listing(self, request: Request) -> tuple[str, bytes] | None:
        """Return media type and body of the answer to a request for a listing, None for others."""
        return None if request.blob else ("application/xml", self.page(request.query))

    def document(self, request: Request, blob: Blob) -> bytes | None:
        """Return the answer to a request that describes a blob, None where the headers do."""
        return None

    def error_body(self, status: int, code: str) -> bytes:
        """Return the body of a refusal."""
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}.</Message></Error>"
        return xml.encode()

    def counts(self) -> Counter[str]:
        """Return how often each blob was asked for."""
        return Counter(request.blob for request in self.requests)

    def page(self, query: dict[str, str]) -> bytes:
        """Return one answer of List Blobs; made once."""
        names = ("prefix", "marker", "maxresults", "include")
        prefix, marker, most, include = key = tuple(query.get(name, "") for name in names)
        if key not in self._pages:
            self._pages[key] = self._list(prefix, marker, most, versions="versions" in include)
        return self._pages[key]

    def _list(self, prefix: str, marker: str, most: str, *, versions: bool) -> bytes:
        first = unquote(marker)
        names = sorted(name for name in self.blobs if name.startswith(prefix) and name >= first)
        shown = names[: int(most or PAGE)]
        rest = names[len(shown) :]
        blobs = "".join(self._entries(name, versions=versions) for name in shown)
        return (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults '
            f'ServiceEndpoint="http://{HOST}/account/" ContainerName="data">'
            f"<Prefix>{quote(prefix)}</Prefix><Blobs>{blobs}</Blobs>"
            f"<NextMarker>{quote(rest[0]) if rest else ''}</NextMarker></EnumerationResults>"
        ).encode()

    def _entries(self, name: str, *, versions: bool) -> str:
        blob = self.blobs[name]
        if not versions:
            return self._entry(name, blob)
        current = f"<VersionId>{NOW}</VersionId><IsCurrentVersion>true</IsCurrentVersion>"
        return "".join(
            self._entry(name, old, f"<VersionId>{time}</VersionId>")
            for time, old in blob.versions.items()
        ) + self._entry(name, blob, current)

    @staticmethod
    def _entry(name: str, blob: Blob, version: str = "") -> str:
        return (
            f"<Blob>{_name(name)}{version}<Properties><Creation-Time>{_DATE}</Creation-Time>"
            f"<Last-Modified>{_DATE}</Last-Modified><Etag>{blob.etag[1:-1]}</Etag>"
            f"<Content-Length>{blob.size}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type><Content-Encoding />"
            "<Content-Language /><Content-CRC64 /><Content-MD5>F4uoVwdHDEHPaA+zf/mffw==</Content-MD5>"
            "<Cache-Control /><Content-Disposition /><BlobType>BlockBlob</BlobType>"
            "<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>"
            "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
            f"<ServerEncrypted>true</ServerEncrypted>{blob.properties}</Properties><OrMetadata />"
            "</Blob>"
        )


class S3Service(BlobService):
    """The same with listings and errors of S3; the bucket is the container."""

    codes: ClassVar[dict[str, str]] = {
        "BlobNotFound": "NoSuchKey",
        "ConditionNotMet": "PreconditionFailed",
    }

    def put(self, name: str, content: bytes | IO[bytes], **kwargs: Any) -> Blob:
        blob = super().put(name, content, **kwargs)
        blob.etag = f'"{blob.md5().hex()}"' if isinstance(content, bytes) else '"0-2"'
        return blob

    def page(self, query: dict[str, str]) -> bytes:
        """Return one answer of ListObjectsV2; made once."""
        names = ("prefix", "continuation-token", "max-keys", "delimiter")
        prefix, marker, most, delimiter = key = tuple(query.get(name, "") for name in names)
        if key not in self._pages:
            self._pages[key] = self._objects(prefix, marker, int(most or 1000), delimiter)
        return self._pages[key]

    def _objects(self, prefix: str, marker: str, most: int, delimiter: str) -> bytes:
        names = [name for name in self.blobs if name.startswith(prefix)]
        if delimiter:
            names = [prefix + re.sub("/.*", "/", name[len(prefix) :]) for name in names]
        names = [name for name in sorted(set(names)) if name > marker]
        entries = "".join(map(self._object, names[:most]))
        token = escape(names[most - 1]) if names[most:] else ""
        following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>data</Name>'
            f"<EncodingType>url</EncodingType><IsTruncated>{str(bool(token)).lower()}</IsTruncated>"
            f"{following}{entries}</ListBucketResult>"
        ).encode()

    def _object(self, name: str) -> str:
        if name not in self.blobs:
            return f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"
        blob = self.blobs[name]
        return (
            f"<Contents><Key>{quote(name)}</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
            f"<ETag>{escape(blob.etag)}</ETag><Size>{blob.size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered one after the other."""

    transport: asyncio.Transport

    def __init__(self, service: BlobService) -> None:
        self._service = service
        self._received = b""
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._service.connections.add(self)
        self._service.connected += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.connections.discard(self)
        if self._sending is not None:
            self._sending.cancel()

    async def close(self) -> None:
        self.transport.abort()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._sending is None and (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[:end], self._received[end + 4 :]
            request = _parse(head.decode("latin-1"))
            request.blob = self._service.name_in(request.path)
            self._answer(request)

    def _answer(self, request: Request) -> None:
        service = self._service
        if service.record:
            service.requests.append(request)
        fault = service.fault(request) or Fault()
        if fault.status:
            self._error(request, fault.status, fault.code, fault)
        elif (listing := service.listing(request)) is not None:
            self._send(request, 200, {"Content-Type": listing[0]}, listing[1], fault)
        elif (blob := service.find(request)) is None:
            self._error(request, 404, "BlobNotFound", fault)
        elif not service.is_wanted(request, blob):
            self._error(request, 412, "ConditionNotMet", fault)
        elif (document := service.document(request, blob)) is not None:
            self._send(request, 200, {"Content-Type": "application/json"}, document, fault)
        else:
            self._blob(request, blob, fault)

    def _error(self, request: Request, status: int, code: str, fault: Fault) -> None:
        code = self._service.codes.get(code, code)
        body = self._service.error_body(status, code)
        self._send(request, status, {"x-ms-error-code": code}, body, fault)

    def _blob(self, request: Request, blob: Blob, fault: Fault) -> None:
        found = _RANGE.match(request.headers.get("range") or request.headers.get("x-ms-range", ""))
        status, start, end = 200, 0, blob.size
        headers = {
            "ETag": blob.etag,
            "Last-Modified": _DATE,
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "x-ms-blob-type": "BlockBlob",
            "x-ms-creation-time": _DATE,
            **blob.headers,
        }
        if self._service.blobs[request.blob].versions:
            headers["x-ms-version-id"] = request.query.get("versionid", NOW)
        if found and self._service.ranges:
            status, start = 206, int(found[1])
            end = min(end, int(found[2] or blob.size) + 1)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
            if start >= blob.size:
                self._error(request, 416, "InvalidRange", fault)
                return
        if isinstance(blob.content, bytes):
            self._send(request, status, headers, blob.content[start:end], fault)
        else:
            self._send(request, status, headers, (blob.content, start, end - start), fault)

    def _send(
        self,
        request: Request,
        status: int,
        headers: dict[str, str],
        body: bytes | tuple[IO[bytes], int, int],
        fault: Fault,
    ) -> None:
        size = len(body) if isinstance(body, bytes) else body[2]
        headers = {"Content-Length": str(size), "x-ms-version": "2021-12-02", **headers}
        headers |= fault.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'X')}\r\n{lines}\r\n".encode("latin-1")
        if request.method == "HEAD":
            body = b""
        else:
            self._service.sent[request.blob] += size
        if isinstance(body, tuple):
            self.transport.write(head)
            self._sending = asyncio.ensure_future(self._sendfile(*body))
        elif fault.reset or fault.cut is not None or fault.stall is not None:
            self._break(head, body, fault)
        else:
            self.transport.write(head + (_damaged(body) if fault.damage else body))

    def _break(self, head: bytes, body: bytes, fault: Fault) -> None:
        sent = fault.cut if fault.cut is not None else fault.stall
        if sent is not None:
            self.transport.write(head + body[:sent])
        if fault.reset:
            # Lingering for no time makes closing a reset, after what was sent has left.
            raw: Any = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault.stall is None:
            self.transport.close()

    async def _sendfile(self, file: IO[bytes], start: int, size: int) -> None:
        try:
            await asyncio.get_running_loop().sendfile(self.transport, file, start, size)
        except (ConnectionError, RuntimeError):  # the client has gone
            self.transport.abort()
        self._sending = None
        self.data_received(b"")


def _parse(head: str) -> Request:
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    if target.startswith("http://"):  # as to a proxy
        target = "/" + target.split("/", 3)[3]
    path, _, query = target.partition("?")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    parsed = {name: values[0] for name, values in parse_qs(query).items()}
    return Request(method, path, parsed, headers)


def _name(name: str) -> str:
    # As the service does with characters that XML cannot hold.
    if any(ord(character) < 32 or character in "\ufffe\uffff" for character in name):
        return f'<Name Encoded="true">{quote(name)}</Name>'
    return f"<Name>{escape(name)}</Name>"


def _damaged(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def _large(size: int) -> IO[bytes]:
    file = os.fdopen(os.memfd_create("blob"), "w+b")
    block = os.urandom(1 << 20)
    for number in range(size >> 20):
        file.write(number.to_bytes(8) + block[8:])
    file.flush()
    return file


async def _main(
    port: int, large: int, small: int, listed: int, long: int, tables: int, s3: bool
) -> None:
    service = S3Service() if s3 else BlobService()
    service.record = False
    content = _large(large << 20)
    service.put("large", content)
    service.put("large-md5", content, md5=True)
    for number in range(small):
        service.put(f"small/{number:05}", os.urandom(16 * 1024))
    for number in range(listed):
        service.put(f"listed/{number // 1000:03}/file-{number:06}.csv", b"")
    for number in range(long):
        # With a slash at the end, it would be the marker of a folder, which is not listed.
        name = f"long/{number:06}" + "é\x01 /"[number % 4] * 999 + "x"
        service.put(name, b"", properties="<Unknown>&lt;é&gt;</Unknown>" * 40)
    for number in range(tables):
        rows = (f"{number},{row},city number {row % 97}\n" for row in range(ROWS_OF_A_TABLE))
        service.put(f"tables/{number:06}.csv", ("a,b,c\n" + "".join(rows)).encode())
    service.page({"maxresults": str(PAGE)})
    await service.start(port)
    await service.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    for each in ("large", "small", "listed", "long", "tables"):
        arguments.add_argument(f"--{each}", type=int, default=0)
    arguments.add_argument("--s3", action="store_true")
    asyncio.run(_main(**vars(arguments.parse_args())))
else:
    from tests.servers.process import Server

    class BlobServerProcess(Server):
        """The service in a process of its own, with blobs `large`, `small/…`, `listed/…` and so on.

        `large` is in MiB, the others are numbers of blobs, `long` of names of 1,000 characters,
        `tables` of 16 KiB of CSV with `ROWS_OF_A_TABLE` rows; `large-md5` is `large` once more, with
        its Content-MD5.
        """

        name = "blob-server"

        def __init__(
            self,
            *,
            large: int = 0,
            small: int = 0,
            listed: int = 0,
            long: int = 0,
            tables: int = 0,
            s3: bool = False,
        ) -> None:
            super().__init__()
            self._protocol = ["--s3"] if s3 else []
            self._blobs = {"large": large, "small": small, "listed": listed, "long": long}
            self._blobs["tables"] = tables

        @property
        def url(self) -> str:
            """The URL of the account."""
            return f"http://{HOST}:{self.port}/account"

        def _prepare(self) -> None:
            pass

        def _command(self) -> list[str | Path]:
            options = [f"--{name}={value}" for name, value in self._blobs.items()]
            options += self._protocol
            return [sys.executable, __file__, str(self.port), *options]
