"""Every walker over nested options enters the same containers."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, Secret, SecretStr

from datasources import ConnectorOptions, CredentialManager, OptionError, Policy, PolicyError
from datasources.credentials import resolve_references
from datasources.nested import leaves, map_leaves
from datasources.redaction import MARK
from datasources.transfer import _masked


@dataclasses.dataclass
class Plain:
    part: Any


@dataclasses.dataclass(slots=True)
class Slotted:
    part: Any


class Named(NamedTuple):
    part: Any


class Model(BaseModel):
    part: Any


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


CONTAINERS = {
    "dict": lambda part: {"key": part},
    "list": lambda part: [part],
    "tuple": lambda part: (part,),
    "named tuple": Named,
    "deque": lambda part: deque([part]),
    "dataclass": Plain,
    "dataclass with slots": Slotted,
    "model": lambda part: Model(part=part),
    "extra field of a model": lambda part: Open.model_validate({"extra": part}),
}
LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
NESTED = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.lists(parts, max_size=3).map(deque),
        st.frozensets(LEAVES, max_size=3),
        st.dictionaries(st.text(), parts, max_size=3),
        parts.map(Plain),
        parts.map(Slotted),
        parts.map(Named),
        parts.map(lambda part: Model(part=part)),
        parts.map(lambda part: Open.model_validate({"extra": part})),
    ),
    max_leaves=12,
)


@given(NESTED)
def test_mapping_visits_the_leaves_in_their_order(value: Any) -> None:
    visited: list[Any] = []
    map_leaves(value, visited.append)
    assert visited == list(leaves(value))


@given(NESTED)
def test_a_mapped_copy_has_the_new_leaves_in_the_same_places(value: Any) -> None:
    copy = map_leaves(value, lambda leaf: f"new {leaf!r}")
    assert list(leaves(copy)) == [f"new {leaf!r}" for leaf in leaves(value)]
    assert json.loads(json.dumps(copy)) == copy


def test_keys_are_not_leaves() -> None:
    assert list(leaves({"key": {"inner": 1}})) == [1]


def test_texts_secrets_and_classes_are_leaves() -> None:
    values = ["text", b"bytes", SecretStr("s"), Secret([1]), Plain, Model, object()]
    assert list(leaves(values)) == values


def test_a_circle_ends() -> None:
    circle: list[Any] = [1]
    circle.append({"again": circle})
    assert list(leaves(circle)) == [1]


def test_depth_has_no_limit() -> None:
    value: Any = "deep"
    for _ in range(100_000):
        value = [value]
    assert list(leaves(value)) == ["deep"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_walker_passes_over_a_container(name: str) -> None:
    container = CONTAINERS[name]

    class Options(ConnectorOptions):
        given: Any = None

    assert Options(given=container(SecretStr("hidden"))).secret_values() == ["hidden"]
    with pytest.raises(OptionError, match="comes from a masked copy"):
        Options.check({"given": container(MARK)})
    with pytest.raises(PolicyError, match="may not refer to 'vault:x'"):
        Policy(allowed_references=()).check_references("s", {"given": container("${vault:x}")})
    resolved = resolve_references({"given": container("${vault:x}")}, lambda *_: "told")
    assert list(leaves(resolved)) == ["told"]
    assert _masked(container(MARK))


def test_secrets_in_a_secret_container_are_told_one_by_one() -> None:
    class Options(ConnectorOptions):
        tokens: Secret[list[str]]

    options = Options.load({"tokens": ["first", "second"]})
    assert options.secret_values() == ["first", "second"]


def test_a_reference_in_a_set_is_checked_by_the_policy() -> None:
    with pytest.raises(PolicyError):
        Policy(allowed_references=()).check_references("s", {"hosts": {"${vault:x}"}})


def test_circular_options_are_refused_at_rest() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(OptionError):
        CredentialManager(CredentialManager.generate_key()).encrypt_credentials(circle)
