"""Updates of stored sources: merge patches, and the secrets that they must give again.

The document of a source is `{"name", "config", "metadata", "limits", "queries"}`. Changes are a JSON merge
patch (RFC 7396) of it: what they leave out stays as it is, None removes, and objects are merged.

Whoever may change a source need not know its secrets, and must not learn them by having them sent
to a host of their own. So an update that changes the destination of a source, as
`ConnectorOptions.destination` defines it, must give every secret of the source again. A reference
is a secret by itself: who sends the update may not be able to read what `${env:NAME}` stands for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasources.errors import OptionError, SecretRequiredError, StoreError
from datasources.models import DataSourceConfig, Limits, fill, is_whole
from datasources.nested import leaves
from datasources.policy import Policy
from datasources.redaction import MARK, REFERENCE, is_secret_name, redact
from datasources.registry.factory import ConnectorFactory
from datasources.registry.records import SourceRecords, ValidatedConfig, conflict_error
from datasources.retrying import backoff
from datasources.stored_queries import read_queries
from datasources.stores import StoredSource

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions

    OptionsClass = type[ConnectorOptions]

_KEYS = ("name", "config", "metadata", "limits", "queries")
_FIXED = ("id", "type", "created_at")
# Seconds after which every host sees what another one has written, by the contract of `Store`.
_STORE_DELAY = 1.0

_Path = tuple[str, ...]  # the keys that lead to a value through nested mappings


@dataclass(frozen=True, slots=True)
class RequiredSecrets:
    """The secrets that an update must give again because it changes the destination."""

    changed: Sequence[str]
    """The parts of the destination that differ; empty if none does."""
    missing: Sequence[_Path]
    """The secrets that stay set and are not among the changes."""

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that hold the missing secrets."""
        return tuple(dict.fromkeys(path[0] for path in self.missing))


class SourceUpdates:
    """Applies updates to the records of a registry.

    Args:
        records: The records.
        factory: Validates the sources as they are to be.
        policy: Of the registry.
    """

    def __init__(self, records: SourceRecords, factory: ConnectorFactory, policy: Policy) -> None:
        self._records = records
        self._factory = factory
        self._policy = policy

    async def update(
        self,
        source_id: str,
        changes: Mapping[str, Any],
        *,
        expected: int | None,
        test: Callable[[DataSourceConfig], Awaitable[object]] | None,
        by_administrator: bool,
    ) -> StoredSource:
        """Update a source and return its new record; see `DataSourceRegistry.update_data_source`.

        If somebody else is faster, the changes are applied anew to what they have stored, unless a
        version is expected.
        """
        tested: dict[str, Any] | None = None
        while True:
            record = await self.expected_record(source_id, expected)
            new = await self.apply(record, changes, by_administrator=by_administrator)
            if test is not None and tested != new[0].config:
                await test(new[0])
                tested = new[0].config
            try:
                return await asyncio.to_thread(self._records.replace, record, new)
            except StoreError:
                current = self._records.get(source_id)
                if current.version == record.version:
                    raise
                if expected is not None:
                    raise conflict_error(current, expected) from None

    async def set_paused(self, source_id: str, reason: str | None, expected: int | None) -> None:
        """Pause or resume a source; see `DataSourceRegistry.pause`."""
        await self.expected_record(source_id, expected)
        await asyncio.to_thread(self._records.set_paused, source_id, reason, expected)

    async def remove(self, source_id: str, expected: int | None) -> None:
        """Remove the record of a source; see `DataSourceRegistry.unregister_data_source`."""
        store = self._records.store
        if expected is None:
            if not await asyncio.to_thread(store.remove, source_id):
                self._records.get(source_id)  # raises that there is none
            return
        record = await self.expected_record(source_id, expected)
        try:
            await asyncio.to_thread(store.remove_unchanged, record)
        except StoreError:
            current = self._records.get(source_id)
            if current.version == expected:
                raise
            raise conflict_error(current, expected) from None

    async def apply(
        self, record: StoredSource, changes: Mapping[str, Any], *, by_administrator: bool
    ) -> ValidatedConfig:
        """Return a source as it is after changes, validated; nothing is stored.

        Raises:
            OptionError: The changes are malformed, or the options are not valid after them.
            PolicyError: The policy does not allow the source after them; or they have a reference
                that is not bound to hosts, and do not come from an administrator.
            SecretRequiredError: They change the destination, and do not give every secret again.
            DecryptionError: None of the keys opens the record.
        """
        changes = _checked_changes(record.id, changes)
        old = self._records.config(record, decrypt=True, sanitize=False)
        options_class = (await self._factory.connector_class(old.type)).options_class
        patch = _options_patch(old.config, changes)
        if not by_administrator:
            self._policy.check_bound(record.id, patch)
        new = _changed(old, changes, options_class, patch)
        validated = await self._factory.validate(new)
        required = required_secrets(options_class, old.config, new.config, patch)
        if not required.missing:
            return validated
        references = [path for path in required.missing if _is_reference(new.config, path)]
        if by_administrator or len(references) < len(required.missing):
            raise _secret_required(record.id, required)
        # Others may not keep the references of an administrator for a destination of their own.
        new = dataclasses.replace(new, config=_without(new.config, references))
        try:
            return await self._factory.validate(new)
        except OptionError as exc:
            raise _secret_required(record.id, required) from exc

    async def expected_record(self, source_id: str, expected: int | None) -> StoredSource:
        """Return the record of a source, if it is of the version expected.

        A higher version than the record's may be one that another host has just written, and that
        this one does not see yet.

        Raises:
            ConflictError: It is of another version.
            OptionError: `expected` is no version.
        """
        if not (expected is None or is_whole(expected, 0)):
            raise OptionError("'expected' must be a version: a whole number of at least 0, or None")
        deadline = time.monotonic() + _STORE_DELAY
        for pause in backoff(first=0.02, maximum=0.2):
            record = self._records.get(source_id)
            if expected is None or record.version == expected:
                break
            if record.version > expected or time.monotonic() > deadline:
                raise conflict_error(record, expected)
            await asyncio.sleep(pause)
        return record


