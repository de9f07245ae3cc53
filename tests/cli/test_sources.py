"""`add`, `list`, `show`, `test`, `pause`, `resume`, `remove`; sources that are declared."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import SECRET


def test_the_first_add_makes_store_and_key_for_their_owner_only(ok, folder, store: Path) -> None:
    assert ok("list").err == "There are no sources; `datasources add` adds one.\n"
    assert not store.parent.exists()
    done = ok("add", "local_file", "--id", "docs", "-o", f"path={folder}")
    assert done.out == ""
    key = store.parent / "key"
    assert done.err.splitlines() == [
        f"Made the encryption key {key}: keep a copy of it.",
        "Added 'docs'.",
    ]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (store, key)] == [0o600, 0o600]
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert "Made" not in ok("add", "local_file", "--id", "more", "-o", f"path={folder}").err


def test_list_and_show_tell_what_was_added(ok, docs: Path) -> None:
    ok("add", "local_file", "--name", "All", "-o", f"path={docs}", "-o", "hidden=yes")
    assert [line.split() for line in ok("list").out.splitlines()] == [
        ["id", "type", "name", "origin", "version"],
        ["docs", "local_file", "docs", "stored", "1"],
        ["local_file", "local_file", "All", "stored", "2"],
    ]
    assert [row["id"] for row in ok("list", "--json").json] == ["docs", "local_file"]
    shown = ok("show", "local_file", "--json").json
    assert shown["options"] == {"path": str(docs), "hidden": True}
    assert shown["created_at"].startswith("20")
    assert f"  path    {docs}" in ok("show", "local_file").out


def test_a_source_is_paused_with_a_reason_and_resumed(ok, fails, docs: Path) -> None:
    done = ok("pause", "docs", "--reason", "moving until noon")
    assert (done.out, done.err) == ("", "Paused 'docs'.\n")
    assert fails("items", "docs") == "source 'docs' is paused: moving until noon"
    header, row = ok("list").out.splitlines()
    assert header.split()[-2:] == ["version", "paused"]
    assert row.endswith("moving until noon")
    shown = ok("show", "docs", "--json").json
    (listed,) = ok("list", "--json").json
    assert shown["paused"] == listed["paused"] == "moving until noon"
    assert shown["version"] == listed["version"]
    assert "  moving until noon" in ok("show", "docs").out
    again = ok("pause", "docs", "--reason", "until two", "--json").json
    assert (again["id"], again["paused"]) == ("docs", "until two")
    assert ok("resume", "docs").err == "Resumed 'docs'.\n"
    assert ok("resume", "docs", "--json").json["paused"] is None
    assert "paused" not in ok("list").out
    assert ok("show", "docs", "--json").json["paused"] is None
    assert "a.csv" in ok("items", "docs").out


def test_version_is_shown_and_rises_with_each_change(ok, docs: Path) -> None:
    before = ok("show", "docs", "--json").json["version"]
    ok("edit", "docs", "--name", "New name")
    (listed,) = ok("list", "--json").json
    assert ok("show", "docs", "--json").json["version"] == listed["version"] > before


def test_only_a_stored_source_is_paused_and_only_with_a_reason(
    ok, fails, run, docs: Path, declared: Path
) -> None:
    assert run("pause", "docs").code == 2
    assert fails("pause", "docs", "--reason", " ") == "'reason' must be a text that is not empty"
    for arguments in (["pause", "none", "--reason", "x"], ["resume", "none"]):
        assert fails(*arguments).startswith("there is no source 'none'")
    for verb, *more in (["pause", "--reason", "x"], ["resume"]):
        assert fails(verb, "filed", *more).endswith(f"; {verb} it there")
    assert ok("show", "filed", "--json").json["version"] is None


def test_add_tests_first_and_stores_nothing_that_does_not_work(ok, fails, tmp_path) -> None:
    nowhere = f"path={tmp_path / 'none'}"
    assert "is not a directory" in fails("add", "local_file", "-o", nowhere)
    assert ok("list", "--json").json == []
    ok("add", "local_file", "-o", nowhere, "--no-test")
    assert "is not a directory" in fails("test", "local_file")


def test_replace_overwrites_and_nothing_else_does(ok, fails, docs: Path) -> None:
    other = ["add", "local_file", "--id", "docs", "-o", f"path={docs / 'sub'}"]
    assert fails(*other) == "source 'docs' exists already; --replace overwrites it"
    assert ok("show", "docs", "--json").json["options"]["path"] == str(docs)
    ok(*other, "--replace")
    assert ok("show", "docs", "--json").json["options"]["path"] == str(docs / "sub")


def test_add_takes_all_sources_of_a_file_or_none(ok, fails, folder, tmp_path) -> None:
    file = tmp_path / "sources.toml"
    good = f'[sources.{{}}]\ntype = "local_file"\noptions = {{{{ path = "{folder}" }}}}\n'
    bad = '[sources.bad]\ntype = "local_file"\noptions = { path = "/none" }\n'
    file.write_text(good.format("one") + good.format("two") + bad)
    assert "'/none' is not a directory" in fails("add", "--from", str(file))
    assert ok("list", "--json").json == []
    ok("add", "--from", str(file), "--id", "two")
    assert "no source 'three'; it declares: one, two, bad" in fails(
        "add", "--from", str(file), "--id", "three"
    )
    file.write_text(good.format("one") + good.format("three"))
    ok("add", "--from", str(file))
    assert [row["id"] for row in ok("list", "--json").json] == ["one", "three", "two"]
    file.write_text("[pool]\nmax_size = 3\n")
    assert fails("add", "--from", str(file)) == f"{str(file)!r} declares no source"


def test_remove_asks_unless_told(ok, fails, docs: Path) -> None:
    assert fails("remove", "docs", answers=["n"]) == "'docs' was not removed"
    assert ok("list", "--json").json
    ok("remove", "docs", answers=["y"])
    assert ok("list", "--json").json == []


def test_test_tells_why_not(ok, run, docs: Path) -> None:
    assert ok("test", "docs").out.startswith("docs: works (")
    assert ok("test", "docs", "--json").json["ok"] is True
    os.rename(docs, docs.with_name("gone"))
    done = run("test", "docs", "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    assert done.json["error"] == done.error == f"{str(docs)!r} is not a directory"


def test_options_are_read_as_their_types(ok, vault) -> None:
    pairs = ["host=h", "port=12", "tags=a, b", "verify=no", "token=${env:TOKEN}"]
    ok("add", "vault", "--no-test", *[part for pair in pairs for part in ("-o", pair)])
    assert ok("show", "vault", "--json").json["options"] == {
        "host": "h",
        "port": 12,
        "tags": ["a", "b"],
        "verify": False,
        "token": "${env:TOKEN}",
    }


@pytest.fixture
def declared(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that declares `filed`, and an environment that declares `env`."""
    file = tmp_path / "settings.toml"
    file.write_text(f"""
[sources.filed]
type = "local_file"
metadata = {{ owner = "ops" }}
options = {{ path = "{folder}" }}
[policy.limits]
max_bytes = 10
""")
    monkeypatch.setenv("DATASOURCES_CONFIG", str(file))
    monkeypatch.setenv("DATASOURCES__ENV__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__ENV__PATH", str(folder / "sub"))
    return file


