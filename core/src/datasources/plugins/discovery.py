"""The index of installed plugins: every entry point of ours, told without importing any."""

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
_OBJECT = re.compile(r"\w+(\.\w+)*\s*(:\s*\w+(\.\w+)*)?\s*(\[.*\])?")  # module:attribute [extra]
_TEXT_LIMIT = 500  # characters of somebody else's error text

Status = Literal["available", "disabled", "conflict", "broken", "loaded", "failed"]
"""`broken` is seen without importing the plugin, `failed` by importing it."""


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One entry point, or one distribution whose entry points cannot be read."""

    name: str
    """The connector's type; empty where it cannot be read."""
    group: str
    value: str
    """The module that the distribution names."""
    distribution: str | None
    """`None` for what the host registered itself."""
    version: str | None
    status: Status = "available"
    error: str | None = None
    """Why it cannot be used, secrets masked; `None` if it can."""
    requires: tuple[str, ...] = field(default=(), repr=False)
    """What the distribution depends on, as its metadata say it."""

    def __str__(self) -> str:
        kind = "connector" if self.is_connector else "plugin"
        return f"{kind} {self.name!r} of {self.source}"

    @property
    def is_connector(self) -> bool:
        """Whether it offers a type; the others serve the host in other ways."""
        return self.group == CONNECTORS_GROUP

    @property
    def source(self) -> str:
        """Name and version of the distribution."""
        return f"{self.distribution} {self.version}" if self.version else f"{self.distribution}"


def scan(path: Iterable[str] | None = None, *, refresh: bool = False) -> tuple[PluginEntry, ...]:
    """List what the installed distributions offer, without importing any of it.

    Args:
        path: The directories to search; by default `sys.path`.
        refresh: Search again; otherwise each search path is searched once per process.
    """
    if refresh:
        importlib.invalidate_caches()
        _scan.cache_clear()
    searched: Iterable[object] = sys.path if path is None else path
    # Python's own imports ignore whatever else stands on `sys.path`.
    return _scan(tuple(folder for folder in searched if isinstance(folder, str)))


def resolve_conflicts(
    index: Iterable[PluginEntry], prefer: Mapping[str, str], disable: Collection[str]
) -> list[PluginEntry]:
    """Mark in an index what is switched off and what is in conflict; see `Plugins`."""
    preferred = _environment_preferences() | dict(prefer)
    disabled = {normalized(name) for name in (*_listed("DATASOURCES_DISABLE"), *disable)}
    off = "switched off by the host or DATASOURCES_DISABLE"
    entries = [
        replace(entry, status="disabled", error=off)
        if disabled & {normalized(entry.name), normalized(entry.distribution or "")}
        else entry
        for entry in index
    ]
    claims: dict[str, list[PluginEntry]] = {}
    for entry in entries:
        if entry.is_connector and entry.status == "available":
            claims.setdefault(entry.name, []).append(entry)
    return [
        _resolve_conflict(entry, claims[entry.name], preferred.get(entry.name))
        if entry.is_connector and entry.status == "available"
        else entry
        for entry in entries
    ]


def installed_version(distribution: str) -> str | None:
    """Return the version of what is installed under this name, "" if that cannot be told."""
    from importlib_metadata import Distribution, PackageNotFoundError

    try:
        return _header(_metadata(Distribution.from_name(distribution)), "Version") or ""
    except PackageNotFoundError:
        return None
    except (OSError, ValueError):  # unreadable, or not UTF-8
        return ""


def describe(exc: BaseException) -> str:
    """Return an exception's type and text on one line, secrets masked, cut to a sensible length."""
    from datasources.redaction import redact_text

    try:
        # Masked as it stands: on one line, some secrets no longer look like any.
        text = " ".join(redact_text(str(exc)[:10_000]).split())
    except Exception:  # noqa: BLE001  (a plugin's exception may be broken itself)
        text = ""
    name = type(exc).__name__
    return redact_text(f"{name}: {text}" if text else name)[:_TEXT_LIMIT]


