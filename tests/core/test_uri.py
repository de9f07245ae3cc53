"""The URI of an item: read and written by one class, strictly."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from datasources import OptionError, SourceURI

SOURCES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
ITEMS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
FORMATS = st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(SOURCES, ITEMS, FORMATS)
def test_each_item_is_read_back_from_its_uri(source: str, item: str, format_: str | None) -> None:
    uri = SourceURI(source, item, format_)
    text = str(uri)
    assert SourceURI.parse(text) == uri
    assert re.fullmatch(r"datasource://[A-Za-z0-9._-]+/[A-Za-z0-9._~/%-]+(\?format=[\w.-]+)?", text)
    assert not {"", ".", ".."} & set(text.removeprefix("datasource://").split("?")[0].split("/"))


@given(SOURCES, st.text(min_size=1))
def test_what_can_be_read_is_written_as_the_same_item(source: str, rest: str) -> None:
    try:
        uri = SourceURI.parse(f"datasource://{source}/{rest}")
    except OptionError:
        return
    assert SourceURI.parse(str(uri)) == uri


@given(st.text())
def test_any_text_is_a_uri_or_an_option_error(text: str) -> None:
    for candidate in (text, f"datasource://{text}", f"datasource://s/{text}"):
        try:
            SourceURI.parse(candidate)
        except OptionError as exc:
            assert len(exc.args[0].splitlines()) == 1  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("datasource://lake/a%2Fb.csv?format=parquet", SourceURI("lake", "a/b.csv", "parquet")),
        ("datasource://lake/2026/a.csv", SourceURI("lake", "2026/a.csv")),
        ("datasource://lake//a.csv", SourceURI("lake", "/a.csv")),
        ("datasource://lake/100%25.csv", SourceURI("lake", "100%.csv")),
        ("datasource://lake/a+b.csv", SourceURI("lake", "a+b.csv")),
        ("datasource://lake/%C3%A4.csv", SourceURI("lake", "ä.csv")),
        ("datasource://lake/ä.csv", SourceURI("lake", "ä.csv")),
        ("datasource://lake/a%3Fformat=csv", SourceURI("lake", "a?format=csv")),
        ("datasource://shop/select%201%0Afrom%20t", SourceURI("shop", "select 1\nfrom t")),
    ],
)
def test_examples_are_read(text: str, uri: SourceURI) -> None:
    assert SourceURI.parse(text) == uri


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "starts with"),
        ("http://lake/a", "starts with"),
        ("datasource:/lake/a", "starts with"),
        ("datasource:///a", "not a source id"),
        ("datasource://lake", "SOURCE/ITEM"),
        ("datasource://lake/", "SOURCE/ITEM"),
        ("datasource://lake/?format=csv", "SOURCE/ITEM"),
        ("datasource://lake?format=csv", "SOURCE/ITEM"),
        ("datasource://user@lake/a", "not a source id"),
        ("datasource://lake:1/a", "not a source id"),
        ("datasource://l%61ke/a", "not a source id"),
        ("datasource://lake/a#b", "fragment"),
        ("datasource://lake/a%", "hexadecimal"),
        ("datasource://lake/a%2", "hexadecimal"),
        ("datasource://lake/a%zz", "hexadecimal"),
        ("datasource://lake/%ff", "UTF-8"),
        ("datasource://lake/%ED%A0%80", "UTF-8"),
        ("datasource://lake/\ud800", "surrogates"),
        ("datasource://lake/a\nb", "control"),
        ("datasource://lake/a\x7f", "control"),
        ("datasource://lake/a?", "'format' only"),
        ("datasource://lake/a?rows=1", "'format' only"),
        ("datasource://lake/a?format=csv&rows=1", "'format' only"),
        ("datasource://lake/a?format=csv&format=csv", "twice"),
        ("datasource://lake/a?format=", "no format"),
        ("datasource://lake/a?format=c/v", "no format"),
        ("datasource://lake/a?format=csv?x", "no format"),
    ],
)
def test_what_is_no_uri_of_an_item_is_refused(text: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        SourceURI.parse(text)


@pytest.mark.parametrize("item", ["", "\ud800", "a\udfffb"])
def test_an_item_without_a_uri_is_refused(item: str) -> None:
    with pytest.raises(OptionError):
        SourceURI("lake", item)
