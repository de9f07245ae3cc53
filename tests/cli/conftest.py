"""Fixtures of the tests of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from datasources.cli.app import cli
from tests.cli.vault import install_vault
from tests.core.plugin_fixtures import Site, new_site

SECRET = "m4rker-s3cret-t0ken"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one sentence of the error, without its prefix; no traceback stands around it."""
        lines = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("Error: ")


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def _own_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Run each test in an empty directory, as `fetch` writes into the current one by default."""
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command in this process; `answers` are typed at a terminal, `pipe` is piped in."""

    def run(*args: str, pipe: str | None = None, answers: list[str] | None = None) -> Done:
        monkeypatch.setattr("datasources.cli.output.is_interactive", lambda: answers is not None)
        typed = pipe if answers is None else "".join(f"{answer}\n" for answer in answers)
        result = CliRunner().invoke(cli, args, input=typed, catch_exceptions=False)
        return Done(result.exit_code, result.stdout, result.stderr)

    yield run
    for name in list(cli.commands):  # what plugins have added
        del cli.commands[name]


@pytest.fixture
def ok(run: Run) -> Callable[..., Done]:
    """Run a command that must go well."""

    def ok(*args: str, **more: Any) -> Done:
        done = run(*args, **more)
        assert done.code == 0, done.err
        return done

    return ok


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run a command that must fail; return its one sentence."""

    def fails(*args: str, **more: Any) -> str:
        done = run(*args, **more)
        assert done.code == 1, (done.code, done.out, done.err)
        return done.error

    return fails


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A directory on `sys.path`, in other processes too, for distributions of the test's own."""
    for site in new_site(tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(site.path))
        yield site


@pytest.fixture
def vault(site: Site) -> Site:
    """The connector of type `vault`, installed."""
    install_vault(site)
    return site


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of files."""
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("id,v\n1,2.5\n2,\n")
    (folder / "sub" / "b.csv").write_text("id\n1\n")
    (folder / "note[1].txt").write_text("hello\n")
    return folder


@pytest.fixture
def docs(ok: Callable[..., Done], folder: Path) -> Path:
    """A stored source `docs`, and its directory."""
    ok("add", "local_file", "--id", "docs", "-o", f"path={folder}")
    return folder


@pytest.fixture
def sealed(ok: Callable[..., Done], vault: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stored source `sealed` of type `vault`; return its secret."""
    ok("add", "vault", "--id", "sealed", "-o", "host=h", "--stdin", pipe=f'token = "{SECRET}"')
    return SECRET


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the default store; the file may not be there yet."""
    return Path(os.environ["XDG_DATA_HOME"]) / "datasources" / "sources.db"


def command(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    # A coverage tool that follows into subprocesses imports modules of its own; output is buffered
    # as it is for users, so that errors of writing appear when it is flushed.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COV") and name != "PYTHONUNBUFFERED"
    }
    return subprocess.run(
        [sys.executable, "-m", "datasources.cli", *args],
        env=inherited | more.pop("env", {}),
        text=True,
        timeout=60,
        check=False,
        **({"capture_output": True, "stdin": subprocess.DEVNULL} | more),
    )