def merge_patch(target: Any, patch: Any) -> Any:
    """Return a value after a JSON merge patch (RFC 7396); the value itself stays as it is."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def required_secrets(
    options_class: OptionsClass | None,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    patch: Mapping[str, Any],
) -> RequiredSecrets:
    """Return the secrets that an update must give again.

    Args:
        options_class: The connector's.
        old: The options as they are stored, in clear.
        new: The options after the update.
        patch: The update, as a merge patch of the options.
    """
    from datasources.options import destinations

    before, after = destinations(options_class, old, new)
    missing = object()
    changed = [
        name
        for name in dict.fromkeys([*before, *after])
        if before.get(name, missing) != after.get(name, missing)
    ]
    if not changed:
        return RequiredSecrets((), ())
    # `hosts()` follows from options, which are named where the connector does not choose its own.
    named = [name for name in changed if name != "hosts()"] or ["host"]
    secrets = [path for path in _secrets_in(options_class, new) if not _is_given(patch, path)]
    return RequiredSecrets(named, secrets)


def _checked_changes(source_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of changes, of the values that JSON has.

    Raises:
        OptionError: They are malformed; the message repeats no value.
    """
    where = f"source {source_id!r}"
    _check_form(where, changes)
    try:
        copied: dict[str, Any] = json.loads(
            json.dumps({key: _plain(value) for key, value in changes.items()}, allow_nan=False)
        )
    except (TypeError, ValueError, RecursionError):
        raise OptionError(f"{where}: changes must be values that JSON can hold") from None
    for name, value in (copied.get("config") or {}).items():
        if any(isinstance(leaf, str) and MARK in leaf for leaf in leaves(value)):
            raise OptionError(
                f"{where}: option {name!r} comes from a masked copy; give the secret itself"
            )
    return copied


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _check_form(where: str, changes: Mapping[str, Any]) -> None:
    if not isinstance(changes, Mapping):
        raise OptionError(f"{where}: changes are a mapping with {', '.join(map(repr, _KEYS))}")
    for key in changes:
        if key in _FIXED:
            raise OptionError(f"{where}: {key!r} cannot be changed")
        if key not in _KEYS:
            raise OptionError(
                f"{where}: unknown {key!r}; changes have {', '.join(map(repr, _KEYS))}, and options "
                "stand under 'config'"
            )
    if "name" in changes and not isinstance(changes["name"], str):
        raise OptionError(f"{where}: 'name' must be text")
    for key in ("config", "metadata", "limits", "queries"):
        if not isinstance(changes.get(key), Mapping | None):
            raise OptionError(f"{where}: the changes of {key!r} must be a mapping, or None")


