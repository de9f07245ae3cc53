"""Bad plugins, each beside a good one that is not disturbed."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from datasources import (
    PluginConflictError,
    PluginError,
    PluginIncompatibleError,
    PluginLoadError,
    UnknownConnectorError,
)
from tests.core.plugin_fixtures import (
    COUNT,
    GOOD,
    Site,
    connector_class,
    connector_module,
    entry_of,
    hook,
    raised,
)
from tests.core.subprocesses import run_python

BAD_MODULES: dict[str, tuple[str, type[PluginError], str]] = {
    "dependency missing": (
        "import no_such_driver",
        PluginLoadError,
        "ModuleNotFoundError: No module named 'no_such_driver'",
    ),
    "syntax error": ("def f(:\n", PluginLoadError, "SyntaxError: invalid syntax"),
    "raises": ("raise ValueError('first\\nsecond')", PluginLoadError, "ValueError: first second"),
    "exits": ("import sys; sys.exit(3)", PluginLoadError, "SystemExit: 3"),
    "raises a BaseException": (
        "class Odd(BaseException): ...\nraise Odd('why')",
        PluginLoadError,
        "Odd: why",
    ),
    "cancels": (
        "import asyncio; raise asyncio.CancelledError",
        PluginLoadError,
        "CancelledError",
    ),
    "recurses": ("def f(): f()\nf()", PluginLoadError, "RecursionError"),
    "raises what cannot be printed": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        PluginLoadError,
        "Odd",
    ),
    "raises one of our errors": (
        "from datasources import UnknownConnectorError\nraise UnknownConnectorError('no')",
        PluginLoadError,
        "UnknownConnectorError: no",
    ),
    "tells a secret": (
        "raise OSError('cannot reach postgresql://u:hunt' + 'er2@h/db')",
        PluginLoadError,
        "postgresql://u:***REDACTED***@h/db",
    ),
    "raises from itself": (
        "error = ValueError('round')\nraise error from error",
        PluginLoadError,
        "ValueError: round",
    ),
    "raises without end": ("raise ValueError('x' * 1_000_000)", PluginLoadError, "xxxx"),
    "no hook": ("connectors = []", PluginLoadError, "no hook; mark its functions with"),
    "misspelt hook": (
        hook("return []").replace("_connectors", "_conectors"),
        PluginLoadError,
        "'datasources_conectors' is not known; the closest hook is 'datasources_connectors'",
    ),
    "forgotten marker": (
        connector_module("bad").replace("@hookimpl", ""),
        PluginLoadError,
        "'datasources_connectors' is not marked with datasources.hookimpl",
    ),
    "forgotten marker on a misspelt hook": (
        connector_module("bad") + "def datasources_source_registred(config): ...",
        PluginLoadError,
        "not marked with datasources.hookimpl; the closest hook is 'datasources_source_registered'",
    ),
    "hook without the prefix": (
        hook("return []").replace("datasources_connectors", "connectors"),
        PluginLoadError,
        "'connectors' is not known; the closest hook is 'datasources_connectors'",
    ),
    "unknown argument": (
        connector_module("bad") + "@hookimpl\ndef datasources_open_store(uri): ...",
        PluginLoadError,
        "uri",
    ),
    "async hook": (
        hook("return []").replace("def data", "async def data"),
        PluginLoadError,
        "'datasources_connectors' is async; hooks are plain functions",
    ),
    "wrapper": (
        hook("yield").replace("@hookimpl", "@hookimpl(wrapper=True)"),
        PluginLoadError,
        "'datasources_connectors' is a wrapper",
    ),
    "only another hook": (
        hook("...").replace("connectors():", "source_unregistered():"),
        PluginLoadError,
        "'bad' has no hook 'datasources_connectors'",
    ),
    "hook raises": (hook("raise KeyError('dsn')"), PluginLoadError, "KeyError: 'dsn'"),
    "hook exits": (hook("raise SystemExit"), PluginLoadError, "SystemExit"),
    "hook returns None": (hook("return None"), PluginLoadError, "returned a NoneType, not a list"),
    "hook returns a class": (
        hook(connector_class() + "return Connector"),
        PluginLoadError,
        "returned a ABCMeta, not a list of classes",
    ),
    "hook yields": (
        hook(connector_class() + "yield Connector"),
        PluginLoadError,
        "returned a generator, not a list of classes",
    ),
    "hook returns nothing": (hook("return []"), PluginLoadError, "returned: none"),
    "hook returns a million things": (
        hook("return ['x'] * 1_000_000"),
        PluginLoadError,
        "returned: None, None, ",
    ),
    "hook returns junk": (hook("return ['bad', 7]"), PluginLoadError, "returned: None, None"),
    "class of another type": (
        hook(connector_class("worse") + "return [Connector]"),
        PluginLoadError,
        "as its entry point is named, is needed; 'datasources_connectors' returned: 'worse'",
    ),
    "two classes of the type": (
        hook(connector_class() + connector_class(name="Two") + "return [Connector, Two]"),
        PluginLoadError,
        "one class of type 'bad'",
    ),
    "abstract": (
        hook(connector_class(lacks="list_items connect") + "return [Connector]"),
        PluginLoadError,
        "'datasources_connectors.<locals>.Connector' lacks connect, list_items",
    ),
    "not a connector": (
        hook("class Connector:\n    type = 'bad'\nreturn [Connector]"),
        PluginLoadError,
        "is not a subclass of DataSourceConnector",
    ),
    "an instance": (
        hook("class Connector:\n    type = 'bad'\nreturn [Connector()]"),
        PluginLoadError,
        "is not a subclass of DataSourceConnector",
    ),
    "of a later core": (
        hook(connector_class(api=2) + "return [Connector]"),
        PluginIncompatibleError,
        "api_version 2, this core speaks 1; upgrade datasources",
    ),
    "of an earlier core": (
        hook(connector_class(api=0, lacks="connect") + "return [Connector]"),
        PluginIncompatibleError,
        "api_version 0, this core speaks 1; upgrade the plugin",
    ),
    "of no core": (
        hook(connector_class(api=None) + "return [Connector]"),
        PluginIncompatibleError,
        "api_version None, this core speaks 1; upgrade the plugin",
    ),
    "attributes raise": (
        hook(
            "class Meta(type):\n"
            "    def __getattr__(cls, name): raise RuntimeError(name)\n"
            "class Connector(metaclass=Meta): ...\n"
            "return [Connector]"
        ),
        PluginLoadError,
        "RuntimeError: type",
    ),
}


@pytest.mark.parametrize("case", BAD_MODULES)
def test_a_bad_module_fails_only_who_asks_for_it(
    site: Site, imports: Callable[[], int], case: str
) -> None:
    source, error, text = BAD_MODULES[case]
    site.connector("bad", "bad", COUNT + source)
    site.connector("good", "good", GOOD)
    plugins = site.plugins()
    assert plugins.types() == ["bad", "good"]

    first = raised(plugins, "bad")
    assert type(first) is error
    assert str(first).startswith("connector 'bad' of bad 1.0: ")
    assert text in str(first)
    assert len(str(first)) < 1_100
    assert "hunter2" not in "".join(traceback.format_exception(first))

    assert plugins.connector_class("good").type == "good"
    again = raised(plugins, "bad")
    assert (type(again), str(again), again.__cause__) == (error, str(first), first.__cause__)
    assert imports() <= 1
    assert plugins.loaded("bad") is None
    assert plugins.types() == ["good"]
    failed = entry_of(plugins, "bad")
    assert failed.status == "failed"
    assert failed.error
    assert text in failed.error
    assert [entry.status for entry in site.plugins().check()] == ["failed", "loaded"]


BAD_INSTALLATIONS: dict[str, tuple[str | bytes, str | None, type[PluginError], str]] = {
    "module missing": ("bad = nowhere", "", PluginLoadError, "No module named 'nowhere'"),
    "attribute missing": ("bad = bad:plugin", "", PluginLoadError, "no attribute 'plugin'"),
    "names the class": ("bad = bad:Class", "", PluginLoadError, "it has no hook"),
    "no equals sign": ("bad", "", PluginLoadError, "not of the form 'name = module'"),
    "no module": ("bad =", "", PluginLoadError, "line 2 of its entry_points.txt"),
    "not a module": ("bad = my-module!", "", PluginLoadError, "not of the form"),
    "METADATA without Name": (
        "bad = bad",
        "Metadata-Version: 2.1\nVersion: 1.0\n\nName: x\n",
        PluginLoadError,
        "of bad 1.0: its METADATA lacks Name",
    ),
    "empty METADATA": ("bad = bad", "\n", PluginLoadError, "lacks Name and Version"),
    "no METADATA": ("bad = bad", None, PluginLoadError, "of bad: its METADATA lacks Name and"),
    "claims a type twice": (
        "bad = bad\nbad = other",
        "",
        PluginConflictError,
        "'bad' is offered by bad 1.0 and bad 1.0",
    ),
    "type in capitals": ("Bad = bad", "", UnknownConnectorError, "no connector for 'bad'"),
    "binary": (b"\xff\xfe bad = bad", "", UnknownConnectorError, "installed: good; broken: bad"),
    "section not closed": (
        "[datasources.connectors\nbad = bad",
        "",
        UnknownConnectorError,
        "installed: good; broken: bad",
    ),
}


@pytest.mark.parametrize("case", BAD_INSTALLATIONS)
def test_a_bad_installation_disturbs_no_other(site: Site, case: str) -> None:
    points, metadata, error, text = BAD_INSTALLATIONS[case]
    header = "[datasources.connectors]\n"
    content = header + points if isinstance(points, str) else header.encode() + points
    module = "class Class: ...\n"
    site.install("bad", content, {"bad": module}, metadata=metadata)
    site.connector("good", "good", GOOD)
    plugins = site.plugins()

    first = raised(plugins, "bad")
    assert type(first) is error
    assert text in str(first)
    assert plugins.connector_class("good").type == "good"
    assert str(raised(plugins, "bad")) == str(first)
    entries = [entry for entry in plugins.entries() if entry.distribution == "bad"]
    assert {entry.status for entry in entries} & {"broken", "failed", "conflict"}
    assert all(entry.error for entry in entries if entry.status not in {"available", "disabled"})


def test_one_bad_line_leaves_the_other_entry_points_of_its_distribution(site: Site) -> None:
    site.install("mixed", "[datasources.connectors]\n!!\ngood = mixed\n", {"mixed": GOOD})
    plugins = site.plugins()
    assert plugins.connector_class("good").type == "good"
    assert entry_of(plugins, "!!").error == (
        "line 2 of its entry_points.txt is not of the form 'name = module'"
    )


@pytest.mark.parametrize("text", ["[console_scripts]\nx\n", "[other.group]\n=\n", "x\ny\n", "["])
def test_malformed_entry_points_of_others_are_none_of_our_business(site: Site, text: str) -> None:
    site.install("other", text, metadata=None)
    site.connector("good", "good", GOOD)
    plugins = site.plugins()
    assert [entry.distribution for entry in plugins.entries()] == ["good"]
    assert plugins.connector_class("good").type == "good"


PYDANTIC_PLUGIN = "[pydantic]\nodd = odd_plugin\n"


@pytest.mark.parametrize(
    ("points", "module"),
    [(b"[x]\na = \xff\n", ""), (PYDANTIC_PLUGIN, "raise RuntimeError('odd')")],
)
def test_a_distribution_that_pydantic_cannot_read_leaves_connectors_their_options(
    site: Site, points: str | bytes, module: str
) -> None:
    site.install("odd", points, {"odd_plugin": module})
    script = (
        "from datasources.options import ConnectorOptions\n"
        "class Options(ConnectorOptions):\n    port: int\n"
        "print(Options.load({'port': 1}).port)\n"
    )
    assert run_python(script, PYTHONPATH=str(site.path)) == "1\n"


def test_what_cannot_be_read_is_reported_with_its_distribution(site: Site) -> None:
    site.install("bad-one", b"[datasources.connectors]\nx = \xff\n")
    (entry,) = site.plugins().entries()
    assert (entry.status, entry.distribution, entry.name) == ("broken", "bad-one", "")
    assert entry.error
    assert entry.error.startswith("its metadata cannot be read: UnicodeDecodeError")


def test_comments_spaces_extras_and_attributes_in_entry_points_are_understood(site: Site) -> None:
    text = "# x\n[datasources.connectors]\n\n; y\n good =  holder : plugin  [extra, two]\n[z]\n"
    holder = "class plugin:\n    from datasources import hookimpl\n" + "    @staticmethod\n"
    holder += "    @hookimpl\n    def datasources_connectors():\n        import module\n"
    holder += "        return module.datasources_connectors()\n"
    site.install("spaced", text, {"holder": holder, "module": GOOD})
    assert site.plugins().connector_class("good").type == "good"
