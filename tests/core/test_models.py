"""Plain data check themselves: what a host, a file or an import gives may be anything."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from datasources import (
    DataSourceConfig,
    DataSourceRegistry,
    DataSourceType,
    Limits,
    OptionError,
    Policy,
    PoolConfig,
)
from datasources.models import fill
from tests.core.fakes import MemoryConnector, registry_of

NO_NUMBERS = [math.nan, True, "1", None, [1]]
TOO_LARGE = 10**400  # for a float


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, 1.0, 1.5, math.inf])
@pytest.mark.parametrize("name", ["max_size", "connect_attempts"])
def test_a_pool_has_whole_numbers_of_connections_and_attempts(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"'{name}' must be a whole number of at least 1"):
        PoolConfig(**{name: value})


@pytest.mark.parametrize("value", [math.nan, True, "1", None, -1, 0.5, 11])
def test_the_least_size_of_a_pool_is_a_whole_number_up_to_the_largest(value: Any) -> None:
    with pytest.raises(OptionError, match="'min_size' must be a whole number between 0 and"):
        PoolConfig(max_size=10, min_size=value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, TOO_LARGE, 0, -1])
@pytest.mark.parametrize(
    "name", ["max_idle_time", "acquire_timeout", "max_lifetime", "connect_timeout"]
)
def test_the_times_of_a_pool_are_seconds_above_zero(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"'{name}' must be a number of seconds of more than 0"):
        PoolConfig(**{name: value})


@pytest.mark.parametrize("name", ["max_bytes", "max_rows"])
@pytest.mark.parametrize("value", [math.nan, True, "1", 1.5, -1, [1]])
def test_limits_on_bytes_and_rows_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"'{name}' must be a whole number of at least 0"):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [math.nan, True, "1", -0.1, [1], TOO_LARGE])
def test_the_limit_on_time_is_a_number_of_seconds(value: Any) -> None:
    with pytest.raises(OptionError, match="'timeout' must be a number of seconds of at least 0"):
        Limits(timeout=value)


def test_limits_can_be_lifted_or_infinite() -> None:
    assert Limits(max_bytes=None, max_rows=None, timeout=None).timeout is None
    assert Limits(max_bytes=0, max_rows=0, timeout=math.inf).timeout == math.inf
    assert PoolConfig(max_lifetime=math.inf, acquire_timeout=1).acquire_timeout == 1


@pytest.mark.parametrize("value", [*NO_NUMBERS, TOO_LARGE])
def test_metadata_is_cached_for_a_number_of_seconds(value: Any) -> None:
    with pytest.raises(OptionError, match="'cache_ttl' must be a number of seconds"):
        DataSourceRegistry(cache_ttl=value)


@pytest.mark.parametrize("rules", ["*.example.com", b"x", 3, [3], {"a": "b"}, iter("ab")])
def test_rules_of_a_policy_are_lists_of_texts(rules: Any) -> None:
    with pytest.raises(OptionError, match="'allowed_hosts' must be a list of texts"):
        Policy(allowed_hosts=rules)


def test_limits_of_a_policy_are_limits() -> None:
    with pytest.raises(OptionError, match="'limits' must be an instance of Limits"):
        Policy(limits={"max_rows": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "place must be a table of max_bytes, max_rows, timeout"),
        ({"rows": 1}, "place: unknown 'rows'; accepted: max_bytes, max_rows, timeout"),
        ({1: 1}, "place: unknown 1; accepted"),
        ({"max_rows": "secret"}, "place: 'max_rows' must be a whole number of at least 0, or none"),
    ],
)
def test_a_table_that_does_not_fit_is_told_with_its_place(values: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        fill(Limits, values, "place")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


WRONG_FIELDS = [
    ("id", None, "the id of a source must be text, not NoneType"),
    ("id", 5, "the id of a source must be text, not int"),
    ("id", "../x", "'../x' is not a source id"),
    ("type", None, "None is not a type name"),
    ("name", None, "source 's': 'name' must be text, not NoneType"),
    ("name", "caf\udce9", "source 's': 'name' has a character that is no text"),
    ("config", None, "source 's': 'config' must be a dict with texts as keys"),
    ("config", [("secret", "m4rker")], "source 's': 'config' must be a dict"),
    ("config", {1: "m4rker"}, "source 's': 'config' must be a dict with texts as keys"),
    ("metadata", None, "source 's': 'metadata' must be a dict"),
    ("metadata", [], "source 's': 'metadata' must be a dict"),
    ("metadata", "text", "source 's': 'metadata' must be a dict"),
    ("created_at", None, "source 's': 'created_at' must be a number, of Unix seconds"),
    ("created_at", "2026-01-01", "source 's': 'created_at' must be a number"),
    ("created_at", datetime(2026, 1, 1, tzinfo=UTC), "source 's': 'created_at' must be a number"),
    ("created_at", math.nan, "source 's': 'created_at' must be a number"),
    ("created_at", math.inf, "source 's': 'created_at' must be a number"),
    ("limits", {"max_rows": 5}, "source 's': 'limits' must be an instance of Limits, or None"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG_FIELDS)
def test_a_configuration_with_a_field_of_another_type_is_refused(
    name: str, value: Any, message: str
) -> None:
    fields: dict[str, Any] = {"id": "s", "type": "memory", "name": "S", "config": {}}
    with pytest.raises(OptionError) as caught:
        DataSourceConfig(**fields | {name: value})
    assert message in str(caught.value)
    assert "m4rker" not in str(caught.value)


@pytest.mark.parametrize(("name", "value", "message"), WRONG_FIELDS)
async def test_a_field_set_to_another_type_is_refused_and_nothing_is_stored(
    name: str, value: Any, message: str
) -> None:
    if name == "type":
        message = "source 's': 'type' must be a DataSourceType"
    config = DataSourceConfig("s", "memory", "S", {})
    setattr(config, name, value)
    async with registry_of(MemoryConnector) as registry:
        for replace in (False, True):
            with pytest.raises(OptionError) as caught:
                await registry.register_data_source(config, replace=replace)
            assert message in str(caught.value)
        assert registry.list_data_sources() == []


def test_a_plain_name_becomes_a_type() -> None:
    assert type(DataSourceConfig("s", "memory", "S", {}).type) is DataSourceType
