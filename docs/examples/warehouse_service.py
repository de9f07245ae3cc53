"""A stand-in for the service, for tests: `service.py TOKEN [PORT]` prints its port and serves."""

from __future__ import annotations

import csv
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 2
TABLES: dict[str, tuple[list[str], list[list[object]]]] = {
    "prices": (["item", "price"], [["pen", 1.5], ["ink, blue", 7], ["gift", None]]),
    "stock": (["item", "count"], [[f"item {number}", number] for number in range(1_000)]),
    "void": (["item"], []),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    token = ""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        _, *path = url.path.split("/")
        if self.headers.get("Authorization") != f"Bearer {self.token}":
            self.answer(401)
        elif path == ["tables"]:
            names = sorted(name for name in TABLES if name > query.get("after", ""))
            self.answer(200, {"names": names[:PAGE], "more": len(names) > PAGE})
        elif path[0] != "tables" or path[1] not in TABLES:
            self.answer(404)
        elif path[2:] == ["rows"]:
            rows = TABLES[path[1]][1][: int(query.get("limit", sys.maxsize))]
            self.answer(200, *rows)
        else:
            columns, rows = TABLES[path[1]]
            self.answer(200, {"columns": columns, "rows": len(rows), "figures": figures(path[1])})

    def do_PUT(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        name = self.path.rpartition("/")[2]
        if name in TABLES and self.headers.get("If-None-Match") == "*":
            return self.answer(412)
        columns, *rows = csv.reader(io.StringIO(text))
        TABLES[name] = (columns, [list(row) for row in rows])
        return self.answer(201)

    def answer(self, status: int, *lines: object) -> None:
        body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def figures(name: str) -> dict[str, dict[str, float]]:
    """Return figures of each numeric column."""
    columns, rows = TABLES[name]
    by_column = {}
    for column, *values in zip(columns, *rows, strict=True):
        numbers = [value for value in values if isinstance(value, (int, float))]
        nulls = values.count(None)
        if numbers and len(numbers) + nulls == len(values):
            figures = {"count": len(numbers), "nulls": nulls, "mean": sum(numbers) / len(numbers)}
            by_column[column] = {**figures, "min": min(numbers), "max": max(numbers)}
    return by_column


if __name__ == "__main__":
    Handler.token = sys.argv[1]
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
