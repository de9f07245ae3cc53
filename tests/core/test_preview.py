"""Previews of text: every encoding, delimiter and line end, and what is said about a guess."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any

import pytest

from datasources import DataFetchError, Preview, preview_file, preview_text


def shown(name: str, content: bytes, rows: int = 10, **kwargs: Any) -> Preview:
    return preview_text(name, content, rows, complete=kwargs.pop("complete", True), **kwargs)


def table(preview: Preview) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    return preview.columns, list(preview.rows)


TABLE = ("id,name\n1,Müller\n2,Weiß\n", (("id", "name"), [("1", "Müller"), ("2", "Weiß")]))


@pytest.mark.parametrize(
    ("encoding", "found", "guessed"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8", False),
        ("utf-16", "utf-16", False),
        ("utf-32", "utf-32", False),
        ("utf-16-le", "utf-16-le", True),
        ("utf-16-be", "utf-16-be", True),
        ("cp1252", "cp1252", True),
        ("latin-1", "cp1252", True),
        ("cp850", "cp850", True),
    ],
)
def test_table_is_the_same_in_every_encoding(encoding: str, found: str, guessed: bool) -> None:
    text, expected = TABLE
    preview = shown("a.csv", text.encode(encoding))
    assert table(preview) == expected
    assert preview.format is not None
    assert preview.format.encoding == found
    assert ("encoding" in preview.format.guessed) == guessed
    assert any("encoding is not told" in note for note in preview.notes) == guessed


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\x00\x00\xfe\xff"])
def test_big_endian_marks_are_understood(mark: bytes) -> None:
    encoding = "utf-16-be" if len(mark) == 2 else "utf-32-be"
    assert table(shown("a.csv", mark + TABLE[0].encode(encoding))) == TABLE[1]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gbk", "编号,姓名\n1,张三\n2,李四\n"),
        ("gbk", "产品,数量,价格\n苹果,10,3.5\n香蕉,20,2.1\n"),
        ("shift_jis", "番号,名前\n1,山田太郎\n2,佐藤花子\n"),
        ("shift_jis", "番号,名前\n1,太郎\n2,一郎\n"),
        ("shift_jis", "商品,数量\nりんご,10\nバナナ,20\n"),
        ("euc_jp", "商品,数量\nりんご,10\nバナナ,20\n"),
        ("big5", "編號,姓名\n1,張三\n2,李四\n"),
        ("euc_kr", "번호,이름\n1,김철수\n2,이영희\n"),
        ("cp1251", "id,имя\n1,Иван\n2,Мария\n"),
        ("koi8_r", "id,имя\n1,Иван\n2,Мария\n"),
        ("cp1250", "id,imię\n1,Łukasz\n2,Świątek\n"),
        ("cp1250", "id,jméno\n1,Žluťoučký kůň\n2,Dvořák\n"),
        ("cp1252", "a,b\n1,\u201cquoted\u201d \u2013 dash €5\n"),
        ("cp1252", "note\nit\u2019s ¿Qué? 20°C\n"),
        ("cp1253", "id,όνομα\n1,Γιώργος\n"),
        ("cp1254", "id,isim\n1,Şükrü\n2,İpek\n"),
    ],
)
def test_older_encodings_are_guessed_and_marked_as_guesses(encoding: str, text: str) -> None:
    preview = shown("a.csv", text.encode(encoding))
    columns, *rows = [tuple(line.split(",")) for line in text.splitlines()]
    assert table(preview) == (columns, rows)
    assert preview.format is not None
    assert "encoding" in preview.format.guessed


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("iso2022_jp", "名前,住所\n山田,東京\n"), ("iso2022_kr", "이름,주소\n김,서울\n")],
)
def test_encodings_with_escape_sequences_are_known_by_these(encoding: str, text: str) -> None:
    preview = preview_text("a.csv", text.encode(encoding), complete=True)
    assert [preview.columns, *preview.rows] == [tuple(line.split(",")) for line in text.split()]
    assert preview.format is not None
    assert (preview.format.encoding, preview.format.guessed) == (encoding, ())


def test_text_with_a_few_bad_bytes_stays_utf_8() -> None:
    preview = shown("a.txt", ("é" * 20).encode() + b"\xff\n")
    assert list(preview.rows) == [("é" * 20 + "\ufffd",)]
    assert preview.notes == ("characters that are not utf-8 are shown as '\ufffd'",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_character_cut_by_the_end_of_what_was_read_is_left_out(encoding: str) -> None:
    content = "a\nb\n€€€\n€".encode(encoding)
    preview = shown("a.txt", content[:-1], complete=False)
    assert list(preview.rows) == [("a",), ("b",), ("€€€",)]
    assert (preview.notes, preview.truncated) == ((), True)


@pytest.mark.parametrize(
    ("text", "delimiter", "columns", "row"),
    [
        ("id;name;amount\n1;M;3,50\n", ";", ("id", "name", "amount"), ("1", "M", "3,50")),
        ("1,5;2,5\n3,5;4,5\n", ";", ("1,5", "2,5"), ("3,5", "4,5")),
        ("a\tb\n1\t2,5\n", "\t", ("a", "b"), ("1", "2,5")),
        ("a|b|c\n1|x,y|3\n", "|", ("a", "b", "c"), ("1", "x,y", "3")),
        ("a,b\n1,x;y\n2,z;w\n", ",", ("a", "b"), ("1", "x;y")),
        ('"Doe; John",b\n"a; b",2\n', ",", ("Doe; John", "b"), ("a; b", "2")),
        ('name;n\n"Doe, John";5\n"Roe, Jane";6\n', ";", ("name", "n"), ("Doe, John", "5")),
        ("sep=;\na;b\n1;2\n", ";", ("a", "b"), ("1", "2")),
        ("sep=:\r\na:b\r\n1:2\r\n", ":", ("a", "b"), ("1", "2")),
        ("SEP=\t\na\tb\n1\t2\n", "\t", ("a", "b"), ("1", "2")),
        ("only\nx\n", ",", ("only",), ("x",)),
        ("sep=\nx\n", ",", ("sep=",), ("x",)),
        ("sep=text\nx\n", ",", ("sep=text",), ("x",)),
        ('text\n"a;b"\n', ",", ("text",), ("a;b",)),
        ("text\nx;y\nno semicolon\n", ",", ("text",), ("x;y",)),
        ("a;b;c\n1;2\n", ";", ("a", "b", "c"), ("1", "2")),
        ("Report\n\na;b\n1;2\n3;4\n", ";", ("Report",), ("a", "b")),
        ("a,b;c\n1\n1,2,3\n4,5\n", ",", ("a", "b;c"), ("1",)),
    ],
)
def test_delimiter_is_found(
    text: str, delimiter: str, columns: tuple[str, ...], row: tuple[str, ...]
) -> None:
    preview = shown("a.csv", text.encode())
    assert (preview.columns, preview.rows[0]) == (columns, row)
    assert preview.format is not None
    assert preview.format.delimiter == delimiter
    told = "the columns are separated by"
    assert any(note.startswith(told) for note in preview.notes) == (delimiter != ",")
    assert ("delimiter" in preview.format.guessed) == (
        delimiter != "," and not text.lower().startswith("sep=")
    )


@pytest.mark.parametrize("name", ["a.txt", "a.TEXT", "a.dat", "b.c/a.asc", "b.c/part-00000"])
@pytest.mark.parametrize("mark", ["\t", "|", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_whose_lines_have_the_same_columns_is_shown_as_a_table(
    name: str, mark: str, encoding: str
) -> None:
    text = f'id{mark}note{mark}price\n1{mark}"two\nlines"{mark}3,50\n2{mark}{mark}4,00\n'
    preview = shown(name, text.encode(encoding))
    rows = [("1", "two\nlines", "3,50"), ("2", "", "4,00")]
    assert table(preview) == (("id", "note", "price"), rows)
    assert preview.format is not None
    assert (preview.format.delimiter, preview.format.guessed) == (mark, ("delimiter",))
    assert [note[:29] for note in preview.notes] == ["the columns are separated by "]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id\tname\n1\n2\tb\n3\tc\n", "the lines have different numbers of tabs: they are no "),
        ("a|b\n---+---\n1|2\n3|4\n", "the lines have different numbers of vertical bars: they "),
        ("| a | b |\n| 1 | 2 |\n", "the lines may be rows of columns that are separated by ver"),
        ("id,name\n1,a\n", "the lines may be rows of columns that are separated by commas"),
        ("Dear Sir, I write\nas I must, again\n", "the lines may be rows of columns that are se"),
        ("First this; then that.\nNothing else.\n", ""),
        ("one line with\ta tab\n", ""),
        ("[a]\tb\nc\td\n", ""),
        ('{"a": 1; 2}\n{"b": 1; 2}\n', ""),
        ("\tindented\n\tindented\n", "the lines may be rows of columns that are separated by t"),
    ],
)
def test_text_that_only_resembles_a_table_is_shown_as_lines_with_the_reason(
    text: str, reason: str
) -> None:
    preview = shown("a.txt", text.encode())
    assert table(preview) == (("line",), [(line,) for line in text.splitlines()])
    assert len(preview.notes) == bool(reason)
    assert "".join(preview.notes).startswith(reason)


def test_other_texts_are_not_looked_at_for_columns() -> None:
    for name in ("a.log", "a.md", "a.json", "a.py"):
        preview = shown(name, b"a\tb\n1\t2\n")
        assert table(preview) == (("line",), [("a\tb",), ("1\t2",)])
        assert preview.notes == ()


def test_decimal_commas_in_one_column_divide_nothing() -> None:
    preview = shown("a.csv", b"price\n3,50\n-4,25\n7\n1.000,00\n")
    assert table(preview) == (("price",), [("3,50",), ("-4,25",), ("7",), ("1.000,00",)])
    assert preview.format is not None
    assert preview.format.guessed == ("delimiter",)
    assert "commas are taken for those of decimal numbers in one column" in preview.notes


@pytest.mark.parametrize("mark", ["^", "~", "\u00a6"])
def test_rare_delimiter_is_taken_where_no_other_one_divides_the_text(mark: str) -> None:
    preview = preview_text("a.csv", f"id{mark}name\n1{mark}Ann\n".encode(), complete=True)
    assert (preview.columns, list(preview.rows)) == (("id", "name"), [("1", "Ann")])
    assert preview.notes == (f"the columns are separated by {mark!r}",)


@pytest.mark.parametrize("mark", [":", " "])
def test_single_column_that_an_ordinary_character_divides_is_doubted(mark: str) -> None:
    preview = preview_text("a.csv", f"id{mark}name\n1{mark}Ann\n".encode(), complete=True)
    assert preview.columns == (f"id{mark}name",)
    assert preview.notes == (f"the columns may be separated by {mark!r} instead",)
    text = f"name\nAnn{mark}Lee\nBob\n".encode()
    assert preview_text("a.csv", text, complete=True).notes == ()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("<!DOCTYPE html>\n<p>a,b</p>\n", "the file is HTML or XML"),
        ("\n <html><body>\n", "the file is HTML or XML"),
        ("<?xml version='1.0'?>\n<a>1,2</a>\n", "the file is HTML or XML"),
        ('{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "the lines are JSON"),
        ('[1, "x"]\r\n[2, "y"]\r\n', "the lines are JSON"),
    ],
)
def test_what_is_no_table_is_not_shown_as_one(name: str, text: str, note: str) -> None:
    content = text.encode()
    preview = preview_text(
        name, gzip.compress(content) if name.endswith(".gz") else content, complete=True
    )
    assert preview.columns == ("line",)
    assert preview.notes[0].startswith(note)


@pytest.mark.parametrize("header", ["[id],[name]", "{id},b", "<5,>5", "<a>,<b>"])
def test_table_whose_header_begins_like_something_else_is_a_table(header: str) -> None:
    preview = preview_text("a.csv", f"{header}\n1,2\n".encode(), complete=True)
    assert preview.columns == tuple(header.split(","))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Report 2024;;\n\nid;name;v\n1;Ann;2\n", True),
        ("Report,,,\nid,name,v,w\n", True),
        (",,c,d\n1,2,3,4\n", True),
        ("id,name,\n1,Ann,x\n", False),
        ("a,,\n1,,\n", False),
    ],
)
def test_title_above_the_header_is_doubted(text: str, told: bool) -> None:
    preview = preview_text("a.csv", text.encode(), complete=True)
    assert any("it may be a title" in note for note in preview.notes) is told
    assert preview.format is not None
    assert ("header" in preview.format.guessed) is told


def test_quotation_mark_that_is_not_closed_is_told() -> None:
    note = "a quotation mark is not closed: its value goes on to the end of the file"
    assert note in shown("a.csv", b'a,b\n1,"x\n2,y\n3,z\n').notes
    assert note in shown("a.txt", b'a\tb\n1\t"x\n').notes
    assert shown("a.csv", b'a,b\n1,"x\ny"\n2,z"\n').notes == ()
    assert shown("a.csv", b'a,b\n1,"x"').notes == ()


def test_quotation_marks_after_backslashes_are_doubted() -> None:
    note = "quotation marks after a backslash may be parts of the values"
    assert shown("a.csv", b'a,b\n1,"say \\"hello\\" to"\n').notes == (note,)
    assert shown("a.csv", b'a,b\n"C:\\dir\\",1\n"C:\\"\n').notes != (note,)
    assert shown("a.csv", b'a,b\n"C:\\dir\\",1\n').notes == ()


def test_delimiter_that_could_be_another_is_doubted() -> None:
    preview = shown("a.csv", b"a,b;c\n1,2;3\n4,5;6\n")
    assert preview.format is not None
    assert preview.format.guessed == ("delimiter",)
    assert "the columns may be separated by semicolons instead" in preview.notes


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.TAB", "\t"), ("a.psv", "|")])
def test_delimiter_of_the_extension_is_taken_where_it_fits(name: str, mark: str) -> None:
    preview = shown(name, f"a{mark}b,c\n1{mark}2,3\n".encode())
    assert table(preview) == (("a", "b,c"), [("1", "2,3")])
    assert preview.notes == ()


def test_long_values_of_digits_take_no_time_to_speak_of() -> None:
    value = "1" * 60_000 + "x"
    preview = shown("a.csv", f"{value}\n{value}\n".encode())
    assert list(preview.rows) == [(value,)]


def test_rows_of_different_lengths_are_told() -> None:
    preview = shown("a.csv", b"a,b\n1\n1,2,3\n")
    assert table(preview) == (("a", "b"), [("1",), ("1", "2", "3")])
    assert preview.notes == ("the rows have different numbers of columns",)


@pytest.mark.parametrize(
    ("text", "doubted"),
    [
        ("1,Ann\n2,Bob\n", True),
        ("id,name\n1,Ann\n", False),
        ("country,2020,2021\nDE,1,2\nFR,3,4\n", False),
        ("a,b\nx,y\n", False),
        ("1,2\n", False),
    ],
)
def test_first_row_that_looks_like_data_is_told(text: str, doubted: bool) -> None:
    preview = shown("a.csv", text.encode())
    assert preview.format is not None
    assert ("header" in preview.format.guessed) == doubted
    assert any("may have no header" in note for note in preview.notes) == doubted


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n", "\n\n\n", "  \n", "\t\r\n"])
def test_blank_lines_are_no_records(blank: str) -> None:
    preview = shown("a.csv", f"{blank}a,b\n{blank}1,2\n{blank}".encode())
    assert table(preview) == (("a", "b"), [("1", "2")])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("complete", [True, False])
def test_lines_end_with_lf_crlf_or_cr(end: str, complete: bool) -> None:
    content = end.join(["a,b", "1,2", "3,4", "5,6"]).encode()
    expected = [("1", "2"), ("3", "4"), ("5", "6")]
    preview = shown("a.csv", content, complete=complete)
    assert table(preview) == (("a", "b"), expected if complete else expected[:2])
    lines = shown("a.txt", content, complete=complete)
    assert len(lines.rows) == 4 if complete else 3


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1e"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv"])
def test_other_separators_of_unicode_do_not_end_a_line(name: str, mark: str) -> None:
    preview = shown(name, f'"x{mark}y",1\n"b",2\n"c",3\n'.encode())
    assert len(preview.rows) == (2 if name == "a.csv" else 3)


def test_line_longer_than_what_was_read_is_shown_cut() -> None:
    head = b'[{"a": 1}, ' + b'{"a": 2}, ' * 100_000
    preview = shown("a.json", head, complete=False)
    assert len(preview.rows) == 1
    assert head.decode().startswith(preview.rows[0][0])
    assert len(preview.rows[0][0]) == 64 * 1024
    assert preview.truncated
    assert "the last row is cut" in preview.notes[-1]


def test_cut_row_is_left_out_while_more_can_be_read() -> None:
    assert shown("a.json", b"x" * 1000, complete=False, more=True).rows == []
    preview = shown("a.csv", b'a,b\n1,"' + b"x\n" * 1000, complete=False, more=True)
    assert table(preview) == (("a", "b"), [])
    assert table(shown("a.csv", b"a,b,c", complete=False, more=True)) == ((), [])


def test_row_cut_in_a_quoted_field_is_left_out() -> None:
    preview = shown("a.csv", b'a,b\n1,2\n3,"x\ny\n', complete=False)
    assert table(preview) == (("a", "b"), [("1", "2")])


@pytest.mark.parametrize("content", [b"x" * 200_000 + b",b\n1,2\n", b"a,b\n1," + b"x" * 200_000])
def test_value_over_the_limit_of_the_csv_module_is_a_clear_error(content: bytes) -> None:
    expected = (
        r"'a\.csv' cannot be read as delimited text: a field is longer than 131072 characters"
    )
    with pytest.raises(DataFetchError, match=expected):
        shown("a.csv", content)


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,x\0\n2,y\n",
        b"a,b\n1\0,x\n2,y\n",
        b"a,b\n1,x\n2,y\n" + bytes(20),
        b"a,b\n1,x\n2,y\n\x1a",
    ],
)
def test_padding_of_a_table_is_left_out(content: bytes) -> None:
    preview = shown("a.csv", content)
    assert table(preview) == (("a", "b"), [("1", "x"), ("2", "y")])


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b"%PDF-1.4\nsome text\n", "a PDF file"),
        (b"\x89PNG\r\n\x1a\ntext", "an image"),
        (b"\xff\xd8\xff\xe0JFIF", "an image"),
        (b"PK\x03\x04text", "a ZIP archive"),
        (b"SQLite format 3\0", "a SQLite database"),
        (b"\0\1", "not a text file"),
        (bytes(range(32)) * 4, "not a text file"),
        (b"\x01\x02\x03\x04\x05text", "not a text file"),
        (bytes(range(1, 256)).translate(None, b"\t\n\v\f\r\x1a\x1b"), "not a text file"),
        (bytes(100) + b"few", "not a text file"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a"])
def test_file_that_is_no_text_is_refused(name: str, content: bytes, description: str) -> None:
    with pytest.raises(DataFetchError, match=f"'{name}' is not a text file.*") as caught:
        shown(name, content)
    assert description in str(caught.value)


@pytest.mark.parametrize("text", ["ORC,b\n1,2\n", "имя,b\n1,2\n" * 50, "Ā,b\nāĂ,2\n" * 50])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_text_that_resembles_a_binary_file_is_shown(text: str, encoding: str) -> None:
    assert len(shown("a.csv", text.encode(encoding)).columns) == 2


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "a.csv.gz": gzip.compress,
    "a.csv.bz2": bz2.compress,
    "a.csv.xz": lzma.compress,
    "a.csv": gzip.compress,
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_table_is_shown(name: str) -> None:
    compress = COMPRESSED[name]
    preview = shown(name, compress(b"a;b\n1;2\n"))
    assert table(preview) == (("a", "b"), [("1", "2")])
    members = compress(b"a;b\n") + compress(b"1;2\n") + compress(b"3;4\n")
    assert table(shown(name, members)) == (("a", "b"), [("1", "2"), ("3", "4")])
    long = compress(b"a;b\n" + b"1;2\n" * 500_000)
    cut = shown(name, long[: len(long) // 2], complete=False)
    if not name.endswith(("bz2", "xz")):  # their blocks are larger than the half
        assert (len(cut.rows) > 0, cut.truncated) == (True, True)


def test_content_encoding_around_a_compressed_file_is_undone_as_well() -> None:
    stored = gzip.compress(gzip.compress(b"a,b\n1,2\n"))
    preview = shown("t.csv.gz", stored, content_encoding="gzip")
    assert table(preview) == (("a", "b"), [("1", "2")])
    once = shown("t.csv.gz", gzip.compress(b"a,b\n1,2\n"), content_encoding="gzip")
    assert table(once) == (("a", "b"), [("1", "2")])


def test_damaged_compressed_file_is_a_clear_error() -> None:
    data = gzip.compress(b"a,b\n" * 1000)
    with pytest.raises(DataFetchError, match=r"'a\.csv\.gz' is not gzip"):
        shown("a.csv.gz", data[:12] + b"\xff" * 20)


def test_compressed_file_that_grows_without_end_is_read_to_a_bound() -> None:
    preview = shown("a.txt.gz", gzip.compress(b"x" * 50_000_000))
    assert (len(preview.rows), preview.truncated) == (1, True)


def test_empty_file_has_no_columns_and_no_rows() -> None:
    assert table(shown("a.csv", b"")) == ((), [])
    assert table(shown("a.txt", b"")) == (("line",), [])


def test_file_is_shown_by_what_is_in_it() -> None:
    preview = preview_file(io.BytesIO(b"a,b\n" + b"1,2\n" * 1_000_000), "a.csv", 3)
    assert (len(preview.rows), preview.truncated) == (3, True)
    whole = preview_file(io.BytesIO(b"a,b\n1,2\n"), "a.csv", 3)
    assert (len(whole.rows), whole.truncated) == (1, False)


@pytest.mark.parametrize(("rest", "truncated"), [(b"", False), (b"x", True)])
def test_file_larger_than_the_mebibyte_that_is_read_is_truncated(
    rest: bytes, truncated: bool
) -> None:
    content = (b"x" * 1023 + b"\n") * 1024 + rest
    preview = preview_file(io.BytesIO(content), "a.txt", 2000)
    assert (len(preview.rows), preview.truncated) == (1024, truncated)
