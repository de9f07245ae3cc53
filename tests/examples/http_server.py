"""A web server of one directory behind a password: `http_server.py PORT DIRECTORY USER PASSWORD`."""

from __future__ import annotations

import base64
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    """Lists and serves files to clients with the password."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one piece
    expected_authorization = ""

    def do_GET(self) -> None:
        if self._allowed():
            super().do_GET()

    def do_HEAD(self) -> None:
        if self._allowed():
            super().do_HEAD()

    def log_message(self, *_: object) -> None:
        pass

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == self.expected_authorization:
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="files"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False


def main() -> None:
    port, directory, user, password = sys.argv[1:]
    Handler.expected_authorization = (
        "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    )
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), partial(Handler, directory=directory))
    server.serve_forever()


if __name__ == "__main__":
    main()
