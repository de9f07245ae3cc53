"""What one call of the command line works with: its store, keys, settings and plugins."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, TypeVar

from datasources.cli import output
from datasources.errors import (
    DataSourceError,
    DataSourceExistsError,
    DataSourceNotFoundError,
    MissingKeyError,
)

if TYPE_CHECKING:
    from datasources.audit import AuditLog
    from datasources.cli.keyfile import KeyFile
    from datasources.config import Settings
    from datasources.credentials import CredentialManager
    from datasources.models import DataSourceConfig
    from datasources.plugins import Plugins
    from datasources.registry import DataSourceRegistry
    from datasources.stores import Store

T = TypeVar("T")


class CliContext:
    """Opens each of them when it is asked for; `datasources plugins` needs only one."""

    def __init__(
        self,
        *,
        store: str | None,
        config: str | None,
        key_file: str | None,
        environ: Mapping[str, str],
    ) -> None:
        self.home = os.path.join(_data_home(environ), "datasources")
        self.store_url = store or os.path.join(self.home, "sources.db")
        self._config = config
        self._key_option = key_file
        self._environ = environ

    @cached_property
    def plugins(self) -> Plugins:
        from datasources.plugins import Plugins

        return Plugins()

    @cached_property
    def settings(self) -> Settings:
        """What the configuration file and the environment declare."""
        from datasources.config import read_settings

        return read_settings(self._config, self._environ)

    @cached_property
    def audit_log(self) -> AuditLog | None:
        """The log that the settings ask for; it is opened at once, so that a wrong path is told."""
        if self.settings.audit_log is None:
            return None
        from datasources.audit import AuditLog

        return AuditLog(self.settings.audit_log)

    @cached_property
    def keys(self) -> KeyFile:
        from datasources.cli.keyfile import KeyFile

        path = self._store_path
        beside = os.path.dirname(os.path.abspath(path)) if path else self.home
        return KeyFile(self._key_option, beside, self._environ)

    def declared(self, source_id: str) -> DataSourceConfig | None:
        """Return a source of the configuration file or the environment."""
        return next((each for each in self.settings.sources if each.id == source_id), None)

    def refuse_declared(self, source_ids: Iterable[str]) -> None:
        """Raise DataSourceExistsError for an id that is declared: stored, it would be hidden."""
        for source_id in source_ids:
            if self.declared(source_id):
                raise DataSourceExistsError(
                    f"source {source_id!r} is declared in {self.origin(source_id)}; "
                    "change it there, or take another id"
                )

    def origin(self, source_id: str) -> str:
        """Return where a source is declared, or `stored`."""
        return self.settings.origins.get(source_id, "stored")

    def open_store(self, *, create: bool = False) -> Store:
        """Open the store; one that is not there yet is an empty one, made only on `create`."""
        path = self._store_path
        if path is None:
            from datasources.sources import open_store

            self.plugins.load_observers()
            return open_store(self.store_url, self.plugins)
        from datasources.stores import MemoryStore, SQLiteStore

        return SQLiteStore(path) if create or os.path.exists(path) else MemoryStore()

    def run(
        self,
        work: Callable[[DataSourceRegistry], Awaitable[T]],
        source_id: str | None = None,
        *,
        decrypts: bool = True,
        stores: bool = False,
    ) -> T:
        """Run `work` on a registry, and close it.

        Args:
            work: Called with the registry.
            source_id: The one source it uses; a declared one is validated first.
            decrypts: It needs the keys of what is stored.
            stores: It adds sources: a store and a key are made if there are none.
        """
        import asyncio

        from datasources.cli import log
        from datasources.operations import caller

        log.start()
        with caller(user=_login()):
            return asyncio.run(self._run(work, source_id, decrypts=decrypts, stores=stores))

    async def _run(
        self,
        work: Callable[[DataSourceRegistry], Awaitable[T]],
        source_id: str | None,
        *,
        decrypts: bool,
        stores: bool,
    ) -> T:
        declared = self.declared(source_id) if source_id else None
        registry = await (
            self.in_memory([declared]) if declared else self._stored(decrypts, stores)
        )
        try:
            if source_id:
                check_exists(registry, source_id)
            if source_id and decrypts:
                with suppress(DataSourceError):  # the work raises the same
                    hide_secrets(registry, registry.get_config(source_id, True, sanitize=False))
            done = await work(registry)
        except BaseException:
            with suppress(Exception):  # what went wrong first is what counts
                await registry.close()
            raise
        await registry.close()
        return done

    async def in_memory(self, configs: Iterable[DataSourceConfig]) -> DataSourceRegistry:
        """Return a registry of sources that are not stored, validated."""
        from datasources.credentials import CredentialManager
        from datasources.sources import Sources
        from datasources.stores import MemoryStore

        store = MemoryStore()
        credentials = CredentialManager(CredentialManager.generate_key())
        registry = self._assemble(store, credentials)
        # Not by the registry: observers would be told of registrations that are none.
        sources = Sources(store, credentials, registry.policy, self.plugins)
        sources.keep([await sources.validate(config) for config in configs], replace=False)
        return registry

    async def _stored(self, decrypts: bool, stores: bool) -> DataSourceRegistry:
        """Return a registry on the store."""
        store = self.open_store(create=stores)
        try:
            if (decrypts or stores) and not self.keys.exists:
                self._make_key(store, stores)
            return self._assemble(store, self.keys.manager())
        except BaseException:
            store.close()
            raise

    def _assemble(self, store: Store, credentials: CredentialManager) -> DataSourceRegistry:
        from datasources.registry import DataSourceRegistry

        if self.audit_log:
            self.plugins.register_plugin(self.audit_log, "audit log")
        return DataSourceRegistry(
            credentials,
            store=store,
            policy=self.settings.policy,
            pool_config=self.settings.pool,
            plugins=self.plugins,
        )

    def explain_missing_key(self, used: Iterable[str] = ()) -> NoReturn:
        """Raise MissingKeyError for sources encrypted with keys that were not given."""
        if not (named := ", ".join(sorted(used))):
            raise MissingKeyError("there is no key yet; `datasources keys init` makes one")
        raise MissingKeyError(
            f"the stored sources are encrypted with {named}, but there is no key: "
            f"{self.keys.path!r} is missing; give it with --key-file or in "
            "DATASOURCE_ENCRYPTION_KEY"
        )

    def _make_key(self, store: Store, stores: bool) -> None:
        """Make a key for an empty store; never one for sources that it would not open."""
        if used := {record.credentials.partition(":")[0] for record in store.list()}:
            self.explain_missing_key(used)
        if stores and self.keys.create():
            output.note(f"Made the encryption key {self.keys.path}: keep a copy of it.")

    @property
    def _store_path(self) -> str | None:
        """The path of a store in a file; None for others."""
        scheme, separator, rest = self.store_url.partition(":")
        if scheme == "sqlite":
            return rest.removeprefix("///")
        return self.store_url if not separator or "/" in scheme else None


def _data_home(environ: Mapping[str, str]) -> str:
    home = environ.get("XDG_DATA_HOME", "")
    # A relative one is invalid by the specification of these variables, and ignored.
    return home if os.path.isabs(home) else os.path.expanduser("~/.local/share")


def _login() -> str:
    """Return the name of the user that this process runs as, whatever the environment says."""
    import pwd

    with suppress(KeyError):  # as in a container
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def check_exists(registry: DataSourceRegistry, source_id: str) -> None:
    """Raise DataSourceNotFoundError if there is no such source."""
    if not registry.exists(source_id):
        raise DataSourceNotFoundError(
            f"there is no source {source_id!r}; `datasources list` shows those there are"
        )


def hide_secrets(registry: DataSourceRegistry, config: DataSourceConfig) -> None:
    """Mask a source's secrets in whatever goes to stderr, whoever wrote it."""
    from datasources.cli import secrets
    from datasources.credentials import resolve_references

    def resolve(scheme: str, name: str) -> str | None:
        found: str | None = registry.plugins.first(
            "datasources_resolve_secret", scheme=scheme, name=name
        )
        return found

    with suppress(DataSourceError):  # using the source raises the same
        options = resolve_references(config.config, resolve)
        output.hide(secrets.texts(registry.plugins.connector_class(config.type), options))
