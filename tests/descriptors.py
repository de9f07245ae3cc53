"""Descriptors of a test, told from those of other threads, which open and close theirs meanwhile."""

from __future__ import annotations

from pathlib import Path

from datasources.testing.watch import descriptors


def descriptors_below(path: Path) -> list[str]:
    """Return the targets of the descriptors that are open on a path or below."""
    return sorted(target for target in descriptors().values() if target.startswith(str(path)))
