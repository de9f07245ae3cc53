"""The files that docs/deploy.md shows, with the programs that read them."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import _served
from tests.docs.blocks import DOCS, ROOT, blocks
from tests.server.served import ServeCommand
from tests.servers.certificates import self_signed
from tests.servers.debian import SYSTEMD_ANALYZE, require
from tests.servers.nginx import NginxServer
from tests.servers.process import ServerError

COMMAND = Path(sys.executable).with_name("datasources")
NAME = "data.example.com"
SIZE = 64 << 20  # bytes of a file, more than all buffers on the way hold


def shown(language: str) -> str:
    """Return the one block of a language on the page."""
    (text,) = [block.text for block in blocks(DOCS / "deploy.md") if block.language == language]
    return text


def test_unit_is_valid(tmp_path: Path) -> None:
    try:
        require(SYSTEMD_ANALYZE)
    except ServerError as exc:
        pytest.fail(str(exc)) if os.environ.get("CI") else pytest.skip(str(exc))
    unit = tmp_path / "datasources.service"
    text = shown("ini")
    assert text.count("/opt/datasources/bin/datasources") == 2
    unit.write_text(text.replace("/opt/datasources/bin/datasources", str(COMMAND)))
    command: list[str | Path] = [SYSTEMD_ANALYZE, "verify", "--man=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "protect home" in done.stderr


def test_command_of_the_container_demands_tls_and_has_its_data_in_the_volume(
    tmp_path: Path,
) -> None:
    text = shown("dockerfile")
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    program, *arguments = json.loads(command)
    assert program == COMMAND.name
    (volume,) = re.findall(r"^VOLUME (.*)$", text, re.MULTILINE)
    assert f"ENV XDG_DATA_HOME={volume}\n" in text
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path)}

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments, "--check"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert "--tls-cert" in check().stderr
    certificate, key = self_signed(tmp_path)
    environment["DATASOURCES_SERVER_TLS_CERT"] = str(certificate)
    environment["DATASOURCES_SERVER_TLS_KEY"] = str(key)
    environment["DATASOURCES_SERVER_PUBLIC_URL"] = f"https://{NAME}"
    assert check().stderr == "The settings are valid.\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCommand]:
    """The server with the configuration of the page."""
    (config,) = [block.text for block in blocks(DOCS / "deploy.md") if block.language == "toml"]
    path = tmp_path_factory.mktemp("config") / "datasources.toml"
    path.write_text(config)
    yield from _served(ServeCommand(config=path))


@pytest.fixture(scope="module")
def nginx(
    served: ServeCommand, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NginxServer, Path]]:
    certificate, key = self_signed(tmp_path_factory.mktemp("tls"), NAME)
    replaced = {
        "listen 443 ssl": "listen 127.0.0.1:PORT ssl",
        f"/etc/ssl/{NAME}.pem": str(certificate),
        f"/etc/ssl/{NAME}.key": str(key),
        "127.0.0.1:8300": f"127.0.0.1:{served.port}",
    }
    for server in _served(NginxServer(shown("nginx"), replaced)):
        yield server, certificate


class Connection(http.client.HTTPSConnection):
    """A connection to nginx as to the public name."""

    def __init__(self, port: int, certificate: Path) -> None:
        super().__init__("127.0.0.1", port, timeout=30)
        self._context = ssl.create_default_context(cafile=certificate)
        self._context.check_hostname = False

    def call(
        self, served: ServeCommand, method: str, path: str, body: object = None, **headers: str
    ) -> http.client.HTTPResponse:
        sent = {"Host": NAME, "Authorization": f"Bearer {served.admin.token}"}
        content = None if body is None else json.dumps(body)
        sent |= {"Content-Type": "application/json"} if content else {}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.request(method, f"/v1{path}", content, sent | names)
        return self.getresponse()


def put_source(served: ServeCommand, connection: Connection) -> None:
    data = served.directory / "data"
    with (data / "large.bin").open("wb") as file:
        file.truncate(SIZE)
    body = {"type": "local_file", "options": {"path": str(data)}, "limits": {"max_bytes": SIZE}}
    answer = connection.call(served, "PUT", "/sources/lake", body, If_None_Match="*")
    assert answer.read()
    assert answer.status in (201, 412)


def test_server_behind_nginx_answers_for_the_public_address_alone(
    served: ServeCommand, nginx: tuple[NginxServer, Path]
) -> None:
    with closing(Connection(nginx[0].port, nginx[1])) as connection:
        put_source(served, connection)
        check_addresses(served, connection)


def check_addresses(served: ServeCommand, connection: Connection) -> None:
    for origin, status in ((f"https://{NAME}", 200), ("https://other.example", 403)):
        answer = connection.call(served, "GET", "/sources", Origin=origin)
        assert (answer.status, answer.read() != b"") == (status, True)
    answer = connection.call(served, "GET", "/sources", Host="other.example")
    assert answer.read()
    assert answer.status == 421


def test_content_comes_through_nginx_whole_or_is_seen_to_be_broken(
    served: ServeCommand, nginx: tuple[NginxServer, Path]
) -> None:
    with closing(Connection(nginx[0].port, nginx[1])) as connection:
        put_source(served, connection)
        check_content(served, connection)


def check_content(served: ServeCommand, connection: Connection) -> None:
    path, body = "/sources/lake/content", {"item": "large.bin"}
    answer = connection.call(served, "POST", path, body)
    assert answer.status == 200
    assert len(answer.read()) == SIZE
    answer = connection.call(served, "POST", f"{path}?stream=true", body)
    assert answer.status == 200
    assert len(answer.read(1 << 20)) == 1 << 20
    served.kill()
    with pytest.raises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
        answer.read()
    served.start()


def test_environment_of_the_service_has_the_command(tmp_path: Path) -> None:
    folders = {
        '"datasources[cli]"': f'"{ROOT}/core[cli]"',
        "datasources-server": f"{ROOT}/hosts/server",
        "datasources-postgresql": f"{ROOT}/plugins/postgresql",
        "/opt/datasources": str(tmp_path),
    }
    make, install, _ = shown("sh").splitlines()  # the last one makes a user of the machine
    script = re.sub(
        "|".join(map(re.escape, folders)), lambda found: folders[found[0]], make + "\n" + install
    )
    subprocess.run(["bash", "-ec", script], check=True)
    command: list[str | Path] = [tmp_path / "bin/datasources", "serve", "--check"]
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stderr == "The settings are valid.\n"
