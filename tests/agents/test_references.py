"""References are the file parts of the last message of the user, and one field; nothing else is."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from datasources import DataSourceError
from datasources_agents import Reference, ReferencesError, references_in, without_references

URI = "datasource://lake/a%2Fb.csv?format=parquet"
QUESTION = {"type": "text", "text": "How much did we sell?"}


def file(uri: Any = URI) -> dict[str, Any]:
    return {"type": "file", "file": {"file_id": uri}}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def pointers(body: Any, **options: Any) -> list[str]:
    with pytest.raises(ReferencesError) as caught:
        references_in(body, **options)
    assert caught.value.http_status == 422
    assert {failure.slug for failure in caught.value.failures} == {"reference-invalid"}
    return [failure.pointer for failure in caught.value.failures]


def test_file_parts_and_the_field_are_references_and_are_removed() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    other = file("file-123")
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            user(QUESTION, file(), other, image),
        ],
        "data_sources": [{"source": "shop", "item": "select 1"}],
    }
    before = copy.deepcopy(body)
    assert references_in(body) == [
        Reference("shop", "select 1", None, "#/data_sources/0"),
        Reference("lake", "a/b.csv", "parquet", "#/messages/1/content/1/file/file_id"),
    ]
    messages = [body["messages"][0], user(QUESTION, other, image)]
    assert without_references(body) == {"model": "m", "messages": messages}
    assert body == before


def test_item_that_is_named_twice_is_one_reference() -> None:
    field = [{"source": "lake", "item": "a/b.csv", "format": "parquet"}]
    body = {"messages": [user(file(), file())], "data_sources": field}
    assert len(references_in(body)) == 1


def test_text_older_messages_answers_and_results_of_tools_name_nothing() -> None:
    body = {
        "messages": [
            user(QUESTION, file()),
            {"role": "assistant", "content": [file()], "tool_calls": []},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": URI}]},
            {"role": "user", "content": f"Read {URI}, please."},
            {"role": "tool", "tool_call_id": "2", "content": [file()]},
            {"role": "system", "content": [file()]},
        ]
    }
    assert references_in(body) == []
    assert json.dumps(without_references(body)).count("file_id") == 0


def test_uris_in_the_text_of_the_user_are_references_where_the_host_says_so() -> None:
    texts = f"See <{URI}>, ({URI}) and {URI}."
    for content in (texts, [{"type": "text", "text": texts}]):
        body = {
            "messages": [user(file("datasource://lake/old")), {"role": "user", "content": content}]
        }
        assert [reference.item for reference in references_in(body, in_text=True)] == ["a/b.csv"]


def test_message_of_references_alone_keeps_a_part() -> None:
    [message] = without_references({"messages": [user(file())]})["messages"]
    assert [part["type"] for part in message["content"]] == ["text"]


@pytest.mark.parametrize(
    "uri",
    [
        "datasource://",
        "datasource://lake",
        "datasource://lake/",
        "datasource:lake/a.csv",
        "DATASOURCE://lake/a.csv",
        " datasource://lake/a.csv",
        "datasource://l@ke/a.csv",
        "datasource://lake/a.csv#x",
        "datasource://lake/a.csv?format=csv&format=csv",
        "datasource://lake/a.csv?rows=1",
        "datasource://lake/%zz",
        "datasource://lake/%ff",
        "datasource://lake/a\nb",
        "datasource://lake/\ud800",
    ],
)
def test_malformed_uri_is_refused_and_not_repeated(uri: str) -> None:
    body = {"messages": [user(file(f"{uri}"))]}
    assert pointers(body) == ["#/messages/0/content/0/file/file_id"]
    with pytest.raises(ReferencesError) as caught:
        references_in(body)
    assert uri not in str(caught.value).replace("'datasource://SOURCE/ITEM'", "")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        URI[1:],
        [],
        {},
        {"source": "lake"},
        {"source": "lake", "item": ""},
        {"source": "lake", "item": 1},
        {"source": 1, "item": "a"},
        {"source": "la ke", "item": "a"},
        {"source": "lake", "item": "a", "format": 1},
        {"source": "lake", "item": "a", "format": "a b"},
        {"source": "lake", "item": "\udfff"},
        {"source": "lake", "item": "a", "rows": 1},
    ],
    ids=range(13),
)
def test_malformed_entry_is_refused(entry: Any) -> None:
    assert pointers({"messages": [], "data_sources": [entry]}) == ["#/data_sources/0"]


def test_all_malformed_references_are_told_at_once() -> None:
    body = {
        "messages": [user(file("datasource://x"), file(), file("datasource://y"))],
        "data_sources": [1],
    }
    assert pointers(body) == [
        "#/data_sources/0",
        "#/messages/0/content/0/file/file_id",
        "#/messages/0/content/2/file/file_id",
    ]
    assert pointers({"messages": [], "data_sources": "datasource://x"}) == ["#/data_sources"]


def test_references_are_ten_at_most() -> None:
    field = [{"source": "lake", "item": f"{number}.csv"} for number in range(11)]
    assert len(references_in({"data_sources": field[:10]})) == 10
    assert pointers({"data_sources": field}) == ["#"]
    assert pointers({"data_sources": [1] * 1000}, maximum=2) == [
        "#/data_sources/0",
        "#/data_sources/1",
        "#",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(URI),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "file", "file_id", "data_sources", "text"]
            )
            | st.text(),
            inner,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["messages", "data_sources", "model"]), JSON), st.booleans())
def test_any_body_gives_references_or_an_error(body: dict[str, Any], in_text: bool) -> None:
    before = copy.deepcopy(body)
    with suppress(ReferencesError):
        references_in(body, in_text=in_text)
    without_references(body)
    assert body == before


def test_error_is_read_back_from_json() -> None:
    with pytest.raises(ReferencesError) as caught:
        references_in({"data_sources": [1]})
    values = caught.value.to_dict()
    error = DataSourceError.from_dict(json.loads(json.dumps(values)))
    assert (error.slug, error.http_status, error.retryable) == ("references-failed", 422, False)