def _options_patch(old: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes of the options; None for all of them removes each."""
    if "config" in changes and changes["config"] is None:
        return dict.fromkeys(old)
    return dict(changes.get("config", {}))


def _changed(
    old: DataSourceConfig,
    changes: Mapping[str, Any],
    options_class: OptionsClass | None,
    patch: Mapping[str, Any],
) -> DataSourceConfig:
    """Return a configuration after changes, not validated."""
    limits = old.limits
    if "limits" in changes:
        limits = None
        if changes["limits"] is not None:
            # A limit that is removed is none, as a `None` in `Limits` is.
            current = dataclasses.asdict(old.limits or Limits())
            values = {**current, **changes["limits"]}
            limits = fill(Limits, values, f"source {old.id!r}: 'limits'")
    queries = old.queries
    if "queries" in changes:
        tables = {name: query.to_dict() for name, query in queries.items()}
        queries = read_queries(merge_patch(tables, changes["queries"]) or {}, f"source {old.id!r}")
    return dataclasses.replace(
        old,
        queries=queries,
        name=changes.get("name", old.name),
        config=merge_patch(_renamed(old.config, options_class, patch), patch),
        metadata=merge_patch(old.metadata, changes.get("metadata", {})) or {},
        limits=limits,
    )


def _renamed(
    options: Mapping[str, Any], options_class: OptionsClass | None, patch: Mapping[str, Any]
) -> dict[str, Any]:
    """Return options under the names by which a patch changes them, where they have aliases."""
    if options_class is None:
        return dict(options)
    from datasources.option_types import option_names

    names: dict[str, str] = {}
    for field in options_class.fields():
        aliases = option_names(field)
        if given := [name for name in aliases if name in patch]:
            names |= dict.fromkeys(aliases, given[0])
    return {names.get(name, name): value for name, value in options.items()}


def _secrets_in(options_class: OptionsClass | None, options: Mapping[str, Any]) -> Iterator[_Path]:
    """Yield the paths of the values in options that are secrets, or hold them."""
    if options_class is None:
        public: set[str] = {name for name in options if not is_secret_name(name)}
    else:
        from datasources.option_types import is_secret, option_names

        public = {
            name
            for field in options_class.fields()
            if not is_secret(field[1].annotation)
            for name in option_names(field)
        }
    for path, value in _values(options):
        # The author of a declared option has said that it is no secret, so only its value counts.
        name = "" if options_class is not None else path[-1]
        is_set = not (value is None or isinstance(value, bool) or value in ("", []))
        if is_set and (
            path[0] not in public
            or redact({name: value}) != {name: value}
            or any(isinstance(leaf, str) and REFERENCE.search(leaf) for leaf in leaves(value))
        ):
            yield path


def _values(options: Mapping[str, Any], above: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Yield path and value of all that is no mapping, which a merge patch replaces as a whole."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _values(value, (*above, name))
        else:
            yield (*above, name), value


def _is_given(patch: Any, path: _Path) -> bool:
    for name in path:
        if not isinstance(patch, Mapping) or name not in patch:
            return False
        patch = patch[name]
    return True


def _is_reference(options: Any, path: _Path) -> bool:
    for name in path:
        options = options[name]
    return any(isinstance(leaf, str) and REFERENCE.search(leaf) for leaf in leaves(options))


def _without(options: dict[str, Any], paths: Sequence[_Path]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for path in paths:
        table = patch
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = None
    merged: dict[str, Any] = merge_patch(options, patch)
    return merged


def _secret_required(source_id: str, required: RequiredSecrets) -> SecretRequiredError:
    changed, missing = (
        ", ".join(map(repr, names))
        for names in (required.changed, (".".join(path) for path in required.missing))
    )
    return SecretRequiredError(
        f"source {source_id!r}: a change of {changed} decides where secrets are sent, so every "
        f"secret has to be given again or removed; missing: {missing}",
        options=required.options,
    )
