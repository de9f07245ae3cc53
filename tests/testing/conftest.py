"""The good connector's distribution, on the path of these tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testing.good import kit


@pytest.fixture(scope="package")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install the kit of the good connector and those that are made badly."""
    folder = tmp_path_factory.mktemp("kits")
    kit(folder)
    heavy = "import pydantic"
    kit(folder, type_name="heavy", package="datasources_kit_heavy", plugin=heavy)
    kit(folder, type_name="loose", package="datasources_kit_loose", requires="datasources")
    kit(folder, type_name="bare", package="datasources_kit_bare", summary="", typed=False)
    kit(folder, type_name="other", package="datasources_kit_other")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
