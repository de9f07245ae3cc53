"""Core serves a range of contracts, and tells authors, not users, what is on its way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datasources import API_VERSION, PluginIncompatibleError, connector
from tests.core.plugin_fixtures import Site, connector_class, connector_module, hook, raised
from tests.core.subprocesses import run_python

SPOKEN = connector.OLDEST_API_VERSION, API_VERSION
GROWN = "import datasources.connector as c; c.API_VERSION = 2\n"


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let core speak contracts 2 to 4."""
    monkeypatch.setattr(connector, "OLDEST_API_VERSION", 2)
    monkeypatch.setattr(connector, "API_VERSION", 4)


def install(site: Site, version: object) -> None:
    site.connector(
        "shelf", "shelf", hook(connector_class("shelf", api=version) + "return [Connector]")
    )


def test_this_core_speaks_the_first_contract() -> None:
    assert SPOKEN == (1, 1)


@pytest.mark.parametrize(
    ("version", "upgrade"),
    [
        (0, "the plugin"),
        (2, "datasources"),
        (True, "the plugin"),
        ("1", "the plugin"),
        (1.0, "the plugin"),
    ],
)
def test_a_class_of_another_contract_is_refused(site: Site, version: object, upgrade: str) -> None:
    install(site, version)
    error = raised(site.plugins(), "shelf")
    assert type(error) is PluginIncompatibleError
    assert str(error).endswith(
        f"has api_version {version!r}, this core speaks 1; upgrade {upgrade}"
    )


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize("version", [2, 3, 4])
def test_every_contract_of_the_range_is_served(site: Site, version: int) -> None:
    install(site, version)
    if version == 4:
        assert site.plugins().connector_class("shelf").api_version == version
    else:
        with pytest.warns(DeprecationWarning, match=f"api_version {version}; the newest is 4"):
            assert site.plugins().connector_class("shelf").api_version == version


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize(("version", "upgrade"), [(1, "the plugin"), (5, "datasources")])
def test_what_is_outside_of_the_range_is_refused(site: Site, version: int, upgrade: str) -> None:
    install(site, version)
    text = f"api_version {version}, this core speaks 2 to 4; upgrade {upgrade}"
    assert text in str(raised(site.plugins(), "shelf"))


@pytest.mark.usefixtures("grown")
def test_a_class_that_does_not_say_was_written_for_the_first(site: Site) -> None:
    silent = connector_class("shelf").replace("    api_version = 1\n", "")
    site.connector("shelf", "shelf", hook(silent + "return [Connector]"))
    assert "api_version 1, this core speaks 2 to 4" in str(raised(site.plugins(), "shelf"))


AUTHORS_TEST = """
import datasources.connector, datasources.plugins

datasources.connector.API_VERSION = 2

def test_it_loads():
    assert datasources.plugins.Plugins().connector_class("shelf")
"""


def test_the_author_is_warned_by_his_tests_at_his_own_line(site: Site, tmp_path: Path) -> None:
    install(site, 1)
    (tmp_path / "test_it.py").write_text(AUTHORS_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = site\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    line = 1 + (site.path / "shelf.py").read_text().split("\n").index(
        "    class Connector(DataSourceConnector):"
    )
    assert f"{site.path}/shelf.py:{line}: DeprecationWarning: " in done.stdout
    assert "has api_version 1; the newest is 2, and 1 the oldest still served" in done.stdout


def test_the_user_of_the_command_line_is_not_warned(site: Site) -> None:
    install(site, 1)
    program = f"{GROWN}from datasources.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "plugins", "--check"],
        env={"PYTHONPATH": str(site.path), "HOME": str(site.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "shelf" in done.stdout
    assert "loaded" in done.stdout
    assert "Warning" not in done.stdout + done.stderr


def test_nobody_is_warned_today(site: Site) -> None:
    site.connector("shelf", "shelf", connector_module("shelf"))
    program = "from datasources.plugins import Plugins; Plugins().connector_class('shelf')"
    assert run_python(program, PYTHONPATH=str(site.path)) == ""
