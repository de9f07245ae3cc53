"""The entry point, called in this process."""

from __future__ import annotations

import runpy
import sys

import pytest

from datasources.cli import main
from tests.cli.conftest import command
from tests.core.plugin_fixtures import Site, connector_class


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch):
    return lambda *args: monkeypatch.setattr(sys, "argv", ["datasources", *args])


def test_the_exit_code_is_returned(arguments, capsys) -> None:
    for args, code in ((["list"], 0), (["show", "x"], 1), (["bogus"], 2), (["--version"], 0)):
        arguments(*args)
        assert main() == code
    assert "there is no source 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["datasources", "datasources.cli"])
def test_the_module_runs_like_the_command(arguments, capsys, module: str) -> None:
    arguments("plugins", "--json")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("[")


def test_an_interrupt_before_the_command_starts_ends_with_one_word(
    arguments, monkeypatch, capsys
) -> None:
    arguments("list")
    monkeypatch.setattr("datasources.cli.app.Group.run", lambda _: interrupt())
    assert main() == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def interrupt() -> int:
    raise KeyboardInterrupt


def test_missing_parts_are_told(arguments, monkeypatch, capsys) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    arguments("list")
    assert main() == 1
    assert 'needs click and rich: pip install "datasources[cli]"' in capsys.readouterr().err


def test_nothing_installed_is_no_error(ok, fails, monkeypatch) -> None:
    monkeypatch.setattr("datasources.plugins.manager.scan", lambda: ())
    assert ok("plugins", "--json").json == ok("types", "--json").json == []
    assert ok("plugins").err == "No plugin is installed.\n"
    assert ok("types").err == "No connector is installed.\n"
    assert "installed: none" in fails("template", "local_file")
    assert "no connector is installed" in fails("add", answers=[""])


def test_abilities_of_a_broken_connector_are_its_failure(ok, site: Site) -> None:
    site.connector("zz-broken", "broken", connector_class("broken") + "raise OSError('no library')")
    abilities = {row["type"]: row["abilities"] for row in ok("types", "--abilities", "--json").json}
    assert abilities["broken"].startswith("failed: connector 'broken' of zz-broken 1.0")


def test_the_shell_can_complete_commands() -> None:
    script = command(env={"_DATASOURCES_COMPLETE": "bash_source"})
    assert (script.returncode, script.stderr) == (0, "")
    typed = {"COMP_WORDS": "datasources pl", "COMP_CWORD": "1"}
    done = command(env={"_DATASOURCES_COMPLETE": "bash_complete", **typed})
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,plugins\n", "")


def test_a_password_in_the_stores_url_is_no_argument(run) -> None:
    done = run("--store", "postgresql://u:m4rker-s3cret-t0ken@db/x", "list")
    assert done.code == 2
    assert "give the store's URL in DATASOURCES_STORE" in done.err
    assert "m4rker" not in done.out + done.err