@lru_cache(maxsize=16)
def _scan(path: tuple[str, ...]) -> tuple[PluginEntry, ...]:
    from importlib_metadata import distributions

    entries: list[PluginEntry] = []
    first: dict[str, Distribution] = {}
    found: Iterable[Any] = distributions(path=list(path))
    for distribution in found:
        name = None
        try:
            # Private, but what `entry_points()` itself tells copies by; the public `name` would
            # parse the metadata of everything installed.
            name = distribution._normalized_name
            entries += _read(distribution, name, first)
        except Exception as exc:  # noqa: BLE001  (kept in the entry)
            reason = f"its metadata cannot be read: {describe(exc)}"
            shown = name.replace("_", "-") if name else str(distribution)
            entries.append(PluginEntry("", "", "", shown, None, "broken", reason))
    # Not in the order of folders, which differs from machine to machine.
    return tuple(sorted(entries, key=lambda e: (e.group, e.name, e.distribution or "")))


def _read(
    distribution: Distribution, name: str, first: dict[str, Distribution]
) -> list[PluginEntry]:
    """Return the entries of a distribution, none if an earlier one of that name hides it."""
    holder = first.setdefault(name, distribution)
    text = distribution.read_text("entry_points.txt") or ""
    if not any(group in text for group in _GROUPS) or name.startswith("~"):  # pip's leftovers
        return []
    if holder is not distribution:
        if _metadata(holder):
            return []
        first[name] = distribution  # the other is an empty folder that an uninstall left
    metadata = _metadata(distribution)
    title, version = _header(metadata, "Name"), _header(metadata, "Version")
    missing = [header for header, got in (("Name", title), ("Version", version)) if not got]
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
        for group, entry, value, fault in _parse(text)
    ]


def _metadata(distribution: Distribution) -> str:
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""


def _header(metadata: str, name: str) -> str | None:
    return next(iter(_headers(metadata, name)), None)


def _headers(metadata: str, name: str) -> list[str]:
    # Importing the standard library's parser of such headers takes as long as the whole scan.
    head = metadata.split("\n\n", 1)[0]
    return re.findall(rf"^{name}:[ \t]*(\S.*?)[ \t]*$", head, re.MULTILINE | re.IGNORECASE)


def _parse(text: str) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield group, name, value and what is wrong with it, of each entry point in our groups."""
    group = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        where = f"line {number} of its entry_points.txt is not"
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line.startswith("[") and any(known in line for known in _GROUPS):
            group = ""
            yield "", "", "", f"{where} a section in brackets"
        elif line and line[0] not in "#;" and group in _GROUPS:
            name, _, value = map(str.strip, line.partition("="))
            fault = None
            if not name or not _OBJECT.fullmatch(value):
                fault = f"{where} of the form 'name = module'"
            elif group == CONNECTORS_GROUP and not TYPE_NAME.fullmatch(name):
                fault = f"{name!r} is not a type name: lower-case letters, digits and underscores"
            yield group, name, value, fault


def _resolve_conflict(
    entry: PluginEntry, claims: Sequence[PluginEntry], preferred: str | None
) -> PluginEntry:
    """Return one of the claims to a type as the preference, never their order, leaves it."""
    offers = " and ".join(claim.source for claim in claims)
    if preferred is None:
        if len(claims) == 1:
            return entry
        example = f"{entry.name}={claims[0].distribution}"
        way = f"prefer one, as in DATASOURCES_PREFER={example}, or disable the other"
        reason = f"{entry.name!r} is offered by {offers}; {way}"
        return replace(entry, status="conflict", error=reason)
    chosen = [c for c in claims if normalized(c.distribution or "") == normalized(preferred)]
    if len(chosen) != 1:
        reason = f"{entry.name!r} is to come from {preferred}, but is offered by {offers}"
        return replace(entry, status="conflict", error=reason)
    if entry is chosen[0]:
        return entry
    return replace(entry, status="disabled", error=f"passed over: {preferred} is preferred")


def normalized(name: str) -> str:
    """Return a name as those of distributions are compared: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _listed(variable: str) -> list[str]:
    return [item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()]


def _environment_preferences() -> dict[str, str]:
    preferred = {}
    for item in _listed("DATASOURCES_PREFER"):
        name, _, distribution = map(str.strip, item.partition("="))
        if not name or not distribution:
            raise OptionError(f"DATASOURCES_PREFER: {item!r} is not of the form type=distribution")
        preferred[name] = distribution
    return preferred
