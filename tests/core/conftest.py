"""Fixtures of the tests of core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.core.plugin_fixtures import Site, new_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty directory on `sys.path`; modules imported from it are forgotten afterwards."""
    yield from new_site(tmp_path, monkeypatch)


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return how often a module that starts with `COUNT` was imported."""
    import builtins

    monkeypatch.setattr(builtins, "plugin_imports", 0, raising=False)
    return lambda: builtins.plugin_imports  # type: ignore[attr-defined]
