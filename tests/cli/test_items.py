"""`items`, `info`, `preview`, `stats`, `fetch`, `upload`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "ws"


def test_items_lists_everything_or_below_a_path_or_so_many(ok, docs: Path) -> None:
    everything = ["a.csv", "note[1].txt", "sub/b.csv"]
    assert [item["path"] for item in ok("items", "docs", "--json").json] == everything
    assert [line.split()[0] for line in ok("items", "docs").out.splitlines()[1:]] == everything
    assert [item["path"] for item in ok("items", "docs", "sub", "--json").json] == ["sub/b.csv"]
    some = ok("items", "docs", "--limit", "1", "--json")
    assert len(some.json) == 1
    assert some.err == "There are more; --limit 1 ended the list.\n"
    assert ok("items", "docs", "--limit", "3", "--json").err == ""


def test_a_path_that_ends_in_a_slash_shows_one_folder(ok, docs: Path) -> None:
    (docs / "sub" / "deep").mkdir()
    (docs / "sub" / "deep" / "c.csv").touch()
    for path, paths in (
        ("/", ["a.csv", "note[1].txt", "sub/"]),
        ("sub/", ["sub/b.csv", "sub/deep/"]),
    ):
        items = ok("items", "docs", path, "--json").json
        assert [item["path"] for item in items] == paths


def test_many_items_are_one_table_and_one_document(ok, sealed) -> None:
    lines = ok("items", "sealed", "many").out.splitlines()
    assert [line.split()[0] for line in lines] == ["path", *(f"item{n}" for n in range(2500))]
    assert len(ok("items", "sealed", "many", "--json").json) == 2500


def test_an_empty_list_is_an_empty_document(ok, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    ok("add", "local_file", "-o", f"path={tmp_path / 'empty'}")
    assert ok("items", "local_file", "--json").json == []
    assert ok("items", "local_file").out == ""


def test_info_and_preview(ok, docs: Path) -> None:
    assert ok("info", "docs", "a.csv", "--json").json["size"] == 14
    assert "content_type  text/csv" in ok("info", "docs", "a.csv").out
    assert ok("preview", "docs", "a.csv", "-n", "1", "--json").json == {
        "columns": ["id", "v"],
        "rows": [["1", "2.5"]],
        "truncated": True,
        "format": {"encoding": "utf-8", "delimiter": ",", "compression": None, "guessed": []},
        "notes": [],
    }
    assert ok("preview", "docs", "a.csv").out == "id  v\n1   2.5\n2\n"


def test_rows_wider_or_narrower_than_the_header_are_shown_whole(ok, docs: Path) -> None:
    (docs / "odd.csv").write_text("a,b\n1\n1,2,3\n")
    lines = ok("preview", "docs", "odd.csv").out.splitlines()
    assert [line.split() for line in lines] == [["a", "b"], ["1"], ["1", "2", "3"]]


def test_statistics_where_the_connector_can(ok, fails, docs, sealed) -> None:
    assert ok("stats", "sealed", "doc", "--json").json["x"]["mean"] == 2.5
    done = ok("stats", "sealed", "doc")
    assert done.out.splitlines()[1].split() == ["x", "3", "0", "1", "5", "2.5"]
    assert "sample" in done.err
    assert "no numeric columns" in ok("stats", "sealed", "text").err
    assert "Parquet files have" in fails("stats", "docs", "a.csv")


def test_fetch_brings_several_items_and_tells_what_landed(ok, docs, workspace) -> None:
    done = ok("fetch", "docs", "a.csv", "sub/b.csv", "--into", str(workspace), "--json")
    assert [receipt["identifier"] for receipt in done.json] == ["a.csv", "sub/b.csv"]
    for receipt in done.json:
        content = Path(receipt["path"]).read_bytes()
        assert receipt["sha256"] == hashlib.sha256(content).hexdigest()
    assert done.err == ""
    lines = ok("fetch", "docs", "a.csv", "--into", str(workspace)).out.splitlines()
    assert lines[0].split() == ["item", "file", "bytes", "rows", "sha256"]
    assert lines[1].split()[-1] == done.json[0]["sha256"][:12]


def test_patterns_are_expanded_once_each(ok, docs, workspace) -> None:
    done = ok("fetch", "docs", "**/*.csv", "*.csv", "a.csv", "--into", str(workspace), "--json")
    assert [receipt["identifier"] for receipt in done.json] == ["a.csv", "sub/b.csv"]


def test_splits_of_a_pattern_become_one_directory(ok, fails, docs, workspace) -> None:
    (docs / "b.csv").write_text("id,v\n3,1.5\n")
    for item, rows in (("a.csv", 2), ("[ab].csv", 3)):
        done = ok("fetch", "docs", item, "--splits", "2", "--into", str(workspace), "--json")
        assert [receipt["rows"] for receipt in done.json] == [rows]
        assert min(os.listdir(workspace / f"{item}.dataset")) == "_manifest.json"
    again = ["fetch", "docs", "a.csv", "--splits", "2", "--into", str(workspace)]
    assert "raise 'max_rows'" in fails(*again, "--max-rows", "1")
    assert "leave 'format' out" in fails(*again, "--format", "csv")


def test_a_pattern_without_a_match_is_an_error_and_fetches_nothing(fails, docs, workspace) -> None:
    message = fails("fetch", "docs", "a.csv", "*.parquet", "--into", str(workspace))
    assert message == "no item of source 'docs' matches '*.parquet'"
    assert not workspace.exists()


def test_an_item_whose_name_looks_like_a_pattern_can_be_had(ok, docs, workspace) -> None:
    into = ["--into", str(workspace)]
    ok("fetch", "docs", "note[1].txt", *into)
    assert os.listdir(workspace) == ["note[1].txt"]
    (docs / "note1.txt").touch()
    ok("fetch", "docs", "note[1].txt", *into)
    assert "note1.txt" not in os.listdir(workspace)
    ok("fetch", "docs", "note[0-9].txt", *into)
    assert "note1.txt" in os.listdir(workspace)
    (docs / "Sales [EU]").mkdir()
    (docs / "Sales [EU]" / "q1.csv").touch()
    ok("fetch", "docs", "Sales [EU]/", *into)
    assert os.listdir(workspace / "Sales [EU]") == ["q1.csv"]
    (workspace / "note[1].txt").unlink()
    ok("fetch", "docs", "note[1].txt", "--no-glob", *into)
    assert (workspace / "note[1].txt").read_text() == "hello\n"


def test_a_folder_is_fetched_whole_and_again_only_what_changed(ok, docs, workspace) -> None:
    into = ["--into", str(workspace), "--json"]
    (docs / "sub" / "deep").mkdir()
    (docs / "sub" / "deep" / "c.csv").touch()

    def fetched(*options: str) -> dict[str, bool]:
        receipts = ok("fetch", "docs", "sub/", *options, *into).json
        return {receipt["identifier"]: receipt["unchanged"] for receipt in receipts}

    assert fetched() == {"sub/b.csv": False, "sub/deep/c.csv": False}
    assert fetched() == {"sub/b.csv": True, "sub/deep/c.csv": True}
    (docs / "sub" / "b.csv").write_text("changed")
    assert fetched() == {"sub/b.csv": False, "sub/deep/c.csv": True}
    assert fetched("--refresh") == {"sub/b.csv": False, "sub/deep/c.csv": False}
    done = ok("fetch", "docs", "**/*.csv", "--into", str(workspace))
    total, unchanged = done.err.splitlines()
    assert total.startswith("3 files, 21 B, ")
    assert unchanged == "2 of 3 were there already, unchanged"
    assert len(done.out.splitlines()) == 4
    assert (workspace / "sub" / "b.csv").read_text() == "changed"


def test_identifiers_go_unexpanded_to_a_connector_without_patterns(ok, sealed, workspace) -> None:
    (receipt,) = ok("fetch", "sealed", "select * from x", "--into", str(workspace), "--json").json
    assert receipt["identifier"] == "select * from x"


def test_a_long_identifier_comes_from_standard_input(ok, fails, sealed, workspace) -> None:
    query = "select *\nfrom x\n"
    (receipt,) = ok("fetch", "sealed", "-", "--into", str(workspace), "--json", pipe=query).json
    assert receipt["identifier"] == query.strip()
    assert ok("preview", "sealed", "-", "--json", pipe=query).json["columns"]
    assert "no identifier" in fails("fetch", "sealed", "-", pipe=" \n")


def test_what_failed_is_one_sentence_and_the_rest_has_landed(run, docs, workspace) -> None:
    done = run("fetch", "docs", "no", "a.csv", "none", "--into", str(workspace), "--json")
    assert done.code == 1
    assert done.error.startswith("2 of 3 fetches failed: 'no': source 'docs' has no file 'no'; ")
    assert ["error" in result for result in done.json] == [True, False, True]
    assert os.listdir(workspace) == ["a.csv"]


def test_limits_are_set_and_lifted_for_one_call(ok, fails, docs, sealed, workspace) -> None:
    into = ["--into", str(workspace)]
    assert "over the limit of 3 bytes" in fails("fetch", "docs", "a.csv", "--max-bytes", "3", *into)
    assert not list(workspace.glob("*"))
    ok("fetch", "docs", "a.csv", "--max-bytes", "none", "--max-rows", "none", *into)
    assert "limit of 0.2 seconds" in fails("fetch", "sealed", "slow", "--timeout", "0.2", *into)


def test_a_result_that_was_cut_is_told(ok, sealed, workspace) -> None:
    done = ok("fetch", "sealed", "long", "--into", str(workspace))
    assert done.err == "'long' has more than the 3 rows fetched; --max-rows raises the limit\n"


def test_fetch_cleans_up_after_killed_fetches(ok, docs, workspace) -> None:
    workspace.mkdir()
    left = workspace / ".datasources-0123456789abcdef.part"
    left.write_text("half")
    os.utime(left, (0, 0))
    ok("fetch", "docs", "a.csv", "--into", str(workspace))
    assert os.listdir(workspace) == ["a.csv"]


def test_clean_deletes_what_killed_fetches_left_and_names_it(ok, fails, workspace) -> None:
    workspace.mkdir()
    (workspace / "kept").touch()
    left = workspace / ".datasources-0123456789abcdef.part"
    left.write_text("half")
    os.utime(left, (0, 0))
    assert ok("clean", str(workspace)).out == f"{left}\n"
    assert ok("clean", str(workspace)).out == ""
    assert os.listdir(workspace) == ["kept"]
    assert fails("clean", "/none") == "there is no directory '/none'"


def test_upload_where_the_connector_can(ok, fails, docs, sealed) -> None:
    file = str(docs / "a.csv")
    assert ok("upload", "sealed", file, "--as", "b.csv").out == "b.csv\n"
    assert ok("upload", "sealed", file, "--json").json["path"] == "x"
    assert fails("upload", "sealed", file, "--no-overwrite") == "it is there already"
    assert fails("upload", "sealed", "/none") == "there is no file '/none'"
    assert "its option 'writable' admits them" in fails("upload", "docs", file)


def test_a_preview_says_that_there_are_more_rows(ok, docs: Path) -> None:
    (docs / "many.csv").write_text("id\n1\n2\n3\n")
    for args in (["-n", "2"], ["-n", "2", "--json"]):
        done = ok("preview", "docs", "many.csv", *args)
        assert done.err == "There are more rows; -n 2 ended the preview.\n"
    assert ok("preview", "docs", "many.csv", "-n", "3").err == ""


def test_in_a_pipe_every_file_has_its_line_however_many(ok, docs, workspace) -> None:
    for index in range(30):
        (docs / f"many{index}.csv").write_text("id\n1\n")
    done = ok("fetch", "docs", "many*.csv", "--into", str(workspace))
    assert len(done.out.splitlines()) == 31
    assert done.err.startswith("30 files, 150 B, ")
    assert ok("fetch", "docs", "a.csv", "--into", str(workspace)).err == ""
