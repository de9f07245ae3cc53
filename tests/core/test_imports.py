"""What `import datasources` does not do, and that every public name is there."""

from __future__ import annotations

import ast
import json
import pkgutil
from pathlib import Path

import pytest

import datasources
from tests.core.plugin_fixtures import Site
from tests.core.subprocesses import run_python

QUIET_IMPORT = """
import json, os, sys, sysconfig
stdlib = sysconfig.get_path("stdlib")
before, opened, asked = set(sys.modules), [], []

class Environment(dict):
    def __getitem__(self, name):
        asked.append(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        asked.append(name)
        return super().get(name, default)

os.environ = Environment(os.environ)
os.getenv = os.environ.get
sys.dont_write_bytecode = True
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import datasources
imported = sorted(set(sys.modules) - before)
own = stdlib + os.sep, datasources.__path__[0] + os.sep
print(json.dumps([imported, asked, [path for path in opened if not path.startswith(own)]]))
"""


def test_importing_the_package_reads_nothing_but_modules(site: Site) -> None:
    site.observer("loud", "raise AssertionError")
    imported, asked, opened = json.loads(run_python(QUIET_IMPORT, PYTHONPATH=str(site.path)))
    assert asked == []
    assert opened == []
    assert {name for name in imported if name.startswith("datasources")} == {"datasources"}
    assert len(imported) <= 2, imported  # `import pluggy` takes a hundred
    drivers = {"psycopg", "psycopg_pool", "azure", "aiohttp"}
    heavy = {"pydantic", "cryptography", "asyncio", "sqlite3", "importlib_metadata", "logging"}
    assert not (heavy | drivers | {"click", "rich", "loud"}) & set(imported)


CHEAP = {
    "DataSourceConfig": {"pydantic", "cryptography", "asyncio", "sqlite3", "pluggy"},
    "DataSourceConnector": {"pydantic", "cryptography", "asyncio", "sqlite3", "pluggy"},
    "DataSourceError": {"pydantic", "cryptography", "asyncio", "dataclasses", "pluggy"},
    "hookimpl": {"pydantic", "cryptography", "asyncio", "importlib_metadata"},
    "MemoryStore": {"pydantic", "cryptography", "sqlite3"},
    "DataSourceRegistry": {"pydantic", "sqlite3", "psycopg", "azure", "click"},
}


@pytest.mark.parametrize("name", CHEAP)
def test_a_name_imports_only_what_it_needs(name: str) -> None:
    program = f"import sys; from datasources import {name}; print(*sorted(sys.modules))"
    assert not CHEAP[name] & set(run_python(program).split())


def test_no_part_of_core_configures_logging() -> None:
    program = """
import importlib, logging, pkgutil, datasources
for module in pkgutil.iter_modules(datasources.__path__, "datasources."):
    if module.name not in {"datasources.cli", "datasources.testing"}:
        importlib.import_module(module.name)
ours = [log for name, log in logging.root.manager.loggerDict.items() if name[:11] == "datasources"]
loggers = [log for log in ours if isinstance(log, logging.Logger)]
handlers = [h for log in loggers for h in log.handlers if not isinstance(h, logging.NullHandler)]
print(logging.root.handlers, handlers, [log.name for log in loggers if log.level])
"""
    assert run_python(program) == "[] [] []\n"


@pytest.mark.parametrize("name", datasources.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(datasources, name)
    assert getattr(datasources, name) is value
    assert name in dir(datasources)


def test_no_public_name_is_that_of_a_module() -> None:
    # Importing the module would put it in the place of what has its name.
    modules = {module.name for module in pkgutil.iter_modules(datasources.__path__)}
    assert not modules & set(datasources.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="'datasources' has no attribute 'Registry'"):
        datasources.Registry  # noqa: B018


def test_type_checkers_are_told_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(datasources.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name  # otherwise it is not exported
    }
    told = {name: module for name, module in told.items() if name in datasources._MODULE_OF}
    assert sorted([*told, "lazy_exports"]) == datasources.__all__
    for name, module in told.items():
        assert datasources._MODULE_OF[name] == str(module).removeprefix("datasources.")
