"""The installed plugins of a host: each is imported when it is first needed, and its hooks called.

A fault of a plugin stays with its entry. It is raised only to callers who ask for that type.

States of an entry, as its status says:

- available, disabled, conflict, broken: found by discovery, without importing anything. Only an
  available one can be imported;
- loaded: it was imported, its class checked and its hooks registered;
- failed: importing or checking it failed, or took too long. It is not tried again.

Each entry has a lock of its own, held during its import: two threads that need one plugin import
it once, and a plugin that takes minutes, or for ever, holds up nobody who needs another.

Python cannot interrupt an import. So wherever a plugin that hangs must not stop the host, it is
imported in a daemon thread, which is left alone when its time is over: it holds neither the caller
nor the end of the process. An entry that has been given up stays failed unless its import ends well
after all, since only the thread that imports sets an entry to loaded.
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
    DataSourceError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UnknownConnectorError,
)
from datasources.names import CONNECTORS_GROUP, PLUGINS_GROUP
from datasources.plugins import hookspecs
from datasources.plugins.compatibility import (
    HOOK_PREFIX,
    RefusedError,
    check_class,
    check_hook,
    closest_hook,
    select_class,
    unmet_requirement,
)
from datasources.plugins.discovery import PluginEntry, describe_error, resolve_conflicts, scan
from datasources.plugins.hookspecs import PROJECT

if TYPE_CHECKING:
    from datasources.connector import DataSourceConnector

__all__ = ["PluginEntry", "Plugins", "scan"]

IMPORT_TIMEOUT = 60.0
"""Seconds that a plugin may take to be imported. The slowest driver known takes two."""

_REASON_LIMIT = 1_000  # characters of an error; it may quote what a plugin returned


class Plugins:
    """The plugins that a host may use; safe under threads.

    Args:
        index: The entries to use; by default those that `scan` finds.
        prefer: By type, the distribution to take it from where several offer it. It takes
            precedence over `DATASOURCES_PREFER` (`type=distribution`, comma-separated).
        disable: Types and distributions that are not used, in addition to those of
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
        self._host_classes: dict[str, type[DataSourceConnector]] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._lock = threading.Lock()
        self._reported: set[tuple[str, str]] = set()

    def entries(self) -> list[PluginEntry]:
        """Return every plugin with its status as it is now, ordered by group and name."""
        entries = [self._unless_replaced(slot.entry) for slot in self._slots]
        for name, cls in list(self._host_classes.items()):
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
        connector = self._host_classes.get(type_name) or self._require(self._slot(type_name))
        assert connector is not None
        return connector

    def loaded(self, type_name: str) -> type[DataSourceConnector] | None:
        """Return the connector class of a type if that takes no import, else None."""
        if host_class := self._host_classes.get(type_name):
            return host_class
        slots = (slot for slot in self._slots if slot.entry.name == type_name)
        return next((slot.connector for slot in slots if slot.connector is not None), None)

    def register(self, type_name: str, connector: type[DataSourceConnector]) -> None:
        """Use a class of the host for a type, whatever is installed for it.

        Raises:
            PluginLoadError: It is not a connector class, or lacks methods.
            PluginIncompatibleError: It was written for another version of core.
        """
        try:
            check_class(connector)
        except RefusedError as exc:
            raise exc.error_class(f"connector {type_name!r} of the host: {exc}") from None
        self._host_classes[str(type_name)] = connector

    def register_plugin(self, plugin: object, name: str | None = None) -> None:
        """Add hook implementations of the host.

        Args:
            plugin: A module, or an object, with functions marked by `hookimpl`.
            name: The name that log records and errors give it; by default that of the module or
                class.

        Raises:
            PluginLoadError: It has no hook, or one that core does not know, or its name is taken.
        """
        name = name or getattr(plugin, "__name__", None) or f"{type(plugin).__name__}-{id(plugin)}"
        try:
            self._hooks_of(plugin)
            self._register_hooks(plugin, name)
        except RefusedError as exc:
            raise PluginLoadError(f"plugin {name!r} of the host: {exc}") from None

    def load_observers(self) -> None:
        """Import the available plugins of the group `datasources.plugins`; log those that fail."""
        for slot in self._slots:
            due = slot.entry.group == PLUGINS_GROUP and slot.entry.status == "available"
            if due and not self._load_with_timeout(slot):
                _warn("%s", slot.failure())

    def check(self) -> list[PluginEntry]:
        """Import every available plugin, each for a minute at most; return `entries()`."""
        for slot in self._slots:
            if slot.entry.status == "available":
                self._load_with_timeout(slot)
        return self.entries()

    def notify(self, hook_name: str, /, **arguments: object) -> None:
        """Call every implementation of a hook, on this thread, the last registered one first.

        What an implementation raises is logged, once for each plugin and hook, and the next one is
        called.
        """
        for hook in reversed(getattr(self._manager.hook, hook_name).get_hookimpls()):
            values = [arguments[name] for name in hook.argnames]
            try:
                hook.function(*values)
            except BaseException as exc:
                if _is_interrupt(exc):
                    raise
                self._log_failure(hook.plugin_name, hook_name, exc)

    def first(self, hook_name: str, /, **arguments: object) -> Any:
        """Return the first answer to a hook that is not None, or None if no plugin has one.

        Implementations are called on this thread, the last registered one first. If one raises,
        the next ones are asked all the same; if one of these answers, the error is only logged.

        Raises:
            PluginError: No plugin answers, and one raised; the message names it, and what it was
                asked.
            DataSourceError: In place of that, if a plugin raised one on purpose.
        """
        handled = sys.exception()
        failures: list[tuple[str, BaseException]] = []
        for hook in reversed(getattr(self._manager.hook, hook_name).get_hookimpls()):
            try:
                answer = hook.function(*(arguments[name] for name in hook.argnames))
            except BaseException as exc:
                if _is_interrupt(exc):
                    raise
                failures.append((hook.plugin_name, exc))
                continue
            if answer is not None:
                for plugin_name, error in failures:
                    self._log_failure(plugin_name, hook_name, error)
                return answer
        for _, error in failures:
            if isinstance(error, DataSourceError):
                raise error
        if failures:
            plugin_name, error = failures[0]
            raise PluginError(
                f"plugin {plugin_name!r} failed in {hook_name}({_as_text(arguments)}): "
                f"{describe_error(error)}"
            ) from _mask_chain(error, handled)
        return None

    def _unless_replaced(self, entry: PluginEntry) -> PluginEntry:
        if entry.is_connector and entry.name in self._host_classes:
            reason = "passed over: the host registered a class of its own"
            return replace(entry, status="disabled", error=reason)
        return entry

    def _slot(self, type_name: str) -> _Slot:
        """Return the slot whose plugin offers a type, or raise why there is none."""
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
            broken = [s.entry.source for s in self._slots if s.entry.status == "broken"]
            hint += f"; broken: {', '.join(dict.fromkeys(broken))}" if broken else ""
        raise UnknownConnectorError(f"no connector for {type_name!r}; {hint}")

    def _require(self, slot: _Slot) -> type[DataSourceConnector] | None:
        """Return the class of a plugin, which is imported unless that was tried before.

        Raises:
            PluginError: The plugin failed, now or then.
        """
        with slot.lock:
            if slot.entry.status == "available":
                self._load(slot)
            if slot.entry.status == "failed":
                raise slot.failure()
            return slot.connector

    def _load_with_timeout(self, slot: _Slot) -> bool:
        """Import a plugin in a daemon thread, in limited time; return True if it is loaded."""

        def load() -> None:
            with suppress(PluginError):
                self._require(slot)

        thread = threading.Thread(target=load, name="datasources-import", daemon=True)
        thread.start()
        thread.join(IMPORT_TIMEOUT)
        if thread.is_alive():
            reason = f"it was not imported within {IMPORT_TIMEOUT:g} seconds"
            slot.fail(reason, PluginLoadError, None)
        return slot.entry.status == "loaded"

    def _load(self, slot: _Slot) -> None:
        """Import a plugin and set its entry to loaded or failed; call it with the slot's lock."""
        handled = sys.exception()  # by a caller: then it is in the context of what is raised here
        try:
            self._import(slot)
        except RefusedError as exc:
            slot.fail(str(exc), exc.error_class, None)
        except BaseException as exc:
            if _is_interrupt(exc):
                raise
            slot.fail(describe_error(exc), PluginLoadError, _mask_chain(exc, handled))
        else:
            slot.entry = replace(slot.entry, status="loaded", error=None)

    def _import(self, slot: _Slot) -> None:
        from importlib_metadata import EntryPoint

        entry = slot.entry
        if unmet := unmet_requirement(entry):
            raise RefusedError(*unmet)
        plugin = EntryPoint(name=entry.name, value=entry.value, group=entry.group).load()
        hooks = self._hooks_of(plugin)
        connector = None
        if entry.is_connector:
            if "datasources_connectors" not in hooks:
                raise RefusedError(f"{entry.value!r} has no hook 'datasources_connectors'")
            connector = select_class(hooks["datasources_connectors"](), entry.name)
        self._register_hooks(plugin, str(entry))
        # Last: `loaded` gives it to threads that do not wait for the lock.
        slot.connector = connector

    def _hooks_of(self, plugin: object) -> dict[str, Callable[[], object]]:
        """Return a plugin's hooks by name.

        Raises:
            RefusedError: It has none, or one that would silently never be called.
        """
        hooks = {}
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options:
                hook = options.get("specname") or name
                hooks[hook] = getattr(plugin, name)
                check_hook(hook, hooks[hook], options)
            elif name.startswith(HOOK_PREFIX) and inspect.isroutine(getattr(plugin, name)):
                reason = f"its function {name!r} is not marked with datasources.hookimpl"
                raise RefusedError(reason + closest_hook(name))
        if not hooks:
            raise RefusedError("it has no hook; mark its functions with datasources.hookimpl")
        return hooks

    def _register_hooks(self, plugin: object, name: str) -> None:
        """Add a plugin's hooks, once: one module may serve several entry points."""
        with self._lock:
            if self._manager.is_registered(plugin):
                return
            try:
                self._manager.register(plugin, name)
            except ValueError:
                raise RefusedError("a plugin of that name is registered") from None
            except pluggy.PluginValidationError as exc:
                if self._manager.is_registered(plugin):  # partly, by older versions of pluggy
                    self._manager.unregister(plugin)
                raise RefusedError(describe_error(exc)) from None

    def _log_failure(self, plugin_name: str, hook_name: str, exc: BaseException) -> None:
        with self._lock:
            if (plugin_name, hook_name) in self._reported:
                return
            self._reported.add((plugin_name, hook_name))
        # No traceback: it would show the operation's own error, with all that a driver said.
        error, place = describe_error(exc), _raised_at(exc)
        _warn("%s failed in %s: %s (%s)", plugin_name, hook_name, error, place)


