"""Secrets come in by prompt, pipe and reference only, and never come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasources import CredentialManager
from datasources.cli.app import _COMMANDS
from tests.cli.conftest import SECRET, command
from tests.core.plugin_fixtures import Site, connector_module


@pytest.mark.parametrize(
    ("type_name", "pair"),
    [
        ("vault", f"token={SECRET}"),
        ("vault", f"api_token={SECRET}"),
        ("vault", f'tls={{"key": "{SECRET}"}}'),
        ("vault", f"host=https://user:{SECRET}@example.com"),
        ("vault", f"token=${{env:A}}{SECRET}"),
        ("vault", f"tokn_password={SECRET}"),
        ("vault", f"host=AccountName=a;AccountKey={SECRET}=="),
        ("plain", f"password={SECRET}"),
        ("plain", f"dsn={SECRET}"),
        ("plain", f"url=http://x/?sig={SECRET}"),
        ("postgresql", f"password={SECRET}"),
        ("azure_blob", f"account_url=https://x.blob.core.windows.net?sv=1&sig={SECRET}"),
    ],
)
def test_a_secret_as_an_argument_is_refused_with_the_ways_there_are(
    fails, ok, vault: Site, type_name: str, pair: str
) -> None:
    vault.connector("plain-one", "plain", connector_module("plain"))
    message = fails("add", type_name, "-o", pair)
    name = pair.partition("=")[0]
    assert f"option {name!r} holds a secret" in message
    for way in (f"--secret {name}", "--stdin", "${env:NAME}", "${file:/path}"):
        assert way in message
    assert SECRET not in message
    assert ok("list", "--json").json == []


@pytest.mark.parametrize(
    "pair", ["token=${env:V}", "host=https://u:${env:V}@h", "api_token=${file:/x}"]
)
def test_a_reference_as_an_argument_is_taken(ok, vault: Site, pair: str) -> None:
    more = [] if "token" in pair else ["-o", "token=${env:T}"]
    more += ["-o", "host=h"] if "host" not in pair else []
    ok("add", "vault", "--no-test", "-o", pair, *more)


def test_a_reference_is_resolved_when_used_and_hidden_in_what_fails(
    ok, fails, vault, monkeypatch, tmp_path
) -> None:
    ok("add", "vault", "--no-test", "-o", "host=h", "-o", "token=${env:VAULT_TOKEN}")
    assert "${env:VAULT_TOKEN}" in fails("test", "vault")
    monkeypatch.setenv("VAULT_TOKEN", SECRET)
    ok("test", "vault")
    assert "***REDACTED***" in fails("info", "vault", "leak")


@pytest.mark.parametrize(
    "text", [f'token = "{SECRET}"\nhost = "h"', json.dumps({"token": SECRET, "host": "h"})]
)
def test_options_are_piped_in_as_toml_or_json(ok, vault: Site, text: str) -> None:
    done = ok("add", "vault", "--stdin", pipe=text)
    assert SECRET not in done.out + done.err
    ok("test", "vault")


def test_a_pipe_of_something_else_is_refused_unseen(fails, vault: Site) -> None:
    for text in (f'{{"token": "{SECRET}"', f'token = "{SECRET}', f"{SECRET} = "):
        message = fails("add", "vault", "-o", "host=h", "--stdin", pipe=text)
        assert "standard input is not valid" in message
        assert SECRET not in message


def test_one_secret_is_read_from_a_prompt_or_a_pipe(ok, vault: Site) -> None:
    args = ["add", "vault", "-o", "host=h", "-s", "token"]
    for done in (
        ok(*args, "--id", "piped", pipe=f"{SECRET}\n"),
        ok(*args, "--id", "typed", answers=[SECRET]),
    ):
        assert SECRET not in done.out + done.err
    ok("test", "piped")
    ok("test", "typed")


def test_a_secret_in_clear_in_a_file_is_never_shown(ok, fails, vault: Site, tmp_path) -> None:
    file = tmp_path / "vault.toml"
    options = f'[sources.v.options]\nhost = "{{}}"\ntoken = "{SECRET}"\ntls.key = "{SECRET}2"\n'
    file.write_text('[sources.v]\ntype = "vault"\n' + options.format("nowhere"))
    assert "***REDACTED***" in fails("add", "--from", str(file))
    file.write_text('[sources.v]\ntype = "vault"\n' + options.format("h"))
    assert SECRET not in json.dumps(ok("--config", str(file), "show", "v", "--json").json)
    assert "***REDACTED***" in fails("--config", str(file), "info", "v", "leak")


def every_command(file: Path, workspace: Path) -> Iterator[list[str]]:
    """Yield a call of every command on the source `sealed`."""
    yield from (["plugins", "--check"], ["types", "--abilities"], ["template", "vault"])
    yield from (["list"], ["list", "--json"], ["show", "sealed"], ["show", "sealed", "--json"])
    yield from (["test", "sealed"], ["test", "sealed", "--json"], ["items", "sealed"])
    for verb in ("info", "preview", "stats"):
        for item in ("doc", "leak", "chained", "bug", "exit", "missing"):
            yield from ([verb, "sealed", item], [verb, "sealed", item, "--json"])
    for items in (["doc"], ["leak"], ["bug"], ["exit"], ["chained", "leak", "bug", "doc"]):
        into = ["--into", str(workspace)]
        yield from (
            ["fetch", "sealed", *items, *into],
            ["fetch", "sealed", *items, "--json", *into],
        )
    yield from (["upload", "sealed", str(file)], ["upload", "sealed", str(file), "--no-overwrite"])
    yield from (["export"], ["keys", "list"], ["keys", "rotate", "--new-key"], ["keys", "init"])
    yield ["add", "vault", "--id", "again", "-o", "host=nowhere", "-s", "token"]
    yield ["add", "vault", "--id", "again", "-o", "host=h", "-s", "token"]
    yield ["add", "vault", "--id", "other", "-o", "host=h", "-o", "port=x", "-s", "token"]
    yield ["add", "vault", "--id", "other", "-o", "host=h", "-o", "nope=x", "-s", "token"]
    yield ["edit", "sealed", "-o", "level=low"]
    yield ["edit", "sealed", "-o", "host=nowhere", "-s", "token"]
    yield ["edit", "sealed", "-o", "host=nowhere"]
    yield from (["pause", "sealed", "--reason", "moving"], ["show", "sealed"], ["resume", "sealed"])
    yield from (["queries", "list", "sealed"], ["queries", "remove", "sealed", "none"])
    yield from (["remove", "again", "--yes"], ["remove", "again", "--yes"])


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_no_command_prints_or_stores_a_secret(
    run, sealed: str, store: Path, folder: Path, tmp_path: Path, verbose: list[str]
) -> None:
    key = (store.parent / "key").read_text().strip()
    reached = set()
    for args in every_command(folder / "a.csv", tmp_path / "ws"):
        done = run(*verbose, *args, pipe=f"{sealed}\n")
        assert done.code in (0, 1), done.err
        reached.add(args[0])
        for name, text in (("stdout", done.out), ("stderr", done.err)):
            assert sealed not in text, (args, name)
            assert key not in text, (args, name)
        if verbose and args[0] in ("test", "items"):
            assert "connecting with ***REDACTED***" in done.err
    unused = {"clean", "completion", "import", "new"}  # these use no secret of a stored source
    assert reached == set(_COMMANDS) - unused
    for path in [*store.parent.iterdir(), *(tmp_path / "ws").iterdir()]:
        assert sealed.encode() not in path.read_bytes(), path


def test_no_secret_stands_in_the_arguments_of_a_process(sealed: str, docs) -> None:
    # The arguments of the command and of every process that it started, as `ps` shows them.
    done = command("-v", "info", "sealed", "bug")
    assert done.returncode == 1
    assert sealed not in done.stderr
    for process in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            arguments = Path("/proc", process, "cmdline").read_bytes()
        except OSError:
            continue
        assert sealed.encode() not in arguments


BOM = "\ufeff"


def test_a_byte_order_mark_is_no_part_of_what_is_piped_in(ok, vault: Site) -> None:
    ok("add", "vault", "--id", "toml", "--stdin", pipe=f'{BOM}token = "{SECRET}"\nhost = "h"\n')
    options = json.dumps({"token": SECRET, "host": "h"})
    ok("add", "vault", "--id", "json", "--stdin", pipe=BOM + options)
    ok("add", "vault", "--id", "line", "-o", "host=h", "-s", "token", pipe=f"{BOM}{SECRET}\r\n")
    for source_id in ("toml", "json", "line"):
        # A token with a mark before it would not be found in the error, and so not be masked.
        assert ok("show", source_id, "--json").json["options"]["host"] == "h"
        done = ok("-v", "test", source_id)
        assert "connecting with ***REDACTED***" in done.err
        assert "\\ufeff" not in done.err


def test_a_byte_order_mark_is_no_part_of_an_identifier_or_an_export(ok, docs, tmp_path) -> None:
    assert ok("info", "docs", "-", "--json", pipe=f"{BOM}a.csv\n").json["size"] == 14
    export = tmp_path / "export.json"
    export.write_text(BOM + ok("export", "docs").out, "utf-8")
    ok("import", str(export), "--replace")
    ok("import", "-", "--replace", pipe=export.read_text("utf-8"))
    key = CredentialManager.generate_key()
    ok("keys", "add", pipe=f"{BOM}{key}\n")


READING = [
    ["add", "vault", "-o", "host=h", "-s", "token"],
    ["add", "vault", "--stdin"],
    ["preview", "sealed", "-"],
    ["fetch", "sealed", "-"],
    ["import", "-"],
    ["export", "--encrypt"],
    ["keys", "add"],
]


@pytest.mark.parametrize("args", READING, ids=" ".join)
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        ("<&-", "is closed"),
        ("0> written", "cannot be read: Bad file descriptor"),
        ("< latin", "cannot be read: it is not utf-8 text"),
    ],
)
def test_an_input_that_cannot_be_read_is_one_sentence(
    sealed, tmp_path, args: list[str], redirection: str, reason: str
) -> None:
    (tmp_path / "latin").write_bytes(f"{SECRET}\xe9\n".encode("latin-1"))
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'exec "$0" -m datasources.cli "$@" {redirection}',
            sys.executable,
            *args,
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"Error: standard input {reason}\n")


@pytest.mark.parametrize(
    ("secret", "spelling"),
    [
        ("a/b+c d?e=f&g#h", "a%2Fb%2Bc+d%3Fe%3Df%26g%23h"),
        ("a/b+c d?e=f&g#h", "a/b%2Bc%20d%3Fe%3Df%26g%23h"),
        ("pässwörd", r"p\u00e4ssw\u00f6rd"),
        ("pässwörd", r"p\xc3\xa4ssw\xc3\xb6rd"),
        ('it\'s"q"', r"it's\"q\""),
        ("a<b>&'c'", "a&lt;b&gt;&amp;&#39;c&#39;"),
    ],
)
def test_a_secret_is_masked_however_a_driver_spells_it(
    run, ok, vault: Site, secret: str, spelling: str
) -> None:
    ok("add", "vault", "--stdin", pipe=json.dumps({"host": "h", "token": secret}))
    done = run("info", "vault", f"quote {spelling}")
    assert done.error == "the server said: ***REDACTED***"
    done = run("fetch", "vault", f"quote {spelling}", "doc", "--json")
    assert done.json[0]["error"] == "the server said: ***REDACTED***"
