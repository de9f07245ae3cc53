"""Whether a plugin fits: its requirements before it is imported, its contract afterwards."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable

from datasources.errors import PluginError, PluginIncompatibleError, PluginLoadError
from datasources.plugins.discovery import PluginEntry, installed_version, normalized

_CORE = "datasources"
_PLAIN = re.compile(
    r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*\(?((?:(?:>=|<)\s*[\d.]+[,\s]*)*)\)?"
)
_PLAIN_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*")
_OF_AN_EXTRA = re.compile(r"""[^;]*;\s*extra\s*==\s*(['"])[^'"]*\1\s*""")


def unmet(entry: PluginEntry) -> tuple[str, type[PluginError]] | None:
    """Return what a plugin requires and does not find, and the error that it is; None if nothing.

    Extras of what it requires are the installer's business; a line that cannot be read is
    nobody's reason not to try.
    """
    extras = re.findall(r"[\w.-]+", (entry.value + "[").split("[")[1])
    for line in entry.requires:
        if (_OF_AN_EXTRA.fullmatch(line) and not extras) or _plainly_met(line):
            continue
        if reason := _unmet(line, extras or [""], entry):
            return reason
    return None


def check_api_version(cls: type, oldest: int, newest: int) -> str | None:
    """Return why core cannot serve a connector class of this contract, None if it can."""
    version: object = getattr(cls, "api_version", None)
    shown = f"{cls.__qualname__!r} has api_version {version!r}"
    if type(version) is not int or not oldest <= version <= newest:
        spoken = f"{newest}" if oldest == newest else f"{oldest} to {newest}"
        old = _CORE if isinstance(version, int) and version > newest else "the plugin"
        return f"{shown}, this core speaks {spoken}; upgrade {old}"
    if version < newest:
        warn_author(cls, f"{shown}; the newest is {newest}, and {oldest} the oldest still served")
    return None


def warn_author(cls: type, message: str) -> None:
    """Give a DeprecationWarning at the place of a plugin's class.

    Python shows these to who runs the plugin's tests, and to nobody who runs the host.
    """
    import inspect  # as dear as all the rest here

    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
    try:
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # no source there
        line = 1
    warnings.warn_explicit(message, DeprecationWarning, file, line, module=cls.__module__)


def _plainly_met(line: str) -> bool:
    """Tell whether a requirement that compares plain numbers is met.

    That is nearly every one, and importing `packaging` would hold up the start of every host.
    """
    match = _PLAIN.fullmatch(line)
    version = _version(match[1]) if match else None
    if match is None or version is None:
        return False
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", match[2])
    if not all(_PLAIN_VERSION.fullmatch(number) for number in (version, *(b for _, b in bounds))):
        return not bounds
    here = _numbers(version)
    return all((here >= _numbers(b)) == (operator == ">=") for operator, b in bounds)


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _version(distribution: str) -> str | None:
    """Return the version that is installed; of core, the one that runs, installed or not."""
    if normalized(distribution) == _CORE:
        return str(sys.modules[_CORE].__version__)
    return installed_version(distribution)


def _unmet(
    line: str, extras: Iterable[str], entry: PluginEntry
) -> tuple[str, type[PluginError]] | None:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion, Version

    try:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            return None
        core = normalized(requirement.name) == _CORE
        version = _version(requirement.name)
        accepted = [Version(version)] if version else []
    except (InvalidRequirement, InvalidVersion, UndefinedComparison, UndefinedEnvironmentName):
        return None
    if core:  # one that is being developed stands for the release that it will be
        accepted += [Version(each.base_version) for each in accepted]
    specifier = requirement.specifier
    if version == "" or any(specifier.contains(each, prereleases=True) for each in accepted):
        return None
    wanted = f"{requirement.name}{specifier}"
    found = f"{requirement.name} {version} is installed" if version else "it is not installed"
    way = f"--upgrade {_CORE} {entry.distribution}" if core else f'"{wanted}"'
    kind = PluginIncompatibleError if core else PluginLoadError
    return f"it requires {wanted!r}, but {found}: pip install {way}", kind
