"""`export` and `import`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import SECRET

PASSPHRASE = "correct horse"


@pytest.fixture
def moved(ok, docs: Path, sealed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Export both sources, then start with an empty home; return the file of the export."""

    def moved(*args: str, **more) -> str:
        done = ok("export", *args, **more)
        file = tmp_path / "export.json"
        file.write_text(done.out)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
        assert ok("list", "--json").json == []
        return str(file)

    return moved


def test_export_leaves_secrets_out_and_says_so(ok, docs, sealed) -> None:
    done = ok("export")
    assert [entry["id"] for entry in done.json["sources"]] == ["docs", "sealed"]
    assert done.err == "'sealed': left out token\n"
    assert [entry["id"] for entry in ok("export", "docs").json["sources"]] == ["docs"]


def test_what_was_left_out_is_asked_for(ok, moved) -> None:
    file = moved()
    done = ok("import", file, answers=[SECRET])
    assert SECRET not in done.out + done.err
    assert done.err.splitlines()[-1] == "Imported 2: docs, sealed"
    ok("test", "sealed")
    ok("items", "docs")


def test_what_was_left_out_may_be_piped_in(ok, fails, moved) -> None:
    file = moved()
    assert "['other']" in fails("import", file, "--stdin", pipe="[other]\nx = 1")
    assert "a table of options" in fails("import", file, "--stdin", pipe="sealed = 1")
    ok("import", file, "--stdin", pipe=json.dumps({"sealed": {"token": SECRET}}))
    ok("test", "sealed")


def test_import_without_what_was_left_out_imports_nothing(ok, run, moved) -> None:
    done = run("import", moved())
    assert "'sealed': to be filled in: token" in done.err
    assert done.error == "source 'sealed': option 'token' is missing"
    assert ok("list", "--json").json == []


def test_an_encrypted_export_brings_secrets_along(ok, fails, moved) -> None:
    file = moved("--encrypt", pipe=PASSPHRASE + "\n")
    assert SECRET not in Path(file).read_text()
    assert "passphrase does not open" in fails("import", file, pipe="wrong\n")
    assert "empty passphrase" in fails("import", file, pipe="")
    assert ok("list", "--json").json == []
    ok("import", file, pipe=PASSPHRASE + "\n")
    ok("test", "sealed")


def test_the_passphrase_is_asked_for_twice_and_hidden(ok, fails, moved) -> None:
    file = moved("--encrypt", answers=[PASSPHRASE, PASSPHRASE])
    ok("import", file, answers=[PASSPHRASE])
    assert "empty passphrase" in fails("export", "--encrypt", answers=["", ""])


def test_taken_ids_are_all_named_unless_replaced(ok, fails, docs, sealed, tmp_path) -> None:
    file = tmp_path / "export.json"
    file.write_text(ok("export", "--encrypt", pipe=PASSPHRASE).out)
    message = fails("import", str(file), pipe=PASSPHRASE)
    assert "'docs', 'sealed'" in message
    ok("import", str(file), "--replace", pipe=PASSPHRASE)


def test_an_export_may_be_piped_in(ok, fails, docs, monkeypatch, tmp_path) -> None:
    text = ok("export", "docs").out
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    ok("import", "-", pipe=text)
    ok("items", "docs")
    assert fails("import", "-", pipe="{") == "'-' is not JSON"
    assert "no export of sources" in fails("import", "-", pipe="[]")


def test_an_audit_log_that_cannot_be_written_ends_an_import_before_it_makes_a_key(
    ok, fails, docs, store: Path, monkeypatch, tmp_path
) -> None:
    text = ok("export").out
    shutil.rmtree(store.parent)
    monkeypatch.setenv("DATASOURCES_AUDIT_LOG", str(tmp_path / "none" / "audit.jsonl"))
    assert "audit" in fails("import", "-", pipe=text)
    assert not store.parent.exists()


def test_a_declared_id_is_not_imported(ok, fails, docs, monkeypatch) -> None:
    text = ok("export", "docs").out
    monkeypatch.setenv("DATASOURCES__DOCS__TYPE", "local_file")
    assert "is declared in the environment" in fails("import", "-", "--replace", pipe=text)