class _Slot:
    """One entry, the lock under which it is imported, and the class or error of the import."""

    def __init__(self, entry: PluginEntry) -> None:
        self.entry = entry
        self.lock = threading.RLock()  # a plugin may ask for its own type while it is imported
        self.connector: type[DataSourceConnector] | None = None
        self._error_class: type[PluginError] = PluginLoadError
        self._cause: BaseException | None = None

    def fail(
        self, reason: str, error_class: type[PluginError], cause: BaseException | None
    ) -> None:
        self.entry = replace(self.entry, status="failed", error=reason[:_REASON_LIMIT])
        self._error_class, self._cause = error_class, cause

    def failure(self) -> PluginError:
        """Return the error of the import; a new one each time, since raising adds a traceback."""
        error = self._error_class(f"{self.entry}: {self.entry.error}")
        error.__cause__ = self._cause
        return error


def _is_interrupt(exc: BaseException) -> bool:
    """Return True if the user interrupts the process; otherwise a plugin raised the exception.

    Python raises the user's KeyboardInterrupt in the main thread only. Any other exception, such
    as the SystemExit of a plugin that calls `sys.exit`, is a failure of the plugin.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    return isinstance(exc, KeyboardInterrupt) and in_main_thread


def _as_text(arguments: Mapping[str, object]) -> str:
    """Return the arguments of a hook as they stand in a call, secrets in URLs masked."""
    from datasources.redaction import redact_text

    return ", ".join(f"{name}={redact_text(repr(value))}" for name, value in arguments.items())


def _mask_chain(exc: BaseException, handled: BaseException | None) -> BaseException:
    """Mask secrets in an exception and in those that it is chained to; return the exception.

    It becomes the cause of a `PluginError`, whose traceback prints the texts of the chain. An
    exception that the caller is handling, `handled`, is the end of the chain: it is not the
    plugin's.
    """
    from datasources.redaction import redact_text

    seen = {id(handled)}
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))  # a chain may be a circle
        with suppress(Exception):  # an exception may refuse; its text is the plugin's own doing
            link.args = tuple(redact_text(a) if isinstance(a, str) else a for a in link.args)
        link = link.__cause__ or link.__context__
    return exc


def _raised_at(exc: BaseException) -> str:
    """Return file and line where an exception was raised."""
    trace = exc.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"


def _warn(message: str, *values: object) -> None:
    from logging import getLogger

    getLogger("datasources.plugins").warning(message, *values)
