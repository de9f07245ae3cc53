"""Checks of the installed distribution, as core finds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files

import pytest
from importlib_metadata import Distribution
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datasources import __version__
from datasources.plugins import PluginEntry, Plugins, scan
from datasources.testing.base import Checks, Declaration

_IMPORTED = """
import importlib, json, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


class PackagingChecks(Checks):
    """The entry point, the metadata, and the cost of importing the plugin."""

    @pytest.fixture
    def entry(self, declaration: Declaration) -> PluginEntry:
        """The connector's entry point."""
        entries = [e for e in scan(refresh=True) if e.is_connector and e.name == declaration.type]
        assert entries, (
            f"no installed distribution has an entry point {declaration.type!r} in the group "
            "'datasources.connectors': pip install -e ."
        )
        sources = ", ".join(entry.source for entry in entries)
        assert len(entries) == 1, f"several distributions offer {declaration.type!r}: {sources}"
        return entries[0]

    @pytest.fixture
    def metadata(self, entry: PluginEntry) -> Distribution:
        """The metadata of the distribution that has the entry point."""
        metadata: Distribution = Distribution.from_name(str(entry.distribution))
        return metadata

    def test_entry_point_bears_the_type(self, entry: PluginEntry) -> None:
        assert entry.status == "available", entry.error

    def test_plugin_gives_the_class_when_it_is_asked_for(
        self, declaration: Declaration, entry: PluginEntry
    ) -> None:
        assert (
            Plugins(index=[entry]).connector_class(declaration.type) is declaration.connector_class
        )

    def test_importing_the_plugin_imports_no_driver(
        self, declaration: Declaration, entry: PluginEntry
    ) -> None:
        imported = _imported(entry.value.partition(":")[0])
        own = {
            declaration.connector_class.__module__.partition(".")[0],
            entry.value.partition(".")[0],
        }
        heavy = imported - set(sys.stdlib_module_names) - own - {"datasources", "pluggy"}
        assert not heavy, (
            f"importing {entry.value!r} imports {', '.join(sorted(heavy))}: import the connector "
            "inside the hook, and nothing heavy in the package's __init__"
        )

    def test_metadata_name_version_summary_licence_and_python(self, metadata: Distribution) -> None:
        given = metadata.metadata
        lacking = [f for f in ("Name", "Version", "Summary", "Requires-Python") if f not in given]
        if not any(field in given for field in ("License-Expression", "License", "License-File")):
            lacking.append("License-Expression")
        assert not lacking, f"the distribution's metadata lack {', '.join(lacking)}"

    def test_metadata_pins_the_major_version_of_core(self, metadata: Distribution) -> None:
        requirements = [Requirement(text) for text in metadata.requires or ()]
        on_core = [
            requirement
            for requirement in requirements
            if canonicalize_name(requirement.name) == "datasources"
        ]
        major = int(__version__.partition(".")[0])
        example = f"datasources>={__version__},<{major + 1}"
        assert on_core, f"the distribution does not depend on core: {example!r}"
        for requirement in on_core:
            assert requirement.specifier.contains(__version__), f"{requirement} leaves out this one"
            assert not requirement.specifier.contains(f"{major + 1}.0"), (
                f"{str(requirement)!r} admits core's next major version; write {example!r}"
            )

    def test_package_says_that_it_is_typed(self, declaration: Declaration) -> None:
        package = declaration.connector_class.__module__.partition(".")[0]
        assert files(package).joinpath("py.typed").is_file(), f"add an empty {package}/py.typed"


def _imported(module: str) -> set[str]:
    """Return the top-level modules that an import of a module imports in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED, module],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{module!r} cannot be imported by itself:\n{done.stderr}"
    return set(json.loads(done.stdout))
