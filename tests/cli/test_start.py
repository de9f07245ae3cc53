"""Start-up: the modules that are imported, missing extras, help and version."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import datasources
from datasources.cli.app import _COMMANDS
from tests.cli.conftest import command
from tests.core.plugin_fixtures import Site
from tests.core.subprocesses import run_python

MODULES = """
import json, sys
from datasources.cli import main
code = main()
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""

HEAVY = {"asyncio", "cryptography", "logging", "pydantic", "rich", "sqlite3", "tomllib", "ssl"}
PLUGINS = {
    "datasources_azure_blob",
    "datasources_local_file",
    "datasources_object_store",
    "datasources_postgresql.plugin",  # the package also holds a hook for every registry
    "vault_connector",
    "datasources_vault",
}


def modules_of(*args: str) -> set[str]:
    """Return the modules that a command has imported; it must succeed."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *args],
        env=inherited,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return set(modules)


LISTING = {
    "datasources",
    "datasources.cli",
    "datasources.cli.listing",
    "datasources.cli.output",
    "datasources.cli.tables",
    "datasources.errors",
    "datasources.names",
    "datasources.plugins",
    "datasources.plugins.discovery",
}


@pytest.mark.parametrize("args", [["plugins"], ["plugins", "--json"], ["types"]])
def test_listing_plugins_imports_no_plugin_and_nothing_heavy(vault: Site, args: list[str]) -> None:
    modules = modules_of(*args)
    assert not modules & (HEAVY | PLUGINS)
    ours = {name for name in modules if name.startswith("datasources")}
    json_only = {"datasources.json_values"} if "--json" in args else set()
    assert ours == LISTING | json_only | (
        set()
        if args == ["plugins"]
        else {
            "datasources.cli.app",
            "datasources.cli.completers",
            "datasources.cli.context",
            "datasources.cli.discovery",
            "datasources.cli.errors",
            "datasources.cli.paths",
            "datasources.cli.plugins",
            "datasources.cli.suggestions",
            "datasources.plugins.compatibility",
            "datasources.plugins.hookspecs",
            "datasources.plugins.manager",
        }
    )


PYTEST = """
import json, sys
import pytest
assert pytest.main(["--version"]) == 0
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_listing_plugins_imports_half_of_what_pytest_does_to_tell_its_version(
    vault: Site,
) -> None:
    bare = set(json.loads(run_python("import json, sys; print(json.dumps(sorted(sys.modules)))")))
    ours = modules_of("plugins") - bare
    assert not {"click", "pluggy", "email.parser", "csv", "socket", "subprocess"} & ours
    done = subprocess.run(
        [sys.executable, "-c", PYTEST], check=True, capture_output=True, text=True, timeout=60
    )
    theirs = set(json.loads(done.stderr.splitlines()[-1])) - bare
    assert len(ours) <= min(130, len(theirs) / 2), sorted(ours)


@pytest.mark.parametrize(
    ("prefer", "out", "code"), [("", None, 0), ("sql", None, 1), ("", "/dev/full", 1)]
)
def test_the_plain_list_and_its_errors_are_those_of_the_whole_command_line(
    vault: Site, prefer: str, out: str | None, code: int
) -> None:
    results = []
    for args in (["plugins"], ["-v", "plugins"]):  # the second is not the plain one
        with open(out or os.devnull, "w") as full:
            done = command(
                *args,
                env={"DATASOURCES_PREFER": prefer},
                capture_output=False,
                stdout=full if out else subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert (done.returncode, len(errors)) == (code, code)
        results.append((done.stdout, errors))
    assert results[0] == results[1]
    assert ("\nvault " in (results[0][0] or "")) == (code == 0)


def test_help_imports_no_connector_and_nothing_heavy(vault: Site) -> None:
    assert not modules_of("--help") & (PLUGINS | HEAVY - {"logging"})


def test_listing_sources_needs_no_keys_and_no_connector(docs) -> None:
    modules = modules_of("list")
    assert not modules & (PLUGINS | {"cryptography", "pydantic", "rich"})


def test_using_one_source_imports_one_connector(docs, vault: Site) -> None:
    assert modules_of("items", "docs") & PLUGINS == {"datasources_local_file"}


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_the_command_says_what_to_install(missing: str) -> None:
    blocker = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name: None if name == {missing!r} else find(name)
sys.meta_path.insert(0, Blocker())
from datasources.cli import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", blocker, "plugins"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f'Error: the command line needs {missing}: pip install "datasources[cli]"\n'
    )


def test_version_and_help_go_to_stdout() -> None:
    version = command("--version")
    assert version.stdout == f"datasources, version {datasources.__version__}\n"
    help_text = command("--help")
    assert (version.returncode, help_text.returncode, help_text.stderr) == (0, 0, "")
    for name in _COMMANDS:
        assert f"\n  {name} " in help_text.stdout


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_explains_itself(run, name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: ")
    assert done.err == ""


@pytest.mark.parametrize(
    "args",
    [
        ["bogus"],
        ["show"],
        ["fetch", "docs"],
        ["fetch", "docs", "x", "--max-rows", "many"],
        ["fetch", "docs", "x", "--timeout", "-1"],
        ["fetch", "docs", "x", "--timeout", "nan"],
        ["fetch", "docs", "x", "--max-bytes", "1.5"],
        ["items", "docs", "--limit", "0"],
        ["--nothing"],
        ["add"],
        ["add", "local_file", "-o", "path"],
        ["add", "local_file", "-o", "path=a", "-o", "path=b"],
        ["add", "local_file", "--from", "x.toml"],
        ["remove", "docs"],
        ["import", "-", "--stdin"],
    ],
)
def test_wrong_usage_exits_with_2_and_one_error(run, args: list[str]) -> None:
    encrypted = '{"format": "datasources-export", "version": 1, "encryption": {}}'
    done = run(*args, pipe=encrypted)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: ")
    assert done.error


@pytest.mark.parametrize("args", [[], ["keys"]])
def test_without_a_command_the_help_is_shown_as_it_is_with_help(run, args: list[str]) -> None:
    done = run(*args)
    assert (done.code, done.out) == (2, "")
    assert done.err == run(*args, "--help").out


def test_an_error_of_several_lines_is_joined_to_one(run, site: Site) -> None:
    site.observer("lines", LINES)
    for name, code in (("usage", 2), ("error", 1)):
        done = run(name)
        assert (done.code, done.error) == (code, "first second")


LINES = """
import click
from datasources import hookimpl

@hookimpl
def datasources_commands(group):
    @group.command("usage")
    def usage():
        raise click.UsageError("first\\n  second")

    @group.command("error")
    def error():
        raise click.ClickException("first\\n  second")
"""
