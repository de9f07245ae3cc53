"""What a connector's author tells the checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from datasources import DataSourceConfig, DataSourceConnector, DataSourceType
from datasources.options import is_secret


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A connector and a source prepared for it; the fixture that returns it fills the source."""

    connector_class: type[DataSourceConnector]
    type: str
    """The type its sources have and its entry point bears."""
    options: Mapping[str, Any] = field(repr=False)
    """They connect to the source; with a value for a secret, if there are secret options."""
    items: Mapping[str, bytes] = field(repr=False)
    """By identifier, what fetching it writes, to the byte: two at least, one of them not empty,
    none over the default limits.  Slashes in identifiers are taken for folders."""
    missing: str
    """An identifier of the right form that the source does not have."""
    tables: Mapping[str, int] = field(default_factory=dict)
    """Those of `items` that are tables, and their number of data rows: 2 at least."""
    counts_rows: bool = True
    """False if the connector copies files as they are, so that `max_rows` cannot matter."""
    abilities: Collection[str] = ()
    """Which it claims of `iter_items`, `glob`, `preview`, `statistics`, `upload`, `read_table`."""
    wrong_credentials: Mapping[str, Any] | None = field(default=None, repr=False)
    """Complete options that the system refuses; needed if there are secret options."""
    unreachable: Mapping[str, Any] | None = field(default=None, repr=False)
    """Complete options of a host that does not answer; needed if the options name hosts."""
    connect_within: float = 15.0
    """Seconds that refusing, or giving up on such a host, may take."""

    def config(self, options: Mapping[str, Any] | None = None) -> DataSourceConfig:
        """Return the configuration of a source, with `options` in place of the good ones."""
        chosen = dict(self.options if options is None else options)
        return DataSourceConfig("subject", DataSourceType(self.type), "Subject", chosen)

    def connector(self, options: Mapping[str, Any] | None = None) -> DataSourceConnector:
        """Return a connector that is not connected."""
        return self.connector_class(self.config(options))

    @property
    def secret_options(self) -> list[str]:
        """The options that are declared secret."""
        declared = self.connector_class.options_class
        fields = declared.fields() if declared else []
        return [name for name, info in fields if is_secret(info.annotation)]

    def secrets(self, options: Mapping[str, Any] | None = None) -> list[str]:
        """Return every secret in the options; skip where none can be."""
        if not self.secret_options:
            pytest.skip("not applicable: no option is declared secret")
        found = self.connector(options).options.secret_values()
        assert found, "give Subject.options a value for at least one of the secret options"
        assert all(len(secret) >= 6 for secret in found), (
            "give the secret options values of 6 characters or more: shorter ones occur by chance"
        )
        return list(found)

    def refused(self) -> Mapping[str, Any]:
        """Return options with wrong credentials; skip where none can be."""
        if self.wrong_credentials is None and not self.secret_options:
            pytest.skip("not applicable: no option is declared secret")
        assert self.wrong_credentials is not None, (
            f"options {', '.join(self.secret_options)} are secret: give Subject.wrong_credentials"
        )
        return self.wrong_credentials

    def unanswered(self) -> Mapping[str, Any]:
        """Return options of a host that does not answer; skip where there is no host."""
        options = self.connector().options
        hosts = list(options.hosts()) if options is not None else []
        if self.unreachable is None and not hosts:
            pytest.skip("not applicable: the options name no host")
        assert self.unreachable is not None, "the options name a host: give Subject.unreachable"
        return self.unreachable

    def a_table(self, *, counted: bool = False) -> tuple[str, int]:
        """Return a table and its rows; skip where there is none, or rows are not counted."""
        if not self.tables:
            pytest.skip("not applicable: no item of the subject is a table")
        if counted and not self.counts_rows:
            pytest.skip("not applicable: the subject says that its connector counts no rows")
        identifier, rows = max(self.tables.items(), key=lambda table: table[1])
        assert rows >= 2, "give Subject.tables one of 2 rows or more"
        return identifier, rows

    def largest(self) -> tuple[str, bytes]:
        """Return the largest item."""
        return max(self.items.items(), key=lambda item: len(item[1]))
