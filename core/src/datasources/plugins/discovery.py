"""Find installed plugins: read the entry points of all distributions, without importing any.

Of each distribution, the text of its entry points is read and searched for the groups of this
project. `importlib.metadata.entry_points` would raise for all if the file of one cannot be read.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from datasources.errors import OptionError
from datasources.names import CONNECTORS_GROUP, PLUGINS_GROUP, TYPE_NAME

if TYPE_CHECKING:
    from importlib_metadata import Distribution

_GROUPS = (CONNECTORS_GROUP, PLUGINS_GROUP)
_OBJECT_REFERENCE = re.compile(
    r"\w+(\.\w+)*\s*(:\s*\w+(\.\w+)*)?\s*(\[.*\])?"
)  # module:attribute [extra]
_TEXT_LIMIT = 500  # characters of somebody else's error text

Status = Literal["available", "disabled", "conflict", "broken", "loaded", "failed"]
"""A plugin is `broken` if its metadata are faulty, and `failed` if importing it raised."""


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """An entry point of a distribution, or a distribution whose entry points cannot be read."""

    name: str
    """The connector's type, or the plugin's name; empty if the entry points cannot be read."""
    group: str
    value: str
    """The object that the entry point refers to: a module, or `module:attribute`."""
    distribution: str | None
    """Its name; `None` for a class that the host registered."""
    version: str | None
    status: Status = "available"
    error: str | None = None
    """The reason why it cannot be used, secrets masked; `None` if it can."""
    requires: tuple[str, ...] = field(default=(), repr=False)
    """The requirements of the distribution, the `Requires-Dist` lines of its metadata."""

    def __str__(self) -> str:
        role = "connector" if self.is_connector else "plugin"
        return f"{role} {self.name!r} of {self.source}"

    @property
    def is_connector(self) -> bool:
        """True if it offers a connector type."""
        return self.group == CONNECTORS_GROUP

    @property
    def source(self) -> str:
        """Name and version of the distribution."""
        return f"{self.distribution} {self.version}" if self.version else f"{self.distribution}"


def scan(path: Iterable[str] | None = None, *, refresh: bool = False) -> tuple[PluginEntry, ...]:
    """List the entry points of the installed distributions, without importing any.

    Args:
        path: The directories to search; by default `sys.path`.
        refresh: Search again; otherwise each search path is searched once per process.
    """
    if refresh:
        importlib.invalidate_caches()
        _scan.cache_clear()
    searched: Iterable[object] = sys.path if path is None else path
    # Only strings: Python's own import system ignores everything else on `sys.path`, too.
    return _scan(tuple(folder for folder in searched if isinstance(folder, str)))


def resolve_conflicts(
    index: Iterable[PluginEntry], prefer: Mapping[str, str], disable: Collection[str]
) -> list[PluginEntry]:
    """Return the entries with those marked that are disabled or in conflict with others.

    Args:
        index: The entries, as `scan` returns them.
        prefer: As for `Plugins`.
        disable: As for `Plugins`.

    Raises:
        OptionError: `DATASOURCES_PREFER` is malformed.
    """
    preferred = _environment_preferences() | dict(prefer)
    disabled = {normalized(name) for name in (*_names_in("DATASOURCES_DISABLE"), *disable)}
    reason = "switched off by the host or DATASOURCES_DISABLE"
    entries = [
        replace(entry, status="disabled", error=reason)
        if disabled & {normalized(entry.name), normalized(entry.distribution or "")}
        else entry
        for entry in index
    ]
    rivals: dict[str, list[PluginEntry]] = {}
    for entry in entries:
        if entry.is_connector and entry.status == "available":
            rivals.setdefault(entry.name, []).append(entry)
    return [
        _resolve_conflict(entry, rivals[entry.name], preferred.get(entry.name))
        if entry.is_connector and entry.status == "available"
        else entry
        for entry in entries
    ]


def installed_version(distribution: str) -> str | None:
    """Return a distribution's version: None if it is not installed, "" if it cannot be read."""
    from importlib_metadata import Distribution, PackageNotFoundError

    try:
        return _header(_metadata(Distribution.from_name(distribution)), "Version") or ""
    except PackageNotFoundError:
        return None
    except (OSError, ValueError):  # unreadable, or not UTF-8
        return ""


def describe_error(exc: BaseException) -> str:
    """Return an exception's type and text on one line of 500 characters, secrets masked."""
    from datasources.redaction import redact_text

    try:
        # Masked before its lines are joined: some secrets are recognised by the end of their line.
        text = " ".join(redact_text(str(exc)[:10_000]).split())
    except Exception:  # noqa: BLE001  (a plugin's exception may be broken itself)
        text = ""
    name = type(exc).__name__
    return redact_text(f"{name}: {text}" if text else name)[:_TEXT_LIMIT]


