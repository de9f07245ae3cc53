"""Distributions made by hand: folders as pip would install them, and wheels for pip itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import pytest

from datasources import PluginError
from datasources.plugins import PluginEntry, Plugins, scan

METHODS = ("connect", "disconnect", "test_connection", "list_items", "fetch_data", "get_metadata")

HOOK = """
from datasources import hookimpl

@hookimpl
def datasources_connectors():
    {body}
"""


def hook(body: str) -> str:
    """Return the source of a plugin module whose hook has this body."""
    return HOOK.format(body=indent(body, "    ").lstrip())


def connector_class(
    type_name: str = "bad", *, name: str = "Connector", api: object = 1, lacks: str = ""
) -> str:
    """Return the source of a connector class, `lacks` being methods to leave out."""
    methods = [m for m in METHODS if m not in lacks.split()]
    body = "\n".join(f"    async def {m}(self, *args): return None" for m in methods)
    return (
        "from datasources import DataSourceConnector\n"
        f"class {name}(DataSourceConnector):\n"
        f"    type = {type_name!r}\n    api_version = {api!r}\n{body}\n"
    )


def connector_module(type_name: str) -> str:
    """Return the source of a sound plugin module with one connector."""
    return hook(connector_class(type_name) + "return [Connector]")


GOOD = connector_module("good")
COUNT = "import builtins; builtins.plugin_imports += 1\n"
"""Counts how often a module that starts with it is imported; see the fixture `imports`."""


@dataclass
class Site:
    """A directory on `sys.path` in which distributions are installed."""

    path: Path

    def install(
        self,
        name: str,
        entry_points: str | bytes | None = None,
        modules: Mapping[str, str] | None = None,
        *,
        version: str = "1.0",
        metadata: str | None = "",
    ) -> Path:
        """Install a distribution and return its `.dist-info`; `metadata` None leaves it out."""
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        if metadata is not None:
            text = metadata or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n"
            (info / "METADATA").write_text(text, "utf-8")
        if entry_points is not None:
            content = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
            (info / "entry_points.txt").write_bytes(content)
        for module, source in (modules or {}).items():
            (self.path / f"{module}.py").write_text(source, "utf-8")
        (info / "RECORD").write_text("")
        return info

    def connector(self, name: str, type_name: str, source: str, **more: object) -> Path:
        """Install a distribution of one connector, whose module is named like itself."""
        module = name.replace("-", "_")
        points = f"[datasources.connectors]\n{type_name} = {module}\n"
        return self.install(name, points, {module: source}, **more)  # type: ignore[arg-type]

    def observer(self, name: str, source: str) -> Path:
        """Install a distribution of one observer, whose module is named like itself."""
        module = name.replace("-", "_")
        points = f"[datasources.plugins]\n{module} = {module}\n"
        return self.install(name, points, {module: source})

    def plugins(self, **options: object) -> Plugins:
        """Return the plugins of this directory alone, as they are now."""
        return Plugins(scan([str(self.path)], refresh=True), **options)  # type: ignore[arg-type]


def new_site(parent: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Yield an empty directory on `sys.path`; modules imported from it are forgotten afterwards."""
    folder = parent / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield Site(folder)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def entry_of(plugins: Plugins, name: str, distribution: str | None = None) -> PluginEntry:
    (entry,) = [
        entry
        for entry in plugins.entries()
        if entry.name == name and distribution in {None, entry.distribution}
    ]
    return entry


def raised(plugins: Plugins, type_name: str) -> PluginError:
    with pytest.raises(PluginError) as caught:
        plugins.connector_class(type_name)
    return caught.value


@dataclass
class Wheel:
    """A wheel to be built."""

    name: str
    entry_points: str
    modules: Mapping[str, str] = field(default_factory=dict)
    version: str = "1.0"

    def build(self, folder: Path) -> Path:
        """Write the wheel into a folder."""
        stem = f"{self.name.replace('-', '_')}-{self.version}"
        info = f"{stem}.dist-info"
        files = {f"{module}.py": source for module, source in self.modules.items()} | {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {self.name}\n"
            f"Version: {self.version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
            f"{info}/entry_points.txt": self.entry_points,
        }
        record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        path = folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (files | {f"{info}/RECORD": record}).items():
                archive.writestr(name, content)
        return path


def pip_install(target: Path, *wheels: Path) -> None:
    """Install wheels into a directory, offline."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--disable-pip-version-check",
            "--no-compile",
            "--target",
            str(target),
            *map(str, wheels),
        ],
        check=True,
    )
