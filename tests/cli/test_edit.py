"""`edit`: options are changed one by one, and no secret goes where it was not given for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasources.cli.add import try_until_it_works
from tests.cli.conftest import SECRET
from tests.core.plugin_fixtures import Site, connector_module

OTHER = "0ther-s3cret-t0ken"


def options_of(ok, source_id: str = "sealed") -> dict[str, object]:
    return ok("show", source_id, "--json").json["options"]


def test_what_is_not_named_stays_as_it_is(ok, sealed, tmp_path) -> None:
    settings = '[sources.full]\ntype = "vault"\nname = "Full"\nmetadata = { owner = "ops" }\n'
    settings += f'limits = {{ max_rows = 7 }}\noptions = {{ host = "h", token = "{SECRET}" }}\n'
    (tmp_path / "s.toml").write_text(settings)
    ok("add", "--from", str(tmp_path / "s.toml"))
    before = ok("show", "full", "--json").json
    done = ok("edit", "full", "-o", "level=low", "-o", "tags=a,b")
    assert (done.out, done.err) == ("", "Changed 'full'.\n")
    after = ok("show", "full", "--json").json
    assert after["options"].pop("level") == "low"
    assert after["options"].pop("tags") == ["a", "b"]
    versions = [before.pop("version"), after.pop("version")]
    assert versions[1] > versions[0]
    assert after == before
    ok("test", "full")
    ok("edit", "full", "--name", "New name")
    renamed = ok("show", "full", "--json").json
    assert renamed.pop("version") > versions[1]
    assert renamed == before | {"name": "New name"} | {
        "options": before["options"] | {"level": "low", "tags": ["a", "b"]}
    }


def test_an_option_is_taken_away(ok, fails, sealed) -> None:
    ok("edit", "sealed", "-o", "level=low")
    ok("edit", "sealed", "--unset", "level")
    assert "level" not in options_of(ok)
    assert fails("edit", "sealed", "--unset", "level") == (
        "option 'level' is not set; set are: host, token"
    )
    assert "option 'host' is missing" in fails(
        "edit", "sealed", "--unset", "host", "-s", "token", pipe="x\n"
    )


def test_a_secret_is_replaced_without_being_shown(ok, sealed) -> None:
    for done in (
        ok("edit", "sealed", "-s", "token", pipe=f"{OTHER}\n"),
        ok("edit", "sealed", "-s", "token", answers=[OTHER]),
        ok("edit", "sealed", "--stdin", pipe=json.dumps({"api_token": OTHER})),
        ok("edit", "sealed", "-s", "token", pipe=f"{OTHER}\n"),
    ):
        assert OTHER not in done.out + done.err
    assert "***REDACTED***" in ok("-v", "test", "sealed").err
    assert list(options_of(ok)) == ["host", "token"]


def test_a_change_that_does_not_work_changes_nothing(ok, fails, run, sealed) -> None:
    before = options_of(ok)
    done = run("edit", "sealed", "-o", "host=nowhere", "-s", "token", pipe=f"{SECRET}\n")
    assert "'sealed' was not changed; --no-test stores it all the same." in done.err
    assert "'nowhere' cannot be reached" in done.error
    assert "option 'port'" in fails("edit", "sealed", "-o", "port=0", "-s", "token", pipe="x\n")
    assert options_of(ok) == before
    args = ["edit", "sealed", "-o", "host=nowhere", "-s", "token", "--no-test"]
    ok(*args, pipe=f"{SECRET}\n")
    assert options_of(ok)["host"] == "nowhere"


@pytest.mark.parametrize("pair", ["host=elsewhere", "port=12"])
def test_a_secret_is_not_sent_elsewhere_unless_it_is_given_again(ok, fails, sealed, pair) -> None:
    before = options_of(ok)
    for option in ("--test", "--no-test"):
        message = fails("edit", "sealed", "-o", pair, option)
        assert message == (
            f"{pair.partition('=')[0]!r} decides where secrets are sent: give every secret again "
            "(--secret token, or --stdin), or take it away with --unset"
        )
    assert options_of(ok) == before
    ok("edit", "sealed", "-o", pair, "-s", "token", pipe=f"{OTHER}\n")
    ok("edit", "sealed", "-o", "host=third", "-o", "token=${env:TOKEN}", "--no-test")
    assert "'host' decides" in fails("edit", "sealed", "-o", "host=fourth", "--no-test")


def test_every_secret_is_to_be_given_again(ok, fails, sealed) -> None:
    both = json.dumps({"token": SECRET, "tls": {"key": "k-s3cret"}})
    ok("edit", "sealed", "--stdin", pipe=both)
    message = fails("edit", "sealed", "-o", "host=elsewhere", "-s", "token", pipe=f"{SECRET}\n")
    assert "(--secret tls, or --stdin)" in message
    ok("edit", "sealed", "-o", "host=x", "--unset", "tls", "-s", "token", pipe=f"{SECRET}\n")
    assert list(options_of(ok)) == ["host", "token"]


def test_every_option_counts_of_a_connector_that_declares_no_destination(
    ok, fails, site: Site
) -> None:
    site.connector("odd-one", "odd", ODD)
    ok("add", "odd", "--no-test", "--stdin", pipe=f'place = "a"\npassword = "{SECRET}"')
    for pair in ("note=x", "place=b"):
        message = fails("edit", "odd", "-o", pair, "--no-test")
        assert message.startswith(f"{pair.partition('=')[0]!r} decides where secrets are sent")
    ok("edit", "odd", "--name", "Odd", "--no-test", "-s", "password", pipe=f"{OTHER}\n")


ODD = """
from pydantic import SecretStr
from datasources import ConnectorOptions, hookimpl
from datasources_local_file import LocalFileConnector

