"""Sources and settings from a TOML file and the environment.

```toml
audit_log = "audit.jsonl"      # relative to this file; or DATASOURCES_AUDIT_LOG

[sources.sales]
type = "postgresql"
name = "Sales"                 # the id by default
metadata = { owner = "ops" }
limits = { max_rows = 50000, timeout = "none" }

[sources.sales.options]
host = "db.example.com"
password = "${env:SALES_PASSWORD}"

[policy]
allowed_hosts = ["*.example.com"]
allowed_references = ["env:SALES_*"]  # or a table, { "env:SALES_*" = ["db.example.com"] }
[policy.limits]
max_bytes = 1000000000

[pool]
max_size = 4

[server]                       # for `datasources serve`, which checks it
public_url = "https://data.example.com"
```

Limits, policy and pool take the fields of `Limits`, `Policy` and `PoolConfig`; `"none"` is `None`.
Variables of the environment declare the source `sales` too: `DATASOURCES__SALES__TYPE`,
`DATASOURCES__SALES__NAME`, and `DATASOURCES__SALES__HOST` for the option `host`. They replace what
the file has for the source.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from datasources.errors import OptionError
from datasources.models import DataSourceConfig, Limits, PoolConfig, check_keys, fill
from datasources.policy import Policy
from datasources.stored_queries import read_queries

PREFIX = "DATASOURCES__"

_SOURCE_KEYS = ("type", "name", "metadata", "limits", "options", "queries")

T = TypeVar("T")
Table = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of a host from outside of its code."""

    sources: list[DataSourceConfig] = field(default_factory=list)
    """The declared sources; their options are validated when they are registered."""
    policy: Policy = field(default_factory=Policy)
    pool: PoolConfig = field(default_factory=PoolConfig)
    origins: Mapping[str, str] = field(default_factory=dict)
    """The places where each source is declared, by id: the file, `the environment`, or both."""
    audit_log: str | None = None
    """Path of the audit log, with a leading `~` expanded; `None` for no log."""
    server: Mapping[str, Any] = field(default_factory=dict)
    """The table of the HTTP server, as it stands: `datasources-server` checks it."""
    gateway: Mapping[str, Any] = field(default_factory=dict)
    """The table of the gateway for chat, as it stands: `datasources-agents` checks it."""


def read_settings(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a TOML file and of environment variables, which take precedence.

    Args:
        path: The file; None for the environment alone.
        environ: The variables, such as `os.environ`.

    Raises:
        OptionError: The file cannot be read, or something in it or in a variable is malformed,
            missing or unknown; the message names the place, and no value.
    """
    document = _load(path) if path is not None else {}
    where = repr(os.fspath(path)) if path is not None else ""
    check_keys(document, ("sources", "policy", "pool", "audit_log", "server", "gateway"), where)
    declared = _table(document.get("sources", {}), f"{where}: [sources]")
    tables = {
        source_id: (_source_table(table, f"{where}: [sources.{source_id}]"), where)
        for source_id, table in declared.items()
    }
    for name, (table, variable) in _environment(environ).items():
        source_id = _match(name, tables, variable)
        declared_table, origin = tables.get(source_id, ({}, ""))
        tables[source_id] = (
            _merged(declared_table, table),
            " and ".join(filter(None, (origin, "the environment"))),
        )
    return Settings(
        sources=[
            _source(source_id, table, origin) for source_id, (table, origin) in tables.items()
        ],
        policy=_fill(Policy, document.get("policy", {}), f"{where}: [policy]"),
        pool=_fill(PoolConfig, document.get("pool", {}), f"{where}: [pool]"),
        origins={source_id: origin for source_id, (_, origin) in tables.items()},
        audit_log=(
            os.path.expanduser(environ.get("DATASOURCES_AUDIT_LOG", ""))
            or _audit_log(document, path, where)
        ),
        server=_table(document.get("server", {}), f"{where}: [server]"),
        gateway=_table(document.get("gateway", {}), f"{where}: [gateway]"),
    )


def parse_toml(text: str, where: str) -> Table:
    """Parse a text of TOML; `where` names the text in errors.

    Raises:
        OptionError: The text is not TOML; the message quotes keys and single characters only.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))  # the byte order mark of some editors
    except (ValueError, RecursionError) as exc:
        raise OptionError(f"{where} is not valid TOML: {exc}") from None


