"""The table of identifiers through the command line, whose user has all rights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datasources import AuthenticationError, DataSourceConnector
from datasources_local_file import LocalFileConnector
from tests.identifiers_table import TABLE

ASKED = "the connector is asked"
IDENTIFIERS = sorted({row.identifier for row in TABLE if row.type == "local_file"})


@pytest.mark.parametrize("command", ["info", "preview", "stats", "fetch"])
def test_every_identifier_reaches_the_connector(
    fails: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    async def connect(_self: DataSourceConnector) -> bool:
        raise AuthenticationError(ASKED)

    monkeypatch.setenv("DATASOURCES__SHOP__TYPE", "local_file")
    monkeypatch.setenv("DATASOURCES__SHOP__PATH", str(tmp_path))
    monkeypatch.setattr(LocalFileConnector, "connect", connect)
    more = ["--no-glob", "--into", str(tmp_path / "workspace")] if command == "fetch" else []
    for identifier in IDENTIFIERS:
        if "\0" not in identifier and identifier.isprintable():
            assert ASKED in fails(command, "shop", *more, identifier)
