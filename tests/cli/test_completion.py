"""Completion in shells: ids, types, options and items, quickly and quietly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from datasources.cli.app import cli
from tests.cli.conftest import command
from tests.cli.vault import COMMANDS
from tests.core.plugin_fixtures import Site


def complete(*words: str) -> list[str]:
    """Return what is suggested for the last word, in this process."""
    shell = ShellComplete(cli, {}, "datasources", "_DATASOURCES_COMPLETE")
    *before, incomplete = words
    return [item.value for item in shell.get_completions(before, incomplete)]


def complete_in_shell(*words: str) -> list[str]:
    """Return what a shell is told of the last word, and make sure that nothing else is printed."""
    variables = {
        "_DATASOURCES_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["datasources", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = command(env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in done.stdout.splitlines() if line]


@pytest.fixture
def sources(ok, docs: Path, sealed) -> Path:
    """The sources `docs` and `sealed`."""
    return docs


@pytest.mark.parametrize(
    "verb",
    [
        "show",
        "test",
        "pause",
        "resume",
        "remove",
        "items",
        "info",
        "preview",
        "stats",
        "fetch",
        "upload",
    ],
)
def test_ids_of_sources_are_completed(sources, tmp_path, monkeypatch, verb: str) -> None:
    assert complete(verb, "") == ["docs", "sealed"]
    assert complete(verb, "s") == ["sealed"]
    assert complete("--store", str(tmp_path / "other.db"), verb, "") == []
    monkeypatch.setenv("DATASOURCES__DESK__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__DESK__PATH", "/")
    assert complete(verb, "d") == ["desk", "docs"]


def test_ids_of_an_export_are_completed(sources) -> None:
    assert complete("export", "docs", "se") == ["sealed"]


def test_types_and_options_are_completed(sources) -> None:
    assert "vault" in complete("add", "")
    assert complete("template", "va") == ["vault"]
    options = ["host=", "token=", "port=", "level=", "tags=", "verify=", "tls="]
    assert complete("add", "vault", "-o", "") == options
    assert complete("add", "vault", "-o", "t") == ["token=", "tags=", "tls="]
    assert complete("add", "vault", "-s", "") == ["token", "tls"]
    assert complete("add", "nonsense", "-o", "") == []
    assert complete("edit", "sealed", "-o", "ho") == ["host="]
    assert complete("edit", "sealed", "-s", "") == ["token", "tls"]
    assert complete("edit", "sealed", "--unset", "to") == ["token"]
    assert complete("edit", "none", "-o", "") == []


def test_items_are_completed_a_folder_at_a_time(sources: Path) -> None:
    assert complete("info", "docs", "") == ["a.csv", "sub/"]
    assert complete("preview", "docs", "sub/") == ["sub/b.csv"]
    assert complete("fetch", "docs", "a.csv", "s") == ["sub/"]
    assert complete("items", "docs", "no/such/") == []
    assert complete("info", "sealed", "") == ["doc"]
    assert complete("info", "none", "") == []


@pytest.mark.parametrize(
    "name", ["$(touch x)", "`x`", "a b", "a;b", "a'b", 'a"b', "a\\b", "*", "|"]
)
def test_a_name_that_the_shell_would_act_on_is_not_suggested(sources: Path, name: str) -> None:
    (sources / name).touch()
    (sources / "späth-1.csv").touch()
    assert complete("info", "docs", "") == ["a.csv", "späth-1.csv", "sub/"]


def test_files_and_directories_are_left_to_the_shell(sources) -> None:
    for words in (
        ["upload", "docs", "x"],
        ["import", "x"],
        ["--config", "x"],
        ["add", "--from", "x"],
    ):
        assert complete(*words) == ["x"]
    assert complete_in_shell("fetch", "--into", "x") == ["dir,x"]
    assert complete_in_shell("upload", "docs", "x") == ["file,x"]


LOUD = """
import sys
print("imported")
print("imported", file=sys.stderr)
raise RuntimeError("broken")
"""


def test_completing_commands_is_quiet_though_a_plugin_fails(site: Site) -> None:
    site.observer("loud-observer", LOUD)
    site.observer("bad-observer", COMMANDS.replace('@group.command("hello")', "raise OSError"))
    site.observer("good-observer", COMMANDS)
    assert complete_in_shell("he") == ["plain,hello"]
    assert complete_in_shell("pl") == ["plain,plugins"]


def test_completing_is_quiet_whatever_is_wrong(sources, site: Site, tmp_path, store) -> None:
    site.connector("loud-one", "loud", LOUD)
    assert complete_in_shell("add", "loud", "-o", "") == []
    assert complete_in_shell("--config", "/none.toml", "show", "") == []
    (store.parent / "key").unlink()
    assert complete_in_shell("info", "docs", "") == []
    assert complete_in_shell("show", "") == ["plain,docs", "plain,sealed"]
    store.write_bytes(b"damaged" * 1000)
    assert complete_in_shell("show", "") == []


def test_a_source_that_does_not_answer_suggests_nothing_and_lets_the_shell_go_on(sources) -> None:
    assert complete_in_shell("items", "sealed", "wait/") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_a_script_and_how_to_install_it(run, shell: str) -> None:
    done = run("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_DATASOURCES_COMPLETE={shell}_complete" in done.out
    assert f"datasources completion {shell}" in done.out.splitlines()[-1]
    assert done.out.splitlines()[-1].startswith("# ")


def test_an_unknown_shell_is_wrong_usage(run) -> None:
    assert run("completion", "tcsh").code == 2
    assert run("completion").code == 2


def test_the_script_works_in_bash(ok, sources, tmp_path) -> None:
    program = tmp_path / "bin" / "datasources"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m datasources "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(ok("completion", "bash").out)
    asked = f"""
source {tmp_path}/script
compopt() {{ echo "compopt:$1:$2"; }}
for word in se su; do
    COMP_WORDS=(datasources info docs "$word"); COMP_CWORD=3
    [ $word = se ] && COMP_WORDS=(datasources show se) && COMP_CWORD=2
    COMPREPLY=()
    _datasources_completion {program}
    echo "${{COMPREPLY[*]}}"
done
"""
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("sealed\ncompopt:-o:nospace\nsub/\n", "")
