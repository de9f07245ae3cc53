"""What a host may use of the installed plugins, each imported when it is asked for.

Whatever is wrong with a plugin stays with its entry, and is raised only to who asks for its type.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pluggy

from datasources.errors import (
    PluginConflictError,
    PluginError,
    PluginIncompatibleError,
    PluginLoadError,
    UnknownConnectorError,
)
from datasources.names import CONNECTORS_GROUP, PLUGINS_GROUP
from datasources.plugins import hookspecs
from datasources.plugins.compatibility import check_api_version, unmet
from datasources.plugins.discovery import PluginEntry, describe, resolve_conflicts, scan
from datasources.plugins.hookspecs import PROJECT

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector

__all__ = ["PluginEntry", "Plugins", "scan"]

IMPORT_TIMEOUT = 60.0
"""Seconds; the slowest driver known takes one or two."""

_PREFIX = f"{PROJECT}_"
_REASON_LIMIT = 1_000  # characters; a plugin may return anything
_KNOWN_HOOKS = [name for name in vars(hookspecs) if name.startswith(_PREFIX)]


class Plugins:
    """The plugins a host may use; safe under threads.

    Args:
        index: What to resolve_conflicts from; by default what `scan` finds.
        prefer: By type, the distribution to take it from where several offer it; goes before
            `DATASOURCES_PREFER` (`type=distribution`, comma-separated).
        disable: Types and distributions to do without, together with those of
            `DATASOURCES_DISABLE` (comma-separated).

    Raises:
        OptionError: `DATASOURCES_PREFER` is malformed.
    """

    def __init__(
        self,
        index: Iterable[PluginEntry] | None = None,
        *,
        prefer: Mapping[str, str] | None = None,
        disable: Collection[str] = (),
    ) -> None:
        entries = resolve_conflicts(scan() if index is None else index, prefer or {}, disable)
        self._slots = [_Slot(entry) for entry in entries]
        self._own: dict[str, type[DataSourceConnector]] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._lock = threading.Lock()
        self._reported: set[tuple[str, str]] = set()

    def entries(self) -> list[PluginEntry]:
        """Return every plugin with its status as it is now, ordered by group and name."""
        entries = [self._overruled(slot.entry) for slot in self._slots]
        for name, cls in list(self._own.items()):
            value = f"{cls.__module__}:{cls.__qualname__}"
            entries.append(PluginEntry(name, CONNECTORS_GROUP, value, None, None, "loaded"))
        return sorted(entries, key=lambda e: (e.group, e.name, e.distribution or ""))

    def types(self) -> list[str]:
        """Return the types that can be asked for, sorted."""
        usable = {"available", "loaded"}
        return [e.name for e in self.entries() if e.is_connector and e.status in usable]

    def connector_class(self, type_name: str) -> type[DataSourceConnector]:
        """Return the connector class of a type; the first time this imports its plugin.

        Raises:
            UnknownConnectorError: Nothing that may be used offers the type.
            PluginConflictError: Several distributions offer it and none is preferred.
            PluginLoadError: Its plugin is broken; asking again gives the same error.
            PluginIncompatibleError: Its plugin was written for another version of core.
        """
        connector = self._own.get(type_name) or self._load(self._slot(type_name))
        assert connector is not None
        return connector

    def loaded(self, type_name: str) -> type[DataSourceConnector] | None:
        """Return the connector class of a type if that takes no import, else None."""
        if own := self._own.get(type_name):
            return own
        slots = (slot for slot in self._slots if slot.entry.name == type_name)
        return next((slot.connector for slot in slots if slot.connector is not None), None)

    def register(self, type_name: str, connector: type[DataSourceConnector]) -> None:
        """Serve a type with a class of the host's own; it wins over what is installed.

        Raises:
            PluginLoadError: It is not a connector class, or lacks methods.
            PluginIncompatibleError: It was written for another version of core.
        """
        try:
            _check_class(connector)
        except _RefusedError as exc:
            raise exc.kind(f"connector {type_name!r} of the host: {exc}") from None
        self._own[str(type_name)] = connector

    def register_plugin(self, plugin: object, name: str | None = None) -> None:
        """Add hook implementations of the host's own: a module or an object.

        Raises:
            PluginLoadError: It has no hook, or one that core does not know, or its name is taken.
        """
        name = name or getattr(plugin, "__name__", None) or f"{type(plugin).__name__}-{id(plugin)}"
        try:
            self._hooks(plugin)
            self._register(plugin, name)
        except _RefusedError as exc:
            raise PluginLoadError(f"plugin {name!r} of the host: {exc}") from None

    def load_observers(self) -> None:
        """Import the plugins that serve in other ways than connecting; failures are logged."""
        for slot in self._slots:
            wanted = slot.entry.group == PLUGINS_GROUP and slot.entry.status == "available"
            if wanted and not self._load_in_time(slot):
                _warn("%s", slot.failure())

    def check(self) -> list[PluginEntry]:
        """Import every plugin that may be used, each for a minute at most; return `entries()`."""
        for slot in self._slots:
            if slot.entry.status == "available":
                self._load_in_time(slot)
        return self.entries()

    def notify(self, hook_name: str, /, **arguments: object) -> None:
        """Call every implementation of a hook; what one raises is logged, the first time."""
        for hook in reversed(getattr(self._manager.hook, hook_name).get_hookimpls()):
            values = [arguments[name] for name in hook.argnames]
            try:
                hook.function(*values)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # noqa: BLE001  (a plugin may call sys.exit)
                self._report(hook.plugin_name, hook_name, exc)

    def first(self, hook_name: str, /, **arguments: object) -> Any:
        """Return the first answer to a hook that is not None, or None; errors pass."""
        return getattr(self._manager.hook, hook_name)(**arguments)

    def _overruled(self, entry: PluginEntry) -> PluginEntry:
        if entry.is_connector and entry.name in self._own:
            reason = "passed over: the host registered a class of its own"
            return replace(entry, status="disabled", error=reason)
        return entry

    def _slot(self, type_name: str) -> _Slot:
        """Return the one slot that may serve a type, or raise why there is none."""
        slots = {
            slot.entry.status: slot
            for slot in self._slots
            if slot.entry.is_connector and slot.entry.name == type_name
        }
        for status in ("available", "loaded", "failed"):
            if status in slots:
                return slots[status]
        if "conflict" in slots:
            raise PluginConflictError(slots["conflict"].entry.error)
        if "broken" in slots:
            raise slots["broken"].failure()
        if "disabled" in slots:
            entry = slots["disabled"].entry
            hint = f"{entry.source} offers it but is {entry.error}"
        else:
            hint = f"installed: {', '.join(self.types()) or 'none'}"
            unread = [s.entry.source for s in self._slots if s.entry.status == "broken"]
            hint += f"; broken: {', '.join(dict.fromkeys(unread))}" if unread else ""
        raise UnknownConnectorError(f"no connector for {type_name!r}; {hint}")

    def _load(self, slot: _Slot) -> type[DataSourceConnector] | None:
        """Import a plugin unless that was tried before; raise what came of it if it failed."""
        with slot.lock:
            if slot.entry.status == "available":
                self._try(slot)
            if slot.entry.status == "failed":
                raise slot.failure()
            return slot.connector

    def _load_in_time(self, slot: _Slot) -> bool:
        """Import a plugin in a thread that it may keep; return whether nothing went wrong."""

        def load() -> None:
            try:
                self._load(slot)
            except PluginError:
                pass
            except BaseException as exc:  # noqa: BLE001  (kept; nobody can have interrupted this)
                slot.fail(describe(exc), PluginLoadError, None)

        thread = threading.Thread(target=load, name="datasources-import", daemon=True)
        thread.start()
        thread.join(IMPORT_TIMEOUT)
        if thread.is_alive():
            reason = f"it was not imported within {IMPORT_TIMEOUT:g} seconds"
            slot.fail(reason, PluginLoadError, None)
        return slot.entry.status == "loaded"

    def _try(self, slot: _Slot) -> None:
        around = sys.exception()
        try:
            self._import(slot)
        except KeyboardInterrupt:
            raise
        except _RefusedError as exc:
            slot.fail(str(exc), exc.kind, None)
        except BaseException as exc:  # noqa: BLE001  (kept in the slot; a plugin may call sys.exit)
            slot.fail(describe(exc), PluginLoadError, _masked(exc, around))
        else:
            slot.entry = replace(slot.entry, status="loaded", error=None)

    def _import(self, slot: _Slot) -> None:
        from importlib_metadata import EntryPoint

        entry = slot.entry
        if lack := unmet(entry):
            raise _RefusedError(*lack)
        plugin = EntryPoint(name=entry.name, value=entry.value, group=entry.group).load()
        hooks = self._hooks(plugin)
        if entry.is_connector:
            if "datasources_connectors" not in hooks:
                raise _RefusedError(f"{entry.value!r} has no hook 'datasources_connectors'")
            slot.connector = _pick(hooks["datasources_connectors"](), entry.name)
        self._register(plugin, str(entry))

    def _hooks(self, plugin: object) -> dict[str, Callable[[], object]]:
        """Return a plugin's hooks by name; refuse what would silently never be called."""
        hooks = {}
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options:
                hook = options.get("specname") or name
                hooks[hook] = getattr(plugin, name)
                _check_hook(hook, hooks[hook], options)
            elif name.startswith(_PREFIX) and inspect.isroutine(getattr(plugin, name)):
                reason = f"its function {name!r} is not marked with datasources.hookimpl"
                raise _RefusedError(reason + _suggestion(name))
        if not hooks:
            raise _RefusedError("it has no hook; mark its functions with datasources.hookimpl")
        return hooks

    def _register(self, plugin: object, name: str) -> None:
        """Add a plugin's hooks, once: one module may serve several entry points."""
        with self._lock:
            if self._manager.is_registered(plugin):
                return
            try:
                self._manager.register(plugin, name)
            except ValueError:
                raise _RefusedError("a plugin of that name is registered") from None
            except pluggy.PluginValidationError as exc:
                if self._manager.is_registered(plugin):  # partly, by older versions of pluggy
                    self._manager.unregister(plugin)
                raise _RefusedError(describe(exc)) from None

    def _report(self, plugin_name: str, hook_name: str, exc: BaseException) -> None:
        with self._lock:
            if (plugin_name, hook_name) in self._reported:
                return
            self._reported.add((plugin_name, hook_name))
        # No traceback: it would show the operation's own error, with all that a driver said.
        _warn("%s failed in %s: %s (%s)", plugin_name, hook_name, describe(exc), _place(exc))


