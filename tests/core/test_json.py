"""Models and errors as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

import datasources
from datasources import (
    ColumnStatistics,
    ConnectError,
    ConnectionCheck,
    DataItem,
    DataSourceConfig,
    DataSourceError,
    FetchReceipt,
    FetchRequest,
    FetchResult,
    ItemNotFoundError,
    Limits,
    OptionError,
    PoolConfig,
    Preview,
    QueryParameter,
    Rotation,
    Split,
    StoredQuery,
    TextFormat,
)
from datasources.json_models import JsonModel
from datasources.json_values import to_json_value

EPOCH = datetime(1980, 1, 1, tzinfo=UTC)
TEXT = st.text(max_size=20)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
WHOLE = st.integers(0, 2**60)
OPTIONAL = st.none() | TEXT
TIMES = st.integers(0, 2**52).map(lambda n: EPOCH + timedelta(microseconds=n))
SECONDS = TIMES.map(datetime.timestamp)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(TEXT, JSON_VALUES, max_size=3)
LIMITS = st.builds(Limits, st.none() | WHOLE, st.none() | WHOLE, st.none() | st.floats(0, 1e9))
RECEIPTS = st.builds(
    FetchReceipt,
    TEXT,
    TEXT,
    TEXT,
    WHOLE,
    TEXT,
    st.none() | WHOLE,
    st.booleans(),
    OPTIONAL,
    TIMES,
    st.floats(0, 1e9),
    st.booleans(),
)
REQUESTS = st.builds(FetchRequest, IDS, TEXT, OPTIONAL, OPTIONAL)
FORMATS = st.builds(TextFormat, TEXT, OPTIONAL, OPTIONAL, st.lists(TEXT, max_size=3).map(tuple))
ROWS = st.lists(st.lists(JSON_VALUES, max_size=3).map(tuple), max_size=3)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
PARAMETERS = st.builds(
    QueryParameter,
    st.just("text"),
    st.just(False),
    st.none() | st.just("a"),
    TEXT,
    st.just(()) | st.just(("a", "b")),
)
MODELS: dict[type[JsonModel], st.SearchStrategy[Any]] = {
    Limits: LIMITS,
    QueryParameter: PARAMETERS,
    StoredQuery: st.builds(
        StoredQuery,
        st.just("SELECT :x"),
        st.dictionaries(st.just("x"), PARAMETERS),
        st.just("A query"),
    ),
    FetchReceipt: RECEIPTS,
    FetchRequest: REQUESTS,
    TextFormat: FORMATS,
    DataItem: st.builds(
        DataItem, TEXT, TEXT, st.none() | WHOLE, st.none() | SECONDS, TABLES, OPTIONAL
    ),
    FetchResult: st.builds(FetchResult, REQUESTS, RECEIPTS),
    Preview: st.builds(Preview, NAMES, ROWS, st.booleans(), st.none() | FORMATS, NAMES),
    ColumnStatistics: st.builds(
        ColumnStatistics,
        WHOLE,
        WHOLE,
        JSON_VALUES,
        JSON_VALUES,
        st.none() | st.floats(allow_nan=False),
        st.booleans(),
    ),
    ConnectionCheck: st.builds(ConnectionCheck, st.just(True), st.floats(0, 1e9)),
    Split: st.builds(Split, IDS, TEXT, WHOLE, WHOLE, TABLES, OPTIONAL, st.none() | WHOLE),
    Rotation: st.builds(Rotation, WHOLE, st.dictionaries(IDS, TEXT, max_size=3)),
    PoolConfig: st.builds(PoolConfig, st.integers(1, 9), st.just(0)),
    DataSourceConfig: st.builds(
        DataSourceConfig,
        IDS,
        st.just("kit"),
        TEXT,
        st.just({"host": "h", "port": [1, None]}),
        SECONDS,
        TABLES,
        st.none() | LIMITS,
    ),
}


@given(st.one_of(*MODELS.values()))
def test_a_model_is_read_back_from_its_json(model: JsonModel) -> None:
    text = json.dumps(model.to_dict(), allow_nan=False)
    assert type(model).from_dict(json.loads(text)) == model


@given(st.one_of(*MODELS.values()), st.text(max_size=5), JSON_VALUES)
def test_a_damaged_model_is_an_option_error_that_quotes_no_value(
    model: JsonModel, name: str, value: Any
) -> None:
    damaged = model.to_dict()
    damaged[name or next(iter(damaged))] = value
    with suppress(OptionError):
        type(model).from_dict(damaged)


def test_every_model_of_a_host_is_tested() -> None:
    exported = {getattr(datasources, name) for name in datasources.__all__}
    models = {x for x in exported if isinstance(x, type) and issubclass(x, JsonModel)}
    assert models == MODELS.keys()


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"\x00\xff", r"\x00ff"),
        (memoryview(b"a"), r"\x61"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (Decimal("1.10"), "1.10"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ((1, {2}), [1, [2]]),
        ({1: None}, {"1": None}),
        (True, True),
    ],
)
def test_values_have_one_form(value: Any, form: Any) -> None:
    assert to_json_value(value) == form
    assert Preview(("x",), [(value,)], truncated=False).to_dict()["rows"] == [[form]]


def test_secrets_in_options_are_masked() -> None:
    config = DataSourceConfig("s", "kit", "S", {"password": "open-sesame-4711", "host": "h"})
    assert "sesame" not in json.dumps(config.to_dict())
    assert config.config["password"] == "open-sesame-4711"


def test_an_unknown_or_missing_field_is_named() -> None:
    with pytest.raises(OptionError, match="unknown 'max_row'; accepted: max_bytes"):
        Limits.from_dict({"max_row": 1})
    with pytest.raises(OptionError, match="FetchRequest: 'source_id', 'identifier' is missing"):
        FetchRequest.from_dict({})


def test_an_unexpected_error_is_shown_without_its_text() -> None:
    result = FetchResult(FetchRequest("s", "a"), error=ValueError("open-sesame-4711"))
    assert result.to_dict()["error"] == {
        "slug": "unexpected-error",
        "message": "unexpected ValueError",
        "http_status": 500,
        "retryable": False,
    }


def error_classes() -> list[type[DataSourceError]]:
    exported = [getattr(datasources, name) for name in datasources.__all__]
    return [x for x in exported if isinstance(x, type) and issubclass(x, DataSourceError)]


@pytest.mark.parametrize("error_class", error_classes())
def test_an_error_is_read_back_from_its_json(error_class: type[DataSourceError]) -> None:
    error = error_class("it is so")
    read = DataSourceError.from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(read) is error_class
    assert read.to_dict() == error.to_dict()


def test_slugs_are_distinct_and_statuses_are_errors() -> None:
    slugs = [error_class.slug for error_class in error_classes()]
    assert len(set(slugs)) == len(slugs)
    assert all(400 <= error_class.http_status < 600 for error_class in error_classes())


def test_the_code_of_a_connectors_error_is_kept() -> None:
    read = DataSourceError.from_dict(ConnectError("no", code="08006").to_dict())
    assert isinstance(read, ConnectError)
    assert read.code == "08006"


def test_an_error_of_a_later_version_keeps_its_slug() -> None:
    values = {"slug": "of-tomorrow", "message": "m", "http_status": 418, "retryable": True}
    assert DataSourceError.from_dict(values).to_dict() == values


def test_a_mean_that_no_float_can_hold_is_read_back() -> None:
    figures = ColumnStatistics(1, 0, 1, 1, cast("Any", Decimal("1e400")))
    assert ColumnStatistics.from_dict(figures.to_dict()) == figures
    with pytest.raises(OptionError):
        ColumnStatistics.from_dict(figures.to_dict() | {"mean": "much"})


def test_a_check_and_a_result_with_an_error_are_read_back() -> None:
    check = ConnectionCheck(False, 0.5, ItemNotFoundError("gone", code="404"))
    assert ConnectionCheck.from_dict(check.to_dict()).to_dict() == check.to_dict()


DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_the_documented_models_are_those_of_the_code() -> None:
    documented: dict[str, list[str]] = {}
    model = ""
    for name, field in re.findall(
        r"^\| (`\w+`)? ?\| `(\w+)` \|", (DOCS / "json.md").read_text(), re.MULTILINE
    ):
        model = name.strip("`") or model
        documented.setdefault(model, []).append(field)
    code = {m.__name__: [f.name for f in dataclasses.fields(cast("Any", m))] for m in MODELS}
    assert documented == code | {"Page": ["items", "cursor"]}


def test_the_documented_slugs_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `([\w-]+)` \| (\d+) \| (\w+) \|$",
        (DOCS / "errors.md").read_text(),
        re.MULTILINE,
    )
    assert rows == [
        (c.__name__, c.slug, str(c.http_status), "yes" if c.retryable else "no")
        for c in error_classes()
    ]