class OddOptions(ConnectorOptions):
    place: str
    password: SecretStr
    note: str = ""

    def hosts(self):
        return [self.place]

class OddConnector(LocalFileConnector):
    type = "odd"
    options_class = OddOptions

@hookimpl
def datasources_connectors():
    return [OddConnector]
"""


def test_a_terminal_asks_what_to_change_and_keeps_the_rest(ok, sealed) -> None:
    done = ok("edit", "sealed", answers=["Sealed", "level", "low", "tags", "a", "nonsense", ""])
    assert "host, token, port, level, tags, verify, tls" in done.err
    assert "there is no option 'nonsense'" in done.err
    assert SECRET not in done.err
    shown = ok("show", "sealed", "--json").json
    assert (shown["name"], shown["options"]["level"]) == ("Sealed", "low")
    done = ok("edit", "sealed", answers=["", "level", "-", "tags", "", ""])
    assert "tags (list, such as a, b) [a]" in done.err
    assert set(options_of(ok)) == {"host", "token", "tags"}
    ok("test", "sealed")


def test_a_terminal_asks_for_every_secret_again_before_anything_is_sent(ok, sealed) -> None:
    done = ok("edit", "sealed", answers=["", "host", "elsewhere", "", OTHER])
    assert "'host' decides where secrets are sent: every secret has to be given again." in done.err
    assert OTHER not in done.err
    assert "connecting with" not in done.err
    ok("test", "sealed")


def test_a_change_after_a_failed_test_protects_secrets_too(ok, run, sealed, monkeypatch) -> None:
    # The stored source stops working; the host is changed only after the test has failed.
    answers = ["", "tags", "a", "", "change", "host", "h", SECRET]
    args = ["edit", "sealed", "-o", "host=nowhere", "-s", "token", "--no-test"]
    ok(*args, pipe=f"{SECRET}\n")
    done = ok("edit", "sealed", answers=answers)
    assert done.err.count("every secret has to be given again") == 1
    assert "'sealed' was not changed: change an option" in done.err
    assert options_of(ok)["host"] == "h"
    ok("test", "sealed")


def test_nothing_to_change_is_no_error_and_writes_nothing(ok, run, sealed, store: Path) -> None:
    assert ok("edit", "sealed", answers=["", ""]).err.endswith("Nothing of 'sealed' was changed.\n")
    assert ok("edit", "sealed", "-o", "host=h").err == "Nothing of 'sealed' was changed.\n"
    assert run("edit", "sealed").code == 2


def test_a_source_that_is_declared_or_not_there_is_not_edited(
    fails, sealed, folder, monkeypatch
) -> None:
    monkeypatch.setenv("DATASOURCES__DESK__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__DESK__PATH", str(folder))
    message = fails("edit", "desk", "-o", "path=/")
    assert message == "source 'desk' is declared in the environment; change it there"
    assert "there is no source 'none'" in fails("edit", "none", "-o", "path=/")


def test_a_secret_in_an_argument_is_refused(fails, sealed) -> None:
    message = fails("edit", "sealed", "-o", f"token={SECRET}")
    assert "holds a secret and cannot be an argument" in message
    assert SECRET not in message


def test_only_paths_that_are_changed_are_made_absolute(
    ok, docs: Path, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ok("edit", "docs", "-o", "path=files/sub")
    assert options_of(ok, "docs")["path"] == str(docs / "sub")


def test_a_source_of_a_connector_without_options_is_edited(ok, fails, site: Site) -> None:
    site.connector("plain-one", "plain", connector_module("plain"))
    ok("add", "plain", "--no-test", "--stdin", pipe=f'url = "a"\nnote = "x"\npassword = "{SECRET}"')
    assert "--secret password" in fails("edit", "plain", "--no-test", "-o", "note=y")
    ok("edit", "plain", "--no-test", "-o", "note=y", "-s", "password", pipe=f"{SECRET}\n")
    assert options_of(ok, "plain") == {"url": "a", "note": "y", "password": "***REDACTED***"}
    assert "--secret password" in fails("edit", "plain", "--no-test", "-o", "url=b")
    ok("edit", "plain", "--no-test", answers=["", "url", "c", "", OTHER])
    assert options_of(ok, "plain")["url"] == "c"


def test_a_reference_has_to_be_given_again_as_well(ok, fails, sealed) -> None:
    ok("edit", "sealed", "-o", "token=${env:TOKEN}", "-o", "tags=${file:/tags}", "--no-test")
    message = fails("edit", "sealed", "-o", "port=12", "--no-test")
    assert "give every secret again (--secret token, --secret tags, or --stdin)" in message
    pairs = ("port=12", "token=${env:TOKEN}", "tags=${file:/tags}")
    ok("edit", "sealed", "--no-test", *(part for pair in pairs for part in ("-o", pair)))


def test_a_table_is_replaced_and_not_merged(ok, site: Site) -> None:
    site.connector("plain-one", "plain", connector_module("plain"))
    ok("add", "plain", "--no-test", "--stdin", pipe="place = {a = 1, b = {c = 2}}")
    ok("edit", "plain", "--no-test", "--stdin", pipe="place = {b = {d = 3}}")
    assert options_of(ok, "plain") == {"place": {"b": {"d": 3}}}


def test_what_another_process_changes_meanwhile_stays(ok, sealed, monkeypatch) -> None:
    name = "datasources.cli.edit.try_until_it_works"

    def try_while_another_edits(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(name, try_until_it_works)
        ok("edit", "sealed", "-o", "tags=a")
        return try_until_it_works(*args, **more)

    monkeypatch.setattr(name, try_while_another_edits)
    ok("edit", "sealed", "-o", "level=low")
    assert (options_of(ok)["tags"], options_of(ok)["level"]) == (["a"], "low")
