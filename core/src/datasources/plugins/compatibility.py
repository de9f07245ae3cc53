"""Check that a plugin fits: its requirements before it is imported, its hooks and class afterwards.

Nearly every requirement compares plain version numbers, such as `datasources>=0.1,<1`. These are
checked here, without `packaging`, whose import takes 70 ms of the start of every host. All others
go to `packaging`; tests compare the two.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from datasources.errors import PluginError, PluginIncompatibleError, PluginLoadError
from datasources.plugins import hookspecs
from datasources.plugins.discovery import PluginEntry, installed_version, normalized

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector

_CORE = "datasources"
HOOK_PREFIX = f"{hookspecs.PROJECT}_"
_KNOWN_HOOKS = [name for name in vars(hookspecs) if name.startswith(HOOK_PREFIX)]
_SIMPLE_REQUIREMENT = re.compile(
    r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*\(?((?:(?:>=|<)\s*[\d.]+[,\s]*)*)\)?"
)
_SIMPLE_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*")
_FOR_AN_EXTRA = re.compile(
    r"""
    [^;]*;\s*
    (?:(?:\([^()]*\)|(?:(?!\bor\b)[^()])*)\s*\band\s+)?  # another condition, which must hold as well
    extra\s*==\s*(['"])[^'"]*\1\s*
    """,
    re.VERBOSE,
)


def unmet_requirement(entry: PluginEntry) -> tuple[str, type[PluginError]] | None:
    """Return the first requirement that is not met, in words, and the error to raise; else None.

    Requirements are those of the distribution, and of the extras that the entry point names.
    Extras of required distributions are not checked. A requirement that cannot be parsed is
    ignored: the plugin is loaded anyway.
    """
    extras = re.findall(r"[\w.-]+", (entry.value + "[").split("[")[1])
    for line in entry.requires:
        if (_FOR_AN_EXTRA.fullmatch(line) and not extras) or _satisfied_without_packaging(line):
            continue
        if reason := _unmet_by_packaging(line, extras or [""], entry):
            return reason
    return None


class RefusedError(Exception):
    """Raised for a fault of a plugin; callers of `Plugins` get the `PluginError` that it names."""

    def __init__(self, reason: str, error_class: type[PluginError] = PluginLoadError) -> None:
        super().__init__(reason)
        self.error_class = error_class


def check_hook(hook: str, function: object, options: Mapping[str, Any]) -> None:
    """Check a function that a plugin marked as a hook; `options` are those of `hookimpl`.

    Raises:
        RefusedError: It would never be called, or not be called one by one.
    """
    if hook not in _KNOWN_HOOKS and not options.get("optionalhook"):
        raise RefusedError(f"its hook {hook!r} is not known{closest_hook(hook)}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise RefusedError(f"its hook {hook!r} is async; hooks are plain functions")
    if options.get("wrapper") or options.get("hookwrapper"):
        raise RefusedError(f"its hook {hook!r} is a wrapper; hooks are called one by one")


def closest_hook(hook: str) -> str:
    """Return the end of an error: the hook whose name is closest, nothing if it is known."""
    if hook in _KNOWN_HOOKS:
        return ""
    from difflib import get_close_matches

    (closest,) = get_close_matches(hook, _KNOWN_HOOKS, n=1, cutoff=0)
    return f"; the closest hook is {closest!r}"


def select_class(classes: object, type_name: str) -> type[DataSourceConnector]:
    """Return the class of a type among those that `datasources_connectors` returned.

    Raises:
        RefusedError: There is not exactly one, or it is not a connector that this core can use.
    """
    if not isinstance(classes, (list, tuple)):
        what = f"a {type(classes).__name__}"
        raise RefusedError(f"'datasources_connectors' returned {what}, not a list of classes")
    matching = [cls for cls in classes if getattr(cls, "type", None) == type_name]
    if len(matching) != 1:
        types = ", ".join(repr(getattr(cls, "type", None)) for cls in classes) or "none"
        reason = f"one class of type {type_name!r}, as its entry point is named, is needed"
        raise RefusedError(f"{reason}; 'datasources_connectors' returned: {types}")
    (cls,) = matching
    check_class(cls)
    return cls  # type: ignore[no-any-return]  # it has been checked


def check_class(cls: object) -> None:
    """Check that a class is a connector that this core can use.

    Raises:
        RefusedError: It is not.
    """
    from datasources import connector

    if not (isinstance(cls, type) and issubclass(cls, connector.DataSourceConnector)):
        raise RefusedError(f"{_class_name(cls)} is not a subclass of DataSourceConnector")
    if reason := check_api_version(cls, connector.OLDEST_API_VERSION, connector.API_VERSION):
        raise RefusedError(reason, PluginIncompatibleError)
    if missing := sorted(cls.__abstractmethods__):
        raise RefusedError(f"{_class_name(cls)} lacks {', '.join(missing)}")


def _class_name(cls: object) -> str:
    return repr(getattr(cls, "__qualname__", None) or type(cls).__name__)


def check_api_version(cls: type, oldest: int, newest: int) -> str | None:
    """Return the reason why core cannot use a connector class of this contract, None if it can.

    An `api_version` older than the newest is a DeprecationWarning to the plugin's author.
    """
    version: object = getattr(cls, "api_version", None)
    subject = f"{cls.__qualname__!r} has api_version {version!r}"
    if type(version) is not int or not oldest <= version <= newest:
        supported = f"{newest}" if oldest == newest else f"{oldest} to {newest}"
        outdated = _CORE if isinstance(version, int) and version > newest else "the plugin"
        return f"{subject}, this core speaks {supported}; upgrade {outdated}"
    if version < newest:
        warn_author(cls, f"{subject}; the newest is {newest}, and {oldest} the oldest still served")
    return None


def warn_author(cls: type, message: str) -> None:
    """Emit a DeprecationWarning at the definition of a plugin's class.

    Test runners show such warnings to the author of the plugin; Python hides them from its users.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
    try:
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # the source is not there
        line = 1
    warnings.warn_explicit(message, DeprecationWarning, file, line, module=cls.__module__)


def _satisfied_without_packaging(line: str) -> bool:
    """Return True if a requirement that compares plain numbers is met.

    False means that it is not met, or is not of that kind.
    """
    match = _SIMPLE_REQUIREMENT.fullmatch(line)
    version = _version_of(match[1]) if match else None
    if match is None or version is None:
        return False
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", match[2])
    versions = (version, *(bound for _, bound in bounds))
    if not all(_SIMPLE_VERSION.fullmatch(number) for number in versions):
        return not bounds
    installed = _numbers(version)
    return all(
        installed >= _numbers(bound) if operator == ">=" else installed < _numbers(bound)
        for operator, bound in bounds
    )


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _version_of(distribution: str) -> str | None:
    """Return the installed version; for core, the version that runs, installed or not."""
    if normalized(distribution) == _CORE:
        return str(sys.modules[_CORE].__version__)
    return installed_version(distribution)


def _unmet_by_packaging(
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
        version = _version_of(requirement.name)
        accepted = [Version(version)] if version else []
    except (InvalidRequirement, InvalidVersion, UndefinedComparison, UndefinedEnvironmentName):
        return None
    if core:  # a development version of core counts as the release that it will be
        accepted += [Version(candidate.base_version) for candidate in accepted]
    specifier = requirement.specifier
    if version == "" or any(specifier.contains(v, prereleases=True) for v in accepted):
        return None
    required = f"{requirement.name}{specifier}"
    installed = f"{requirement.name} {version} is installed" if version else "it is not installed"
    arguments = f"--upgrade {_CORE} {entry.distribution}" if core else f'"{required}"'
    error = PluginIncompatibleError if core else PluginLoadError
    return f"it requires {required!r}, but {installed}: pip install {arguments}", error