class _Slot:
    """One entry and what came of it."""

    def __init__(self, entry: PluginEntry) -> None:
        self.entry = entry
        self.lock = threading.RLock()  # its own: a slow import holds up nobody else's
        self.connector: type[DataSourceConnector] | None = None
        self._kind: type[PluginError] = PluginLoadError
        self._cause: BaseException | None = None

    def fail(self, reason: str, kind: type[PluginError], cause: BaseException | None) -> None:
        self.entry = replace(self.entry, status="failed", error=reason[:_REASON_LIMIT])
        self._kind, self._cause = kind, cause

    def failure(self) -> PluginError:
        """Return a new error each time: one that is raised again collects tracebacks."""
        error = self._kind(f"{self.entry}: {self.entry.error}")
        error.__cause__ = self._cause
        return error


class _RefusedError(Exception):
    """What this module finds wrong in a plugin; no caller of it ever sees this class."""

    def __init__(self, reason: str, kind: type[PluginError] = PluginLoadError) -> None:
        super().__init__(reason)
        self.kind = kind


def _check_hook(hook: str, function: object, options: Mapping[str, Any]) -> None:
    if hook not in _KNOWN_HOOKS and not options.get("optionalhook"):
        raise _RefusedError(f"its hook {hook!r} is not known{_suggestion(hook)}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _RefusedError(f"its hook {hook!r} is async; hooks are plain functions")
    if options.get("wrapper") or options.get("hookwrapper"):
        raise _RefusedError(f"its hook {hook!r} is a wrapper; hooks are called one by one")


def _suggestion(hook: str) -> str:
    if hook in _KNOWN_HOOKS:
        return ""
    from difflib import get_close_matches

    (closest,) = get_close_matches(hook, _KNOWN_HOOKS, n=1, cutoff=0)
    return f"; the closest hook is {closest!r}"


def _pick(classes: object, type_name: str) -> type[DataSourceConnector]:
    """Return the one of the hook's classes that has this type, checked."""
    if not isinstance(classes, (list, tuple)):
        what = f"a {type(classes).__name__}"
        raise _RefusedError(f"'datasources_connectors' returned {what}, not a list of classes")
    found = [cls for cls in classes if getattr(cls, "type", None) == type_name]
    if len(found) != 1:
        types = ", ".join(repr(getattr(cls, "type", None)) for cls in classes) or "none"
        reason = f"one class of type {type_name!r}, as its entry point is named, is needed"
        raise _RefusedError(f"{reason}; 'datasources_connectors' returned: {types}")
    (cls,) = found
    _check_class(cls)
    return cls  # type: ignore[no-any-return]


def _check_class(cls: object) -> None:
    from datasources import connector

    if not (isinstance(cls, type) and issubclass(cls, connector.DataSourceConnector)):
        raise _RefusedError(f"{_shown(cls)} is not a subclass of DataSourceConnector")
    if reason := check_api_version(cls, connector.OLDEST_API_VERSION, connector.API_VERSION):
        raise _RefusedError(reason, PluginIncompatibleError)
    if missing := sorted(cls.__abstractmethods__):
        raise _RefusedError(f"{_shown(cls)} lacks {', '.join(missing)}")


def _shown(cls: object) -> str:
    return repr(getattr(cls, "__qualname__", None) or type(cls).__name__)


def _masked(exc: BaseException, around: BaseException | None) -> BaseException:
    """Mask secrets in an exception and its causes, up to the one being handled around it.

    It is chained to what is raised, so a traceback would print its text.
    """
    from datasources.redaction import redact_text

    seen = {id(around)}
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))  # a chain may bite its own tail
        with suppress(Exception):  # an exception may refuse; its text is the plugin's own doing
            link.args = tuple(redact_text(a) if isinstance(a, str) else a for a in link.args)
        link = link.__cause__ or link.__context__
    return exc


def _place(exc: BaseException) -> str:
    """Return file and line where an exception was raised."""
    trace = exc.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"


def _warn(message: str, *values: object) -> None:
    from logging import getLogger

    getLogger("datasources.plugins").warning(message, *values)