def test_declared_sources_work_without_store_and_key(ok, declared, store: Path, tmp_path) -> None:
    assert [(row["id"], row["origin"]) for row in ok("list", "--json").json] == [
        ("env", "the environment"),
        ("filed", repr(str(declared))),
    ]
    assert ok("show", "filed", "--json").json["metadata"] == {"owner": "ops"}
    assert [item["path"] for item in ok("items", "env", "--json").json] == ["b.csv"]
    ok("test", "filed")
    ok("fetch", "env", "*.csv", "--into", str(tmp_path / "ws"))
    assert not store.parent.exists()


def test_settings_hold_for_stored_sources_too(ok, fails, docs, declared) -> None:
    assert "over the limit of 10 bytes" in fails("fetch", "docs", "a.csv")
    ok("fetch", "docs", "a.csv", "--max-bytes", "none", "--into", str(docs / "ws"))


def test_a_declared_source_hides_a_stored_one_and_says_so(ok, docs, monkeypatch) -> None:
    monkeypatch.setenv("DATASOURCES__DOCS__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__DOCS__PATH", str(docs / "sub"))
    done = ok("list", "--json")
    assert [row["origin"] for row in done.json] == ["the environment"]
    assert "'docs' is stored, too" in done.err
    assert ok("show", "docs", "--json").json["options"]["path"] == str(docs / "sub")


def test_a_declared_source_can_neither_be_removed_nor_overwritten(fails, declared, folder) -> None:
    message = fails("remove", "filed", "--yes")
    assert message == f"source 'filed' is declared in {str(declared)!r}; remove it there"
    assert "only stored ones are exported" in fails("export", "filed")
    assert "is declared in the environment" in fails(
        "add", "local_file", "--id", "env", "-o", f"path={folder}", "--replace"
    )


def test_a_declared_source_is_validated_when_it_is_used_and_harms_no_other(
    ok, fails, docs, monkeypatch
) -> None:
    monkeypatch.setenv("DATASOURCES__BAD__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__BAD__PTH", SECRET)
    message = fails("items", "bad")
    assert message.startswith("source 'bad': option 'path' is missing; unknown option 'pth'; ")
    assert SECRET not in message
    ok("items", "docs")


