"""`plugins`, `types`, `template`, and the commands of plugins."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from tests.cli.vault import COMMANDS
from tests.core.plugin_fixtures import Site


def test_plugins_lists_what_is_installed_and_what_is_wrong(ok, vault: Site) -> None:
    vault.connector("zz-broken", "broken", "raise RuntimeError('no driver')")
    vault.connector("other-vault", "vault", "")
    listed = {(e["name"], e["distribution"]): e for e in ok("plugins", "--json").json}
    assert listed["local_file", "datasources-local-file"]["status"] == "available"
    assert listed["broken", "zz-broken"]["status"] == "available"
    assert listed["vault", "other-vault"]["status"] == "conflict"
    lines = ok("plugins").out.splitlines()
    assert lines[0].split() == ["name", "kind", "distribution", "version", "status", "error"]
    assert any(
        line.split()[:5] == ["vault", "connector", "other-vault", "1.0", "conflict"]
        for line in lines
    )


def test_check_imports_everything_and_fails_over_what_cannot_serve(run, site: Site) -> None:
    assert run("plugins", "--check").code == 0
    site.connector("zz-broken", "broken", "raise RuntimeError('no driver')")
    from datasources.plugins.discovery import scan

    scan(refresh=True)
    done = run("plugins", "--check", "--json")
    assert done.code == 1
    (broken,) = [entry for entry in done.json if entry["name"] == "broken"]
    assert (broken["status"], broken["error"]) == ("failed", "RuntimeError: no driver")
    assert done.error == "cannot be used: connector 'broken' of zz-broken 1.0"


def test_types_lists_only_what_can_be_added(ok, vault: Site) -> None:
    vault.connector("a-b", "twice", "")
    vault.connector("c-d", "twice", "")
    types = [row["type"] for row in ok("types", "--json").json]
    assert types == sorted(types)
    assert {"local_file", "vault"} <= set(types)
    assert "twice" not in types
    abilities = {row["type"]: row["abilities"] for row in ok("types", "--abilities", "--json").json}
    assert abilities["vault"] == "preview, statistics, upload"
    assert "glob" in ok("types", "--abilities").out


def test_template_prints_toml_that_add_takes(ok, vault: Site, tmp_path) -> None:
    text = ok("template", "vault").out
    assert tomllib.loads(text)["sources"]["my_vault"]["options"] == {
        "host": "vault.example.com",
        "token": "${env:VAULT_TOKEN}",
    }
    (tmp_path / "vault.toml").write_text(text)
    ok("add", "--from", str(tmp_path / "vault.toml"), "--no-test")
    assert ok("show", "my_vault", "--json").json["options"]["token"] == "${env:VAULT_TOKEN}"


def test_a_plugin_adds_commands_that_fail_like_ours(run, site: Site) -> None:
    site.observer("greetings", COMMANDS)
    assert ["hello", "Greet."] in [line.split() for line in run("--help").out.splitlines()]
    assert run("hello", "you").out == "hello you\n"
    done = run("hello", "nobody")
    assert done.code == 1
    assert done.error == "unexpected ValueError: nobody is here (-v shows the traceback)"
    assert run("hello").code == 2


def test_a_plugin_cannot_take_the_name_of_a_command(run, site: Site) -> None:
    site.observer("greetings", COMMANDS.replace('"hello"', '"list"'))
    done = run("bogus")
    assert "a command 'list' already" in done.err
    assert run("list").code == 0


def test_a_broken_observer_is_a_warning_and_the_command_goes_on(run, site: Site) -> None:
    site.observer("greetings", "raise RuntimeError('no')")
    done = run("--help")
    assert done.code == 0
    assert done.err.startswith("Warning: plugin 'greetings' of greetings 1.0: RuntimeError: no")


LOUD = """
print("imported")

from datasources import hookimpl

@hookimpl
def datasources_operation_started(operation):
    print("started")

@hookimpl
def datasources_open_store(url):
    print("opening")

@hookimpl
def datasources_connectors():
    from datasources_local_file import LocalFileConnector

    class Loud(LocalFileConnector):
        type = "loud"

        async def connect(self):
            print("connecting")
            return await super().connect()

        async def iter_items(self, path=None):
            async for item in super().iter_items(path):
                print("listing")
                yield item

    return [Loud]
"""


def test_a_plugin_that_prints_does_not_write_into_the_results(run, ok, site: Site, folder) -> None:
    site.observer("loud-observer", LOUD)
    site.connector("loud-connector", "loud", LOUD)
    added = ok("add", "loud", "-o", f"path={folder}")
    assert (added.out, "imported" in added.err.splitlines()) == ("", True)
    for args in (
        ["plugins", "--check", "--json"],
        ["types", "--abilities", "--json"],
        ["list", "--json"],
        ["items", "loud", "--json"],
        ["info", "loud", "a.csv", "--json"],
        ["fetch", "loud", "a.csv", "--into", str(folder / "ws"), "--json"],
    ):
        assert ok(*args).json
    listed = ok("items", "loud")
    assert listed.out.startswith("path ")
    assert {"started", "connecting", "listing"} <= set(listed.err.splitlines())
    assert tomllib.loads(ok("template", "loud").out)
    assert ok("--help").out.startswith("Usage: ")
    done = run("--store", "attic:x", "list", "--json")
    assert (done.code, done.out) == (1, "")
    assert "opening" in done.err.splitlines()


def test_results_are_not_written_to_stderr_where_stdout_is_closed(docs, site: Site) -> None:
    site.observer("loud-observer", LOUD)
    shell = 'exec "$0" -m datasources.cli items docs >&-'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "a.csv" not in done.stderr