@lru_cache(maxsize=16)
def _scan(path: tuple[str, ...]) -> tuple[PluginEntry, ...]:
    from importlib_metadata import distributions

    entries: list[PluginEntry] = []
    by_name: dict[str, Distribution] = {}
    installed: Iterable[Any] = distributions(path=list(path))
    for distribution in installed:
        name = None
        try:
            # Private, but `entry_points()` itself finds copies by it; reading the public `name`
            # would parse the metadata of everything that is installed.
            name = distribution._normalized_name
            entries += _read_entries(distribution, name, by_name)
        except Exception as exc:  # noqa: BLE001  (kept in the entry)
            reason = f"its metadata cannot be read: {describe_error(exc)}"
            title = name.replace("_", "-") if name else str(distribution)
            entries.append(PluginEntry("", "", "", title, None, "broken", reason))
    # Sorted: the order in which folders are listed differs from machine to machine.
    return tuple(sorted(entries, key=lambda e: (e.group, e.name, e.distribution or "")))


def _read_entries(
    distribution: Distribution, name: str, by_name: dict[str, Distribution]
) -> list[PluginEntry]:
    """Return the entries of a distribution; none if an earlier one of its name hides it.

    Args:
        distribution: The distribution.
        name: Its normalized name.
        by_name: The distributions that were read before it, to which it is added.
    """
    earlier = by_name.setdefault(name, distribution)
    text = distribution.read_text("entry_points.txt") or ""
    if not any(group in text for group in _GROUPS) or name.startswith("~"):  # pip's leftovers
        return []
    if earlier is not distribution:
        if _metadata(earlier):
            return []
        by_name[name] = distribution  # the earlier one is an empty folder that an uninstall left
    metadata = _metadata(distribution)
    title, version = _header(metadata, "Name"), _header(metadata, "Version")
    missing = [header for header, value in (("Name", title), ("Version", version)) if not value]
    requires = tuple(_headers(metadata, "Requires-Dist"))
    lack = f"its METADATA lacks {' and '.join(missing)}" if missing else None
    return [
        PluginEntry(
            name=entry,
            group=group,
            value=value,
            distribution=title or name.replace("_", "-"),
            version=version,
            status="broken" if lack or fault else "available",
            error=lack or fault,
            requires=requires,
        )
        for group, entry, value, fault in _parse_entry_points(text)
    ]


def _metadata(distribution: Distribution) -> str:
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""


def _header(metadata: str, name: str) -> str | None:
    return next(iter(_headers(metadata, name)), None)


def _headers(metadata: str, name: str) -> list[str]:
    # Importing the standard library's parser of such headers takes as long as the whole scan.
    head = metadata.split("\n\n", 1)[0]
    return re.findall(rf"^{name}:[ \t]*(\S.*?)[ \t]*$", head, re.MULTILINE | re.IGNORECASE)


def _parse_entry_points(text: str) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield group, name, value and fault, if any, of each entry point in this project's groups."""
    group = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        where = f"line {number} of its entry_points.txt is not"
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line.startswith("[") and any(name in line for name in _GROUPS):
            group = ""
            yield "", "", "", f"{where} a section in brackets"
        elif line and line[0] not in "#;" and group in _GROUPS:
            name, _, value = map(str.strip, line.partition("="))
            fault = None
            if not name or not _OBJECT_REFERENCE.fullmatch(value):
                fault = f"{where} of the form 'name = module'"
            elif group == CONNECTORS_GROUP and not TYPE_NAME.fullmatch(name):
                fault = f"{name!r} is not a type name: lower-case letters, digits and underscores"
            yield group, name, value, fault


def _resolve_conflict(
    entry: PluginEntry, rivals: Sequence[PluginEntry], preferred: str | None
) -> PluginEntry:
    """Return an entry with the status that it has among those that offer its type.

    The preference decides, never the order in which they were found.

    Args:
        entry: One of the rivals.
        rivals: All available entries of the type.
        preferred: The distribution to take it from, if the host prefers one.
    """
    offers = " and ".join(rival.source for rival in rivals)
    if preferred is None:
        if len(rivals) == 1:
            return entry
        example = f"{entry.name}={rivals[0].distribution}"
        remedy = f"prefer one, as in DATASOURCES_PREFER={example}, or disable the other"
        reason = f"{entry.name!r} is offered by {offers}; {remedy}"
        return replace(entry, status="conflict", error=reason)
    chosen = [c for c in rivals if normalized(c.distribution or "") == normalized(preferred)]
    if len(chosen) != 1:
        reason = f"{entry.name!r} is to come from {preferred}, but is offered by {offers}"
        return replace(entry, status="conflict", error=reason)
    if entry is chosen[0]:
        return entry
    return replace(entry, status="disabled", error=f"passed over: {preferred} is preferred")


def normalized(name: str) -> str:
    """Return the normalized name of a distribution, as PEP 503 defines it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names_in(variable: str) -> list[str]:
    """Return the comma-separated names in an environment variable."""
    return [item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()]


def _environment_preferences() -> dict[str, str]:
    preferred = {}
    for item in _names_in("DATASOURCES_PREFER"):
        name, _, distribution = map(str.strip, item.partition("="))
        if not name or not distribution:
            raise OptionError(f"DATASOURCES_PREFER: {item!r} is not of the form type=distribution")
        preferred[name] = distribution
    return preferred