@pytest.mark.parametrize("url", ["{}/own.db", "sqlite:///{}/own.db"])
def test_a_store_of_ones_own_has_its_key_beside_it(ok, folder, tmp_path, monkeypatch, url) -> None:
    place = url.format(tmp_path)
    ok("--store", place, "add", "local_file", "--id", "x", "-o", f"path={folder}")
    assert (tmp_path / "own.db").exists()
    assert (tmp_path / "key").exists()
    monkeypatch.setenv("DATASOURCES_STORE", place)
    assert [row["id"] for row in ok("list", "--json").json] == ["x"]


def test_a_store_that_a_plugin_opens_can_be_used(ok, fails, site, folder, tmp_path) -> None:
    site.observer(
        "shelf",
        f"""
from datasources import SQLiteStore, hookimpl

@hookimpl
def datasources_open_store(url):
    if url.startswith("shelf:"):
        return SQLiteStore({str(tmp_path)!r} + "/" + url[6:])
""",
    )
    ok("--store", "shelf:a", "add", "local_file", "--id", "x", "-o", f"path={folder}")
    assert [row["id"] for row in ok("--store", "shelf:a", "list", "--json").json] == ["x"]
    assert "no plugin opens a store at 'attic'" in fails("--store", "attic:a", "list")


@pytest.mark.parametrize("form", ["files", "./files", "files/", "../tmp/files", "sub/../files"])
def test_a_relative_path_is_stored_as_an_absolute_one(
    ok, folder: Path, tmp_path, monkeypatch, form: str
) -> None:
    (tmp_path / "sub").mkdir()
    path = form.replace("tmp", tmp_path.name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(
        f'[sources.file]\ntype = "local_file"\noptions = {{ path = "{path}" }}\n'
    )
    ok("add", "local_file", "--id", "option", "-o", f"path={path}")
    ok("add", "local_file", "--id", "stdin", "--stdin", pipe=f"path = '{path}'")
    ok("add", "local_file", answers=["typed", "", path, ""])
    ok("add", "--from", "s.toml")
    monkeypatch.chdir("/")
    for source_id in ("option", "stdin", "typed", "file"):
        assert ok("show", source_id, "--json").json["options"]["path"] == str(folder)
        assert "a.csv" in ok("items", source_id).out


def test_only_paths_are_made_absolute(ok, folder: Path, site, tmp_path, monkeypatch) -> None:
    site.connector("labelled", "labelled", LABELLED)
    monkeypatch.chdir(tmp_path)
    pairs = ["path=files", "label=files", "home=~/files", "other=${env:PLACE}"]
    args = [part for pair in pairs for part in ("-o", pair)]
    ok("add", "labelled", "--no-test", *args)
    assert ok("show", "labelled", "--json").json["options"] == {
        "path": str(folder),
        "label": "files",
        "home": "~/files",
        "other": "${env:PLACE}",
    }


LABELLED = """
import os
from datasources import ConnectorOptions, hookimpl
from datasources_local_file import LocalFileConnector

class LabelledOptions(ConnectorOptions):
    path: str
    label: str
    home: str
    other: str

    def paths(self):
        return [self.path, os.path.expanduser(self.home), self.other]

class LabelledConnector(LocalFileConnector):
    type = "labelled"
    options_class = LabelledOptions

@hookimpl
def datasources_connectors():
    return [LabelledConnector]
"""


@pytest.mark.parametrize(
    "args",
    [
        ["add", "local_file", "-o", "path=/none"],
        ["add", "local_file", "-o", "pth=/"],
        ["add", "vault", "-o", "host=nowhere", "-s", "token"],
        ["import", "export.json"],
    ],
)
def test_an_add_that_fails_makes_no_store_and_no_key(
    fails, vault, store: Path, tmp_path, monkeypatch, args: list[str]
) -> None:
    source = {"id": "x", "type": "local_file", "name": "x", "options": {"pth": "/"}, "left_out": []}
    document = {"format": "datasources-export", "version": 1, "sources": [source]}
    (tmp_path / "export.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    fails(*args, pipe=f"{SECRET}\n")
    assert not store.parent.exists()


def test_an_audit_log_that_cannot_be_written_ends_an_add_before_it_makes_a_key(
    fails, folder: Path, store: Path, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("DATASOURCES_AUDIT_LOG", str(tmp_path / "none" / "audit.jsonl"))
    for option in ("--test", "--no-test"):
        assert "audit" in fails("add", "local_file", option, "-o", f"path={folder}")
    assert not store.parent.exists()


def test_a_lost_key_is_told_before_anything_is_asked(fails, docs, store: Path) -> None:
    (store.parent / "key").rename(store.parent / "away")
    assert "is missing" in fails("add", "local_file", answers=["other", ""])
