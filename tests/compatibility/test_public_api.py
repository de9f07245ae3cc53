"""What is public changes on purpose only, and the change is told."""

from __future__ import annotations

from difflib import unified_diff

import datasources.testing
from tests.compatibility.public_api import FILE, public_api

HOW = (
    "The public API is not the one in tests/compatibility/public_api.txt:\n\n{}\n\n"
    "If that is meant, run `python -m tests.compatibility.public_api` in the repository's root and "
    "note the change in CHANGELOG.md; what is gone, or needs an argument more, breaks its users."
)


def test_the_public_api_is_the_one_written_down() -> None:
    written, now = FILE.read_text("utf-8").splitlines(), public_api().splitlines()
    changes = unified_diff(written, now, "written down", "now", lineterm="", n=0)
    assert written == now, HOW.format("\n".join(changes))


def test_the_testing_kit_exports_what_is_written_down() -> None:
    names = ["ConnectorContract", "Server", "StallWarning", "Subject", "serve"]
    assert sorted(datasources.testing.__all__) == names


def test_it_shows_each_kind_of_change() -> None:
    text = public_api()
    for line in (
        "class DataItem(name: str, path: str, size: int | None = None, modified_at: float | None",
        "    list_items(self, path: str | None = None) -> list[DataItem]  (async)",
        "        ItemNotFoundError",
        "datasources_resolve_secret(scheme: str, name: str) -> str | None",
        "datasources.connectors",
        "preview: preview",
        "datasources fetch ID ITEM...",
        "    --check",
    ):
        assert f"\n{line}" in text
