"""A web server of one directory: `http_files.py PORT DIRECTORY USER PASSWORD [ranges]`.

It is that of Python's standard library behind a password, which knows no ranges and no ETags; with
`ranges`, it knows both.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Handler(SimpleHTTPRequestHandler):
    """Lists and serves files to clients with the password."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one piece
    expected_authorization = ""
    ranges = False

    def do_GET(self) -> None:
        if self._allowed() and not (self.ranges and self._send_range()):
            super().do_GET()

    def do_HEAD(self) -> None:
        if self._allowed():
            super().do_HEAD()

    def end_headers(self) -> None:
        path = self.translate_path(self.path)
        if self.ranges and os.path.isfile(path):
            self.send_header("ETag", _etag(os.stat(path)))
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _send_range(self) -> bool:
        """Answer a request for a range of a file; return False for any other request."""
        path, asked = self.translate_path(self.path), _RANGE.match(self.headers.get("Range", ""))
        if asked is None or not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, stop = int(asked[1]), min(int(asked[2] or size) + 1, size)
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return True
            file.seek(start)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Content-Type", self.guess_type(path))
            self.end_headers()
            self.wfile.write(file.read(stop - start))
        return True

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == self.expected_authorization:
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="files"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def main() -> None:
    port, directory, user, password, *more = sys.argv[1:]
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    Handler.expected_authorization = f"Basic {pair}"
    Handler.ranges = "ranges" in more
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), partial(Handler, directory=directory))
    server.serve_forever()


if __name__ == "__main__":
    main()
