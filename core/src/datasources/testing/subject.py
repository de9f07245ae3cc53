"""The subject of the checks, which a connector's author describes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from datasources import DataSourceConfig, DataSourceConnector
from datasources.option_types import is_secret


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A connector and a source for it; the fixture that returns a subject fills the source."""

    connector_class: type[DataSourceConnector]
    type: str
    """The connector type, which is the name of its entry point."""
    options: Mapping[str, Any] = field(repr=False)
    """Options that connect to the source; with a secret, if secret options are declared."""
    items: Mapping[str, bytes] = field(repr=False)
    """The exact bytes that a fetch writes, by identifier: two items at least, one not empty,
    none over the default limits. Slashes in identifiers separate folders."""
    missing: str
    """A well-formed identifier of an item that the source does not have."""
    tables: Mapping[str, int] = field(default_factory=dict)
    """The number of data rows of those `items` that are tables: 2 at least."""
    counts_rows: bool = True
    """False if the connector copies files as they are, and `max_rows` does not apply."""
    abilities: Collection[str] = ()
    """Abilities to check, of `datasources.connector.ABILITIES`."""
    wrong_credentials: Mapping[str, Any] | None = field(default=None, repr=False)
    """Complete options that the system refuses; required if there are secret options."""
    unreachable: Mapping[str, Any] | None = field(default=None, repr=False)
    """Complete options with a host that does not answer; required if the options name hosts."""
    connect_within: float = 15.0
    """Seconds after which a connect with either of these has to have failed."""
    queries: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The exact bytes that a fetch writes, by query: identifiers that no listing shows."""
    writes: Sequence[str] = ()
    """Statements that would change something, which a source that only reads refuses."""
    slow: str | None = None
    """An item or query whose fetch takes 30 s at least before its first byte arrives."""
    large: str | None = None
    """An item or query of 50 MB at least; checks end the fetch soon after its first bytes."""
    running: Callable[[], int] | None = field(default=None, repr=False)
    """Returns the number of fetches of `slow` and `large` that the system works at; called in
    a thread. Without it, checks see only that the connector has ended."""
    many: Collection[str] = field(default=(), repr=False)
    """The paths of items of one folder, or of the source if they have no slashes: more than one
    page of the service's listing has."""
    many_options: Mapping[str, Any] | None = field(default=None, repr=False)
    """Complete options of the source with `many`, if it is not the one of `options`."""
    change: Callable[[], tuple[str, bytes]] | None = field(default=None, repr=False)
    """Makes or changes an item at the system, and returns its identifier and its new content,
    which no earlier call returned. Called in threads. It is not one of `items`, always the same,
    and so large that it arrives in several parts."""
    rotate: Callable[[], Mapping[str, Any]] | None = field(default=None, repr=False)
    """Changes a secret at the system, ends the connections that were opened with the former one,
    and returns complete options with the new one. Called in a thread. Give it an account of its
    own, as the other checks go on with `options`."""
    upload_size: int = 0
    """Bytes of a file that is uploaded in several parts; 0 if the connector knows no parts."""
    echo: str | None = None
    """A query whose result is one row of one column: the value of its text parameter `:value`."""

    def config(self, options: Mapping[str, Any] | None = None) -> DataSourceConfig:
        """Return the configuration of the source, or of one with other options."""
        given = dict(self.options if options is None else options)
        return DataSourceConfig("subject", self.type, "Subject", given)

    def connector(self, options: Mapping[str, Any] | None = None) -> DataSourceConnector:
        """Return a new connector for the source, or for one with other options; not connected."""
        return self.connector_class(self.config(options))

    @property
    def secret_options(self) -> list[str]:
        """Names of the options that are declared secret."""
        declared = self.connector_class.options_class
        fields = declared.fields() if declared else []
        return [name for name, info in fields if is_secret(info.annotation)]

    def secrets(self, options: Mapping[str, Any] | None = None) -> list[str]:
        """Return every secret in the options; skip the check if no option is declared secret."""
        if not self.secret_options:
            pytest.skip("not applicable: no option is declared secret")
        values = self.connector(options).options.secret_values()
        assert values, "give Subject.options a value for at least one of the secret options"
        assert all(len(secret) >= 6 for secret in values), (
            "give the secret options values of 6 characters or more: shorter ones occur by chance"
        )
        return list(values)

    def refused(self) -> Mapping[str, Any]:
        """Return options with wrong credentials; skip the check if no option is declared secret."""
        if self.wrong_credentials is None and not self.secret_options:
            pytest.skip("not applicable: no option is declared secret")
        assert self.wrong_credentials is not None, (
            f"options {', '.join(self.secret_options)} are secret: give Subject.wrong_credentials"
        )
        return self.wrong_credentials

    def unanswered(self) -> Mapping[str, Any]:
        """Return options with a host that does not answer; skip the check if they name no host."""
        options = self.connector().options
        hosts = list(options.hosts()) if options is not None else []
        if self.unreachable is None and not hosts:
            pytest.skip("not applicable: the options name no host")
        assert self.unreachable is not None, "the options name a host: give Subject.unreachable"
        return self.unreachable

    def a_table(self, *, counted: bool = False) -> tuple[str, int]:
        """Return the largest table and its number of rows; skip the check if there is none.

        With `counted`, skip it as well if the connector counts no rows.
        """
        if not self.tables:
            pytest.skip("not applicable: no item of the subject is a table")
        if counted and not self.counts_rows:
            pytest.skip("not applicable: the subject says that its connector counts no rows")
        identifier, rows = max(self.tables.items(), key=lambda table: table[1])
        assert rows >= 2, "give Subject.tables one of 2 rows or more"
        return identifier, rows

    def given(self, name: str) -> Any:
        """Return the value of an optional field; skip the check if the subject does not give it."""
        value = getattr(self, name)
        if not value:
            pytest.skip(f"not applicable: the subject gives no {name!r}")
        return value

    def largest(self) -> tuple[str, bytes]:
        """Return identifier and content of the largest item."""
        return max(self.items.items(), key=lambda item: len(item[1]))
