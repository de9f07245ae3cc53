"""A client of the API for tests: one connection for each request, nothing but sockets."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def slug(self) -> str:
        """The name of the error; fails if the response is no problem document."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        assert self.json["instance"] == f"urn:uuid:{self.headers['x-request-id']}"
        slug: str = self.json["type"].removeprefix("urn:datasources:error:")
        return slug


class Client:
    """Calls the API below `/v1` with one token."""

    def __init__(self, port: int, token: str | None) -> None:
        self.port = port
        self.token = token

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        headers: Mapping[str, str] | None = None,
        prefix: str = "/v1",
        **query: Any,
    ) -> Answer:
        """Send a request; a body that is not bytes is sent as JSON.

        Of an answer in lines, which may go on for an hour, the first one is read.
        """
        sent = {"Host": f"{HOST}:{self.port}"}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        url = prefix + quote(path) + (f"?{urlencode(query)}" if query else "")
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.putrequest(method, url, skip_host=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None and "Transfer-Encoding" not in sent:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            in_lines = response.headers["content-type"] == "application/x-ndjson"
            content = response.readline() if in_lines else response.read()
            return Answer(response.status, response.headers, content)
        finally:
            connection.close()

    def create(self, source_id: str, type: str = "local_file", **options: Any) -> Answer:
        """Create a source."""
        answer = self(
            "PUT",
            f"/sources/{source_id}",
            {"type": type, "options": options},
            headers={"If-None-Match": "*"},
        )
        assert answer.status == 201, answer.body
        return answer