def _load(path: str | os.PathLike[str]) -> Table:
    where = repr(os.fspath(path))
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as exc:
        raise OptionError(f"{where} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise OptionError(f"{where} is not valid TOML: it is not UTF-8 text") from None
    return parse_toml(text, where)


def _audit_log(document: Table, path: str | os.PathLike[str] | None, where: str) -> str | None:
    value = document.get("audit_log")
    if path is None or value is None:
        return None
    if not isinstance(value, str) or not value:
        raise OptionError(f"{where}: 'audit_log' must be a path")
    return os.path.join(os.path.dirname(path), os.path.expanduser(value))


def _table(value: Any, where: str) -> Table:
    if not isinstance(value, dict):
        raise OptionError(f"{where} must be a table")
    return value


def _source_table(value: Any, where: str) -> Table:
    table = _table(value, where)
    check_keys(table, _SOURCE_KEYS, where)
    for key in ("metadata", "limits", "options"):
        _table(table.get(key, {}), f"{where}: {key!r}")
    for key in ("type", "name"):
        if not isinstance(table.get(key, ""), str):
            raise OptionError(f"{where}: {key!r} must be text")
    return table


def _environment(environ: Mapping[str, str]) -> dict[str, tuple[Table, str]]:
    """Return the table of each source and the name of one of its variables, by lower-case id."""
    tables: dict[str, tuple[Table, str]] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        source_id, separator, key = variable.removeprefix(PREFIX).lower().partition("__")
        if not (source_id and separator and key) or "__" in key:
            raise OptionError(
                f"the variable {variable!r} is not of the form {PREFIX}<ID>__TYPE, "
                f"{PREFIX}<ID>__NAME or {PREFIX}<ID>__<OPTION>"
            )
        table, _ = tables.setdefault(source_id, ({"options": {}}, variable))
        target = table if key in ("type", "name") else table["options"]
        if key in target:
            raise OptionError(f"the variable {variable!r} is set twice, in other letters too")
        target[key] = environ[variable] if target is table else _value(environ[variable])
    return tables


def _value(text: str) -> Any:
    """Return the value of an option: a list or a table given as JSON, else the text itself."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def _match(name: str, tables: Collection[str], variable: str) -> str:
    """Return the id that a variable names: there, ids have no case, and `_` for `-` and `.`."""
    matches = [key for key in tables if re.sub(r"[.-]", "_", key.lower()) == name]
    if len(matches) > 1:
        raise OptionError(f"the variable {variable!r} could mean {' or '.join(map(repr, matches))}")
    return matches[0] if matches else name


def _merged(table: Table, over: Table) -> Table:
    """Return a source's table with the values of another one in place of its own."""
    options = {**table.get("options", {}), **over["options"]}
    return {**table, **over, "options": options}


def _source(source_id: str, table: Table, origin: str) -> DataSourceConfig:
    where = f"{origin}: [sources.{source_id}]"
    if not table.get("type"):
        reason = f"set it in the file or as {PREFIX}{source_id.upper()}__TYPE"
        raise OptionError(f"{where}: 'type' is missing; {reason}")
    limits = table.get("limits")
    if limits is not None:
        limits = _fill(Limits, limits, f"{where}: 'limits'")
    try:
        return DataSourceConfig(
            id=source_id,
            type=table["type"],
            name=table.get("name") or source_id,
            config=table.get("options", {}),
            metadata=table.get("metadata", {}),
            limits=limits,
            queries=read_queries(table.get("queries", {}), where),
        )
    except OptionError as exc:
        raise OptionError(f"{where}: {exc}") from None


def _fill(cls: type[T], table: Any, where: str) -> T:
    """Return a dataclass with the values of a table, in which `"none"` is None.

    The dataclasses check their fields themselves. Pydantic's TypeAdapter would take `true` for 1 and
    ignore unknown keys, and its import and construction 110 ms of every start of the command line.
    """
    values = {key: None if item == "none" else item for key, item in _table(table, where).items()}
    if cls is Policy and "limits" in values:
        values["limits"] = _fill(Limits, values["limits"], f"{where}: 'limits'")
    if cls is Policy and isinstance(references := values.get("allowed_references"), dict):
        values["allowed_references"] = {
            pattern: None if hosts == "none" else hosts for pattern, hosts in references.items()
        }
    return fill(cls, values, where)
