"""The index of plugins, and the host's choice from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from datasources import (
    DataSourceType,
    OptionError,
    PluginConflictError,
    UnknownConnectorError,
)
from datasources.plugins import scan
from datasources.plugins.discovery import describe_error
from tests.core.plugin_fixtures import (
    GOOD,
    Site,
    connector_module,
    entry_of,
    raised,
)
from tests.core.subprocesses import run_python


def test_a_copy_behind_another_on_the_path_is_not_seen(site: Site, tmp_path: Path) -> None:
    site.connector("acme-good", "good", GOOD, version="2.0")
    behind = Site(tmp_path / "behind")
    behind.path.mkdir()
    behind.connector("Acme.Good", "good", GOOD, version="1.0")
    (entry,) = scan([str(site.path), str(behind.path)])
    assert (entry.distribution, entry.version) == ("acme-good", "2.0")
    (entry,) = scan([str(behind.path), str(site.path)])
    assert (entry.distribution, entry.version) == ("Acme.Good", "1.0")


def test_a_newer_copy_without_the_plugin_hides_an_older_one(site: Site, tmp_path: Path) -> None:
    site.install("good", None, version="2.0")
    behind = Site(tmp_path / "behind")
    behind.path.mkdir()
    behind.connector("good", "good", GOOD)
    assert scan([str(site.path), str(behind.path)]) == ()


def test_what_an_uninstall_left_hides_and_claims_nothing(site: Site, tmp_path: Path) -> None:
    site.connector("good", "good", GOOD)
    site.install("~ood", "[datasources.connectors]\ngood = good\n")
    empty = Site(tmp_path / "empty")
    empty.path.mkdir()
    empty.install("good", None, metadata=None)
    (entry,) = scan([str(empty.path), str(site.path)])
    assert entry.distribution == "good"
    assert entry.status == "available"


def test_a_path_is_searched_once_until_told_otherwise(site: Site) -> None:
    assert scan([str(site.path)]) == ()
    site.connector("good", "good", GOOD)
    assert scan([str(site.path)]) == ()
    assert [entry.name for entry in scan([str(site.path)], refresh=True)] == ["good"]


def test_an_entry_on_the_search_path_that_is_no_string_is_ignored(site: Site) -> None:
    site.connector("good", "good", GOOD)
    path = [None, 7, b"x", str(site.path), "/no/such/place"]
    assert [entry.name for entry in scan(path)] == ["good"]  # type: ignore[arg-type]


LISTING = """
import sys, json
opened, read = [], sys.argv[1]
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
sys.path.insert(0, read)
from datasources.plugins import Plugins
entries = [(entry.name, entry.version) for entry in Plugins().entries()]
files = [path for path in opened if path.startswith(read)]
again = len(opened)
Plugins().entries()
print(json.dumps([entries, files, len(opened) - again, sorted(sys.modules)]))
"""


def test_a_listing_reads_metadata_of_our_plugins_only_and_imports_none(site: Site) -> None:
    for number in range(50):
        site.install(f"other-{number}", "[console_scripts]\nx = y:z\n")
    for number in range(50):
        site.install(f"plain-{number}")
    infos = [site.connector(f"mine-{n}", f"type{n}", "raise AssertionError") for n in range(5)]
    entries, files, more, modules = json.loads(run_python(LISTING, str(site.path)))

    assert {(f"type{number}", "1.0") for number in range(5)} <= {tuple(e) for e in entries}
    metadata = [path for path in files if path.endswith("METADATA")]
    assert sorted(metadata) == sorted(str(info / "METADATA") for info in infos)
    # A distribution without entry points costs the attempt to open them.
    assert len([path for path in files if path.endswith("entry_points.txt")]) == 105
    assert len(files) == 110
    assert more == 0
    assert not [name for name in modules if name.startswith("mine")]
    heavy = {"pydantic", "cryptography", "asyncio", "email.parser", "logging", "sqlite3"}
    assert not heavy & set(modules)
    assert "datasources.models" not in modules


# The host's choice.


@pytest.fixture
def rivals(site: Site) -> Site:
    """Two distributions that offer one type, beside a good one."""
    site.connector("acme-sql", "sql", connector_module("sql"))
    site.connector("other-sql", "sql", connector_module("sql"), version="3")
    site.connector("good", "good", GOOD)
    return site


def test_two_distributions_of_one_type_are_a_conflict_that_names_both(rivals: Site) -> None:
    plugins = rivals.plugins()
    assert plugins.types() == ["good"]
    error = raised(plugins, "sql")
    assert type(error) is PluginConflictError
    assert str(error) == (
        "'sql' is offered by acme-sql 1.0 and other-sql 3; prefer one, as in "
        "DATASOURCES_PREFER=sql=acme-sql, or disable the other"
    )
    assert [e.status for e in plugins.entries() if e.name == "sql"] == ["conflict"] * 2
    assert plugins.connector_class("good").type == "good"
    assert not {"acme_sql", "other_sql"} & set(sys.modules)


def test_a_preference_settles_a_conflict(rivals: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = rivals.plugins(prefer={"sql": "Other.SQL"})
    assert plugins.connector_class("sql").__module__ == "other_sql"
    assert entry_of(plugins, "sql", "other-sql").status == "loaded"
    passed = entry_of(plugins, "sql", "acme-sql")
    assert (passed.status, passed.error) == ("disabled", "passed over: Other.SQL is preferred")

    monkeypatch.setenv("DATASOURCES_PREFER", " sql = acme-sql , x=y,")
    assert rivals.plugins().connector_class("sql").__module__ == "acme_sql"
    plugins = rivals.plugins(prefer={"sql": "other-sql"})
    assert plugins.connector_class("sql").__module__ == "other_sql"


def test_disabling_one_settles_a_conflict(rivals: Site) -> None:
    plugins = rivals.plugins(disable=["acme_sql"])
    assert plugins.connector_class("sql").__module__ == "other_sql"
    assert "acme_sql" not in sys.modules


def test_what_is_preferred_is_never_replaced_by_what_is_there(rivals: Site) -> None:
    plugins = rivals.plugins(prefer={"good": "acme-sql"})
    error = raised(plugins, "good")
    assert type(error) is PluginConflictError
    assert str(error) == "'good' is to come from acme-sql, but is offered by good 1.0"


@pytest.mark.parametrize("disabled", ["good", "Maker.Good", "x, maker_good ,y"])
def test_a_plugin_is_disabled_by_type_or_distribution(
    site: Site, monkeypatch: pytest.MonkeyPatch, disabled: str
) -> None:
    site.connector("maker-good", "good", "raise AssertionError")
    monkeypatch.setenv("DATASOURCES_DISABLE", disabled)
    plugins = site.plugins()
    assert plugins.types() == []
    error = raised(plugins, "good")
    assert type(error) is UnknownConnectorError
    assert str(error) == (
        "no connector for 'good'; maker-good 1.0 offers it but is "
        "switched off by the host or DATASOURCES_DISABLE"
    )
    assert [entry.status for entry in plugins.check()] == ["disabled"]


def test_disabling_silences_what_is_broken(site: Site) -> None:
    site.install("bad", b"[datasources.connectors]\n\xff")
    assert [e.status for e in site.plugins(disable=["bad"]).entries()] == ["disabled"]


@pytest.mark.parametrize("text", ["sql", "sql=", "=acme", "a=b,c"])
def test_a_malformed_preference_in_the_environment_is_an_error(
    site: Site, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DATASOURCES_PREFER", text)
    with pytest.raises(OptionError, match="not of the form type=distribution"):
        site.plugins()


def test_an_unknown_type_says_what_is_installed(site: Site) -> None:
    assert str(raised(site.plugins(), "mysql")) == "no connector for 'mysql'; installed: none"
    site.connector("good", "good", GOOD)
    site.connector("azure", "azure_blob", connector_module("azure_blob"))
    error = raised(site.plugins(), DataSourceType("mysql"))
    assert type(error) is UnknownConnectorError
    assert str(error) == "no connector for 'mysql'; installed: azure_blob, good"


def test_a_secret_on_a_line_of_its_own_is_masked_in_a_description() -> None:
    assert "hunter2" not in describe_error(ValueError("password: |\n  hunter2\nend"))
