"""The reference has every public name, hook, option and check, and nothing that is none."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pluggy
import pytest

import datasources
import datasources.objects
import datasources.testing
from datasources.plugins import Plugins, hookspecs
from datasources.plugins.hookspecs import PROJECT
from tests.docs.blocks import DOCS, python_blocks

REFERENCE = {page.stem: page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")}
DOCUMENTED = re.compile(r"^\.\. [\w:]+:: (datasources[\w.]*)$", re.MULTILINE)
HOOKS = [name for name in vars(hookspecs) if name.startswith("datasources_")]


def documented(prefix: str) -> list[str]:
    """Return the names right below a module that the reference documents."""
    found = [name for page in REFERENCE.values() for name in DOCUMENTED.findall(page)]
    return sorted(n.removeprefix(prefix) for n in found if re.fullmatch(rf"{prefix}[A-Za-z_]+", n))


def test_every_public_name_is_documented_once() -> None:
    modules = {"blocking", "config", "errors"}
    assert [n for n in documented("datasources.") if n not in modules] == datasources.__all__


def test_every_name_of_the_object_kit_is_documented() -> None:
    assert documented("datasources.objects.") == sorted(datasources.objects.__all__)


def test_every_name_of_the_test_kit_is_documented() -> None:
    assert documented("datasources.testing.") == sorted(datasources.testing.__all__)


def test_every_hook_is_documented() -> None:
    assert documented("datasources.plugins.hookspecs.") == sorted(HOOKS)


@pytest.fixture(scope="module")
def examples() -> dict[str, inspect.Signature]:
    """The signature of each hook as the page's examples implement it."""
    names: dict[str, object] = {}
    for code in python_blocks(DOCS / "reference" / "hooks.md"):
        if "await" not in code:
            exec(compile(code, "hooks.md", "exec"), names)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for cls in filter(inspect.isclass, names.values()):
        if any(name in HOOKS for name in vars(cls)):
            manager.register(cls())
    manager.check_pending()
    return {
        name: inspect.signature(implementation.function)
        for name in HOOKS
        for implementation in getattr(manager.hook, name).get_hookimpls()
    }


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_example_with_all_its_arguments(
    hook: str, examples: dict[str, inspect.Signature]
) -> None:
    wanted = list(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert list(examples[hook].parameters) == wanted


def connectors() -> Iterator[str]:
    """Return the types that this repository's plugins offer."""
    for path in (Path(__file__).parent.parent.parent / "plugins").glob("*/pyproject.toml"):
        entry_points = tomllib.loads(path.read_text("utf-8"))["project"]["entry-points"]
        yield from entry_points["datasources.connectors"]


@pytest.mark.parametrize("kind", sorted(connectors()))
def test_every_connector_has_its_options_documented(kind: str) -> None:
    assert f"\n```{{options}} {kind}\n```\n" in REFERENCE["options"]
    options_class = Plugins().connector_class(kind).options_class
    assert options_class
    for name, info in options_class.fields():
        assert info.description, f"option {name!r} of {kind} has no description"
