"""Distributions made by hand, as the tests of plugins make them."""

from __future__ import annotations

from tests.core.conftest import imports, site

__all__ = ["imports", "site"]
