"""`keys`: a key is made once, never lost and never shown."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datasources import CredentialManager
from datasources.cli.context import CliContext
from datasources.credentials import read_key_file
from datasources.stores import Store
from tests.cli.conftest import command


@pytest.fixture
def key_file(store: Path) -> Path:
    return store.parent / "key"


def fingerprints(ok) -> list[tuple[str, int, str]]:
    return [tuple(row.values()) for row in ok("keys", "list", "--json").json]


def test_init_makes_one_key_and_no_second(ok, fails, key_file: Path) -> None:
    assert "no key yet" in ok("keys", "list").err
    assert ok("keys", "list", "--json").json == []
    ok("keys", "init")
    assert key_file.stat().st_mode & 0o777 == 0o600
    first = key_file.read_text()
    assert "is there already" in fails("keys", "init")
    assert key_file.read_text() == first


def test_init_makes_the_key_file_that_is_named(ok, tmp_path, monkeypatch) -> None:
    ok("--key-file", str(tmp_path / "mine"), "keys", "init")
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", str(tmp_path / "deep" / "other"))
    ok("keys", "init")
    assert len(read_key_file(tmp_path / "mine")) == len(read_key_file(tmp_path / "deep/other")) == 1


def test_there_must_be_a_key_to_rotate(fails) -> None:
    assert fails("keys", "rotate") == "there is no key yet; `datasources keys init` makes one"


def test_list_tells_which_key_opens_what(ok, docs, key_file: Path) -> None:
    ((first, _, _),) = fingerprints(ok)
    assert fingerprints(ok) == [(first, 1, "encrypts")]
    assert ok("keys", "list").out.splitlines()[1].split() == [first, "1", "encrypts"]
    other = CredentialManager.generate_key()
    key_file.write_text(other + "\n")
    (second,) = CredentialManager(other).fingerprints
    assert fingerprints(ok) == [(second, 0, "encrypts"), (first, 1, "missing")]


def test_rotation_brings_everything_under_a_new_key_and_no_byte_under_the_old_one(
    ok, docs, store: Path, key_file: Path
) -> None:
    ok("add", "local_file", "--id", "more", "-o", f"path={docs}")
    with sqlite3.connect(store) as connection:
        tokens = [row[0] for row in connection.execute("SELECT credentials FROM sources")]
    connection.close()
    done = ok("keys", "rotate", "--new-key")
    assert "2 changed" in done.err
    (new, count, _), (old, none, _) = fingerprints(ok)
    assert (count, none) == (2, 0)
    content = b"".join(path.read_bytes() for path in store.parent.glob("sources.db*"))
    assert not [token for token in tokens if token.partition(":")[2].encode() in content]
    ok("keys", "drop", old)
    assert [row[0] for row in fingerprints(ok)] == [new]
    assert len(read_key_file(key_file)) == 1
    ok("items", "more")
    assert "0 changed" in ok("keys", "rotate").err


def test_rotation_names_every_source_that_failed_and_can_be_repeated(
    ok, fails, docs, store: Path
) -> None:
    ok("add", "local_file", "--id", "bad", "-o", f"path={docs}")
    with sqlite3.connect(store) as connection:
        connection.execute(
            "UPDATE sources SET credentials = substr(credentials, 1, 60) WHERE id = 'bad'"
        )
    connection.close()
    message = fails("keys", "rotate", "--new-key")
    assert message.startswith("1 sources could not be changed: 'bad': the credentials of source")
    ok("items", "docs")
    ok("remove", "bad", "--yes")
    ok("keys", "rotate")


def test_a_key_in_use_or_the_last_one_is_not_dropped(ok, fails, docs) -> None:
    ((first, _, _),) = fingerprints(ok)
    assert "is the only key" in fails("keys", "drop", first)
    other = CredentialManager.generate_key()
    ok("keys", "add", "--first", pipe=other + "\n")
    assert "keys rotate" in fails("keys", "drop", first)
    assert "there is no key 'x'; there are: " in fails("keys", "drop", "x")
    ok("items", "docs")
    ok("keys", "drop", first, "--force")
    assert first in fails("items", "docs")


def test_a_key_is_added_from_a_pipe_or_a_prompt_and_not_shown(ok, fails, key_file: Path) -> None:
    keys = [CredentialManager.generate_key() for _ in range(3)]
    piped = ok("keys", "add", pipe=keys[0])
    typed = ok("keys", "add", answers=[keys[1]])
    first = ok("keys", "add", "--first", pipe=keys[2])
    assert read_key_file(key_file) == [keys[2], keys[0], keys[1]]
    for done in (piped, typed, first):
        assert not [key for key in keys if key in done.out + done.err]
    assert "is in the file already" in fails("keys", "add", pipe=keys[0])
    assert "not a key" in fails("keys", "add", pipe="nonsense")
    assert "not a key" in fails("keys", "add", pipe="")
    assert len(read_key_file(key_file)) == 3


def test_keys_of_the_environment_are_used_and_not_written(ok, fails, docs, monkeypatch) -> None:
    new = CredentialManager.generate_key()
    old = read_key_file(Path(fails("keys", "init").split("'")[1]))[0]
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", f"{new},{old}")
    for args in (["init"], ["rotate", "--new-key"], ["add"], ["drop", "x"]):
        assert "the keys come from DATASOURCE_ENCRYPTION_KEY" in fails("keys", *args, pipe=new)
    assert "1 changed" in ok("keys", "rotate").err
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", new)
    ok("items", "docs")


def test_a_second_key_is_refused_with_what_to_do(ok, fails, docs, key_file: Path) -> None:
    ((first, _, _),) = fingerprints(ok)
    old, new = key_file.read_text(), CredentialManager.generate_key()
    key_file.write_text(f"{new}\n")
    (second,) = CredentialManager(new).fingerprints
    message = fails("add", "local_file", "--id", "more", "-o", f"path={docs}")
    assert message.startswith(
        f"the stored sources are encrypted with {first!r}, which is not among"
    )
    assert f"{second!r}; to change keys give both, the new one first" in message
    assert "`datasources keys rotate`" in message
    assert fingerprints(ok) == [(second, 0, "encrypts"), (first, 1, "missing")]
    key_file.write_text(f"{new}\n{old}")
    ok("keys", "rotate")
    ok("add", "local_file", "--id", "more", "-o", f"path={docs}")
    assert fingerprints(ok) == [(second, 2, "encrypts"), (first, 0, "decrypts")]


def test_the_option_goes_before_the_environment(ok, fails, docs, store, monkeypatch) -> None:
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", CredentialManager.generate_key())
    fails("items", "docs")
    ok("--key-file", str(store.parent / "key"), "items", "docs")


def test_a_key_file_that_can_be_read_once_is_enough(ok, docs, store: Path, tmp_path) -> None:
    key = (store.parent / "key").read_text()
    for args in (
        ["add", "local_file", "--id", "more", "-o", f"path={docs}"],
        ["edit", "more", "--name", "x"],
        ["keys", "list"],
        ["items", "more"],
    ):
        reader, writer = os.pipe()
        os.write(writer, key.encode())
        os.close(writer)
        ok("--key-file", f"/dev/fd/{reader}", *args)
        os.close(reader)


def test_processes_that_add_at_once_agree_on_one_key(ok, folder: Path, key_file: Path) -> None:
    program = [sys.executable, "-m", "datasources.cli", "add", "local_file"]
    processes = [
        subprocess.Popen(
            [*program, "--id", f"s{number}", "-o", f"path={folder}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert sum("Made the encryption key" in text for text in errors) == 1
    assert len(read_key_file(key_file)) == 1
    for number in range(4):
        ok("items", f"s{number}")


def test_a_source_is_encrypted_with_the_key_that_came_while_it_was_tested(
    ok, docs, monkeypatch
) -> None:
    def rotate_and_try(context: CliContext, *arguments: Any, **more: Any) -> Any:
        ok("keys", "rotate", "--new-key")
        ok("keys", "drop", old)
        return try_sources(context, *arguments, **more)

    ((old, _, _),) = fingerprints(ok)
    try_sources = CliContext.try_sources
    monkeypatch.setattr(CliContext, "try_sources", rotate_and_try)
    ok("add", "local_file", "--id", "more", "-o", f"path={docs}")
    ((new, count, _),) = fingerprints(ok)
    assert new != old
    assert count == 2


def test_a_key_and_a_source_that_another_process_makes_meanwhile_are_used(
    ok, folder, monkeypatch
) -> None:
    def add_other_and_check(context: CliContext, store: Store, *, create: bool) -> None:
        if create and not added:
            added.append("other")
            other = command("add", "local_file", "--id", "other", "-o", f"path={folder}")
            assert other.returncode == 0, other.stderr
        check(context, store, create=create)

    added: list[str] = []
    check = CliContext._check_keyless_store
    monkeypatch.setattr(CliContext, "_check_keyless_store", add_other_and_check)
    ok("add", "local_file", "--id", "one", "-o", f"path={folder}")
    assert [count for _, count, _ in fingerprints(ok)] == [2]
