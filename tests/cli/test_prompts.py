"""`add` at a terminal asks for the connector's options."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.cli.conftest import SECRET
from tests.core.plugin_fixtures import Site


def test_everything_is_asked_for(ok, docs) -> None:
    answers = ["local_file", "mine", "My files", str(docs), "n"]
    done = ok("add", answers=answers)
    assert "Directory whose files are the items" in done.err
    assert done.out == ""
    assert ok("show", "mine", "--json").json["name"] == "My files"
    assert ok("show", "mine", "--json").json["options"] == {"path": str(docs)}


def test_optional_ones_are_asked_for_if_wanted(ok, vault: Site) -> None:
    answers = ["", "", "h", SECRET, "y", "12", "high", "a, b", "no", ""]
    done = ok("add", "vault", answers=answers)
    assert SECRET not in done.out + done.err
    assert "port (whole number, at least 1) [1]" in done.err
    assert ok("show", "vault", "--json").json["options"] == {
        "host": "h",
        "token": "***REDACTED***",
        "port": 12,
        "level": "high",
        "tags": ["a", "b"],
        "verify": False,
    }


def test_a_wrong_answer_is_asked_again(ok, vault: Site) -> None:
    answers = ["", "", "", "h", SECRET, "y", "x", "12", "", "", "", ""]
    done = ok("add", "vault", answers=answers)
    assert "it is required" in done.err
    assert "option 'port' must be whole number, at least 1" in done.err
    assert ok("show", "vault", "--json").json["options"]["port"] == 12


def test_what_does_not_fit_together_is_told_and_one_option_is_changed(ok, vault: Site) -> None:
    answers = ["", "", "h", SECRET, "level", "high", "prot", "port", "2"]
    done = ok("add", "vault", answers=answers)
    assert "this 'level' needs another 'port'" in done.err
    assert "there is no option 'prot'; did you mean 'port'?" in done.err
    assert ok("show", "vault", "--json").json["options"] == {
        "host": "h",
        "token": "***REDACTED***",
        "level": "high",
        "port": 2,
    }


def test_an_answer_is_taken_away_again(ok, vault: Site) -> None:
    ok("add", "vault", answers=["", "", "h", SECRET, "level", "high", "level", "-"])
    assert "level" not in ok("show", "vault", "--json").json["options"]


def test_optional_ones_are_chosen_by_name(ok, vault: Site) -> None:
    answers = [
        "",
        "",
        "h",
        SECRET,
        "nonsense",
        "tags, tls verify",
        "a",
        '{"key": "k-s3cret"}',
        "no",
    ]
    done = ok("add", "vault", answers=answers)
    assert "Optional: tls, port, level, tags, verify" in done.err
    assert "there is no option 'nonsense'; options: " in done.err
    assert 'tls (secret table, in JSON such as {"key": "${env:SOURCE_TLS_KEY}"}' in done.err
    assert ok("show", "vault", "--json").json["options"] == {
        "host": "h",
        "token": "***REDACTED***",
        "tags": ["a"],
        "tls": "***REDACTED***",
        "verify": False,
    }


def test_the_connectors_validators_check_each_answer(ok, vault: Site) -> None:
    answers = ["", "", "a b", "h", f"bad{SECRET}", SECRET, "port", "0", "12"]
    done = ok("add", "vault", answers=answers)
    assert "Error: option 'host': a host has no blanks" in done.err
    assert "Error: option 'token': the token '***REDACTED***' is none" in done.err
    assert "Error: option 'port': input should be greater than or equal to 1" in done.err
    assert SECRET not in done.err
    assert ok("show", "vault", "--json").json["options"]["port"] == 12


def test_what_a_connector_needs_is_asked_for_first(ok) -> None:
    pytest.importorskip("datasources_postgresql")
    done = ok(
        "add",
        "postgresql",
        "--no-test",
        answers=["", "", "3", "2", "nowhere.invalid", "", "u", SECRET, "d", ""],
    )
    assert "Connect by:\n  1) dsn\n  2) host, database, user\n" in done.err
    assert "a number from 1 to 2" in done.err
    questions = [line.partition(" (")[0] for line in done.err.splitlines() if " (text" in line]
    assert questions == ["host", "user", "user", "database"]
    assert "What there is cannot be listed: " in done.err
    assert SECRET not in done.err
    assert "it is required" in done.err
    assert "Optional: dsn, port" in done.err
    assert ok("show", "postgresql", "--json").json["options"] == {
        "host": "nowhere.invalid",
        "user": "u",
        "password": "***REDACTED***",
        "database": "d",
    }
    dsn = "postgresql://u@h/d"
    ok("add", "postgresql", "--id", "other", "--no-test", answers=["", "", "", dsn, ""])
    assert list(ok("show", "other", "--json").json["options"]) == ["dsn"]


DESCRIBED = ["", "", "nowhere", SECRET, "tags", "a"]


def test_a_source_that_does_not_work_is_changed_with_the_other_answers_kept(ok, vault) -> None:
    done = ok("add", "vault", answers=[*DESCRIBED, "what", "change", "host", "h"])
    assert "'nowhere' cannot be reached with ***REDACTED***." in done.err
    assert "one of: change, store, give up" in done.err
    assert SECRET not in done.err
    assert ok("show", "vault", "--json").json["options"]["tags"] == ["a"]
    ok("test", "vault")


def test_a_source_that_does_not_work_is_stored_all_the_same(ok, fails, vault) -> None:
    ok("add", "vault", answers=[*DESCRIBED, "s"])
    assert "'nowhere' cannot be reached" in fails("test", "vault")


def test_giving_up_stores_nothing(fails, store, vault) -> None:
    assert fails("add", "vault", answers=[*DESCRIBED, "give up"]) == "'vault' was not added"
    assert not store.parent.exists()


def test_a_source_that_is_not_valid_cannot_be_stored(ok, run, vault, tmp_path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[policy]\nallowed_hosts = ["example.com"]\n')
    answers = [*DESCRIBED, "store", "g"]
    done = run("--config", str(settings), "add", "vault", answers=answers)
    assert "may not use the host 'nowhere'" in done.err
    assert "one of: change, give up" in done.err
    assert done.code == 1
    assert ok("list", "--json").json == []


def test_the_options_of_the_chosen_alternative_are_asked_for(ok) -> None:
    answers = ["", "", "", "${env:CONNECTION}", "files", ""]
    done = ok("add", "azure_blob", "--no-test", answers=answers)
    assert ok("show", "azure_blob", "--json").json["options"] == {
        "container": "files",
        "connection_string": "${env:CONNECTION}",
    }
    (optional,) = [line for line in done.err.splitlines() if line.startswith("Optional: ")]
    assert not {"account_url", "account_key", "client_id"} & set(optional[10:].split(", "))
    answers = ["", "4", "https://a.invalid", "anonymous", "", "files", ""]
    done = ok("add", "azure_blob", "--id", "other", "--no-test", answers=answers)
    (optional,) = [line for line in done.err.splitlines() if line.startswith("Optional: ")]
    assert "client_id" in optional
    assert not {"account_key", "connection_string"} & set(optional[10:].split(", "))


def test_a_connector_without_options_is_asked_for_names(ok, site: Site) -> None:
    from tests.core.plugin_fixtures import connector_module

    site.connector("plain-one", "plain", connector_module("plain"))
    done = ok("add", "plain", "--no-test", answers=["", "", "password", SECRET, "url", "u", ""])
    assert SECRET not in done.out + done.err
    assert ok("show", "plain", "--json").json["options"] == {
        "password": "***REDACTED***",
        "url": "u",
    }


def test_a_taken_id_is_told_before_the_rest_is_asked(fails, docs) -> None:
    assert "exists already" in fails("add", "local_file", answers=["docs", "Docs"])


def test_an_input_that_ends_early_stores_nothing(ok, run, vault: Site) -> None:
    done = run("add", "vault", answers=["", "", "h"])
    assert (done.code, done.error) == (1, "the input ended before it was complete")
    assert ok("list", "--json").json == []


def test_given_options_leave_nothing_to_ask(ok, docs) -> None:
    ok("add", "local_file", "--id", "x", "-o", f"path={docs}", answers=[])


def test_at_a_real_terminal_a_secret_is_not_echoed(ok, vault: Site) -> None:
    """Through a pseudo-terminal, as a person would type."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "datasources.cli", "add", "vault"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    for question, answer in (
        (b"Id of the source", "typed"),
        (b"Name for people", ""),
        (b"host (", "h"),
        (b"token (", SECRET),
        (b"optional ones, too?", "n"),
        (b"Added 'typed'.", ""),
    ):
        while question not in shown:
            shown += os.read(master, 1000)
        if answer or question == b"Name for people":
            # The prompt is out, so echo is off where it has to be.
            while not shown.rstrip().endswith((b":", b"]")):
                shown += os.read(master, 1000)
            os.write(master, answer.encode() + b"\n")
    assert process.wait(timeout=60) == 0
    os.close(master)
    assert SECRET.encode() not in shown
    ok("test", "typed")
