"""Paths of the command line: `~`, homes that do not exist, URLs of stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasources import CredentialManager, OptionError, StoreError
from datasources.cli import paths
from tests.cli.conftest import command


def raise_key_error(user_id: int) -> None:
    """Stand in for `pwd.getpwuid` where the user database lacks the user."""
    raise KeyError(user_id)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory; the working directory is another one, empty."""
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_a_tilde_in_options_and_arguments_is_the_home_directory(ok, docs, home) -> None:
    add = ["add", "local_file", "-o", f"path={docs}", "--id"]
    ok("--store=~/a.db", "--key-file=~/keys", *add, "a")
    ok("--store=sqlite:///~/b.db", "--key-file=~/keys", *add, "b")
    ok("fetch", "docs", "a.csv", "--into=~/ws")
    ok("clean", "~/ws")
    ok("new", "shelf", "--into=~/new")
    (home / "s.toml").write_text(
        f'[sources.s]\ntype = "local_file"\noptions = {{ path = "{docs}" }}\n'
    )
    ok("add", "--from=~/s.toml")
    ok("--config=~/s.toml", "list")
    (home / "export.json").write_text(ok("export", "docs").out)
    ok("import", "--replace", "~/export.json")
    assert sorted(
        path.name for path in home.iterdir() if path.suffix not in (".db-wal", ".db-shm")
    ) == [
        "a.db",
        "b.db",
        "export.json",
        "keys",
        "new",
        "s.toml",
        "ws",
    ]
    assert os.listdir() == []


def test_a_tilde_in_variables_is_the_home_directory(ok, docs, home, monkeypatch) -> None:
    monkeypatch.setenv("DATASOURCES_STORE", "~/store/own.db")
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY_FILE", "~/keys/own")
    monkeypatch.setenv("DATASOURCES_AUDIT_LOG", "~/audit.jsonl")
    ok("add", "local_file", "-o", f"path={docs}")
    assert (home / "store" / "own.db").exists()
    assert (home / "keys" / "own").exists()
    assert (home / "audit.jsonl").exists()
    (home / "settings.toml").write_text("[policy.limits]\nmax_rows = 7\n")
    monkeypatch.setenv("DATASOURCES_CONFIG", "~/settings.toml")
    assert "max_rows   7" in ok("show", "local_file").out
    assert os.listdir() == []


def test_a_tilde_within_a_name_is_part_of_the_name(ok, sealed, home) -> None:
    Path("~$report.csv").write_text("x")
    assert ok("upload", "sealed", "~$report.csv", "--as", "x").out == "x\n"
    assert paths.expand("a/~/b") == "a/~/b"


@pytest.mark.parametrize("value", [None, "", "relative", "./x"])
def test_without_a_home_directory_nothing_is_made_and_paths_must_be_given(
    ok, fails, docs, home, monkeypatch, value: str | None
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HOME")
    if value is not None:
        monkeypatch.setenv("HOME", value)
    monkeypatch.setattr("pwd.getpwuid", raise_key_error)
    message = "this user has no home directory; set HOME, or give absolute paths"
    for args in (["list"], ["add", "local_file", "-o", f"path={docs}"]):
        assert fails(*args) == message
    assert fails("fetch", "docs", "a.csv", "--into=~/ws") == message
    ok("plugins")
    monkeypatch.setenv("DATASOURCES_STORE", str(home / "s.db"))
    monkeypatch.setenv("DATASOURCE_ENCRYPTION_KEY", CredentialManager.generate_key())
    ok("add", "local_file", "-o", f"path={docs}")
    assert os.listdir() == []


def test_an_empty_or_relative_home_is_that_of_the_user_database(home, monkeypatch) -> None:
    import pwd

    for value in ("", "relative"):
        monkeypatch.setenv("HOME", value)
        assert paths.home_directory() == pwd.getpwuid(os.getuid()).pw_dir


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("own.db", "own.db"),
        ("/a/own.db", "/a/own.db"),
        ("a/b:c.db", "a/b:c.db"),
        ("sqlite:///own.db", "own.db"),
        ("sqlite:////a/own.db", "/a/own.db"),
        ("sqlite:own.db", "own.db"),
        ("postgresql://host/database", None),
    ],
)
def test_a_store_in_a_file_is_a_path_or_a_url(url: str, path: str | None) -> None:
    assert paths.store_file(url) == path


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://own.db",
        "sqlite://a/own.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:",
        "memory:",
        "sqlite:///:memory:",
        "sqlite::memory:",
        "memory://",
        "MEMORY:",
        ":memory:",
        "sqlite:///file::memory:",
        "file::memory:?cache=shared",
        "sqlite:///own.db?mode=ro",
        "sqlite:////a/own.db?",
    ],
)
def test_a_url_that_is_no_file_is_refused_and_makes_none(fails, folder, home, url: str) -> None:
    for args in (["list"], ["add", "local_file", "-o", f"path={folder}"]):
        assert f"{url!r} is no store" in fails("--store", url, *args)
    assert os.listdir() == []
    with pytest.raises(StoreError):
        paths.store_file(url)


@pytest.mark.parametrize(
    "name", ["DATASOURCES_CONFIG", "DATASOURCES_STORE", "DATASOURCE_ENCRYPTION_KEY_FILE"]
)
def test_an_empty_variable_is_one_that_is_not_set(docs, name: str) -> None:
    for args in (["list"], ["items", "docs"]):
        done = command(*args, env={name: ""})
        assert (done.returncode, done.stderr) == (0, "")


def test_a_home_that_nobody_has_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr("pwd.getpwuid", raise_key_error)
    with pytest.raises(OptionError, match="no home directory"):
        paths.home_directory({"HOME": ""})
