"""The store, keys, settings and plugins of one call of the command line."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from datasources.cli import output, paths  # and no click: bridges use this class without it
from datasources.errors import (
    DataSourceError,
    DataSourceExistsError,
    DataSourceNotFoundError,
    MissingKeyError,
    OptionError,
    StoreError,
)

if TYPE_CHECKING:
    from datasources.cli.keyfile import KeyFile
    from datasources.config import Settings
    from datasources.credentials import CredentialManager
    from datasources.models import DataSourceConfig
    from datasources.observers import AuditLog
    from datasources.plugins import Plugins
    from datasources.registry import DataSourceRegistry
    from datasources.stores import Store

T = TypeVar("T")


class CliContext:
    """Opens each part when it is asked for, as `datasources plugins` needs the plugins alone."""

    def __init__(
        self,
        *,
        store: str | None,
        config: str | None,
        key_file: str | None,
        environ: Mapping[str, str],
    ) -> None:
        self._store = store
        self._config = config
        self._key_option = key_file
        self._environ = environ

    @classmethod
    def from_options(cls, options: Mapping[str, str | None]) -> Self:
        """Return the context of the command line's global options, and of the environment.

        Raises:
            UsageError: The URL of the store holds a password, which other users would see.
        """
        store = options.get("store")
        if store and "@" in store:
            from datasources.redaction import redact_text

            if redact_text(store) != store:
                import click

                raise click.UsageError(
                    "a password is never an argument: give the store's URL in DATASOURCES_STORE"
                )
        return cls(
            store=store or os.environ.get("DATASOURCES_STORE"),
            config=options.get("config") or os.environ.get("DATASOURCES_CONFIG"),
            key_file=options.get("key_file"),
            environ=os.environ,
        )

    @cached_property
    def home(self) -> str:
        """The directory of the default store and its key."""
        return os.path.join(_data_home(self._environ), "datasources")

    @cached_property
    def store_url(self) -> str:
        """The path or URL of the store."""
        if self._store:
            return paths.expand_store(self._store)
        return os.path.join(self.home, "sources.db")

    @cached_property
    def plugins(self) -> Plugins:
        """The installed plugins, not imported yet."""
        from datasources.cli.plugins import CliPlugins

        return CliPlugins()

    @cached_property
    def settings(self) -> Settings:
        """The settings of the configuration file and the environment."""
        from datasources.config import read_settings

        path = paths.expand(self._config) if self._config else None
        return read_settings(path, self._environ)

    @cached_property
    def audit_log(self) -> AuditLog | None:
        """The audit log of the settings; opened at once, so that a wrong path is reported."""
        if self.settings.audit_log is None:
            return None
        from datasources.observers import AuditLog

        return AuditLog(paths.expand(self.settings.audit_log))

    @cached_property
    def keys(self) -> KeyFile:
        """The keys of the store, by default in a file beside it."""
        from datasources.cli.keyfile import KeyFile

        return KeyFile(self._key_option, self._key_directory, self._environ)

    def _key_directory(self) -> str:
        path = paths.store_file(self.store_url)
        return self.home if path is None else os.path.dirname(os.path.abspath(path))

    def declared_config(self, source_id: str) -> DataSourceConfig | None:
        """Return the configuration of a declared source; None if it is not declared."""
        return next((c for c in self.settings.sources if c.id == source_id), None)

    def check_not_declared(self, source_ids: Iterable[str]) -> None:
        """Raise DataSourceExistsError if one of these sources is declared."""
        for source_id in source_ids:
            if self.declared_config(source_id):
                raise DataSourceExistsError(
                    f"source {source_id!r} is declared in {self.origin(source_id)}; "
                    "change it there, or take another id"
                )

    def check_exists(self, registry: DataSourceRegistry, source_id: str) -> None:
        """Raise DataSourceNotFoundError if there is no such source."""
        if registry.exists(source_id):
            return
        from datasources.cli.suggestions import did_you_mean

        ids = [record.id for record in registry.store.list()]
        ids += [config.id for config in self.settings.sources]
        question = did_you_mean(source_id, ids) or "`datasources list` shows those there are"
        raise DataSourceNotFoundError(f"there is no source {source_id!r}; {question}")

    def _check_place(self, registry: DataSourceRegistry, source_id: str, *, declared: bool) -> None:
        """Raise an error if a source is not where the others are, which are declared or stored."""
        if declared and self.declared_config(source_id) is None:
            raise OptionError(
                f"source {source_id!r} is not declared in the configuration file, as the others are; "
                "declared and stored sources cannot be used together"
            )
        self.check_exists(registry, source_id)

    def origin(self, source_id: str) -> str:
        """Return where a source is declared, or `stored`."""
        return self.settings.origins.get(source_id, "stored")

    def open_store(self, *, create: bool = False) -> Store:
        """Open the store; a file that does not exist is made on `create`, else an empty store.

        Raises:
            StoreError: The store cannot be opened, or cannot be reached to see if it exists.
        """
        path = paths.store_file(self.store_url)
        if path is None:
            from datasources.registry import open_store

            self.plugins.load_observers()
            return open_store(self.store_url, self.plugins)
        from datasources.stores import MemoryStore, SQLiteStore

        try:
            exists = paths.exists(path)
        except OSError as exc:
            raise StoreError(f"the store {path!r} cannot be used: {exc.strerror}") from exc
        return SQLiteStore(path) if create or exists else MemoryStore()

    def run(
        self,
        operation: Callable[[DataSourceRegistry], Awaitable[T]],
        *source_ids: str,
        needs_keys: bool = True,
        create: bool = False,
    ) -> T:
        """Run an operation on a registry, and close the registry.

        What plugins print meanwhile goes to stderr.

        Args:
            operation: A coroutine function; called with the registry.
            source_ids: The only sources it uses, if it uses given ones. They are declared or stored,
                not both; declared ones are validated first.
            needs_keys: False if the operation decrypts nothing.
            create: Make a store and a key if there are none, as the operation adds sources.
        """
        return self._call(
            lambda: self._run(operation, source_ids, needs_keys=needs_keys, create=create)
        )

    def try_sources(
        self, configs: Iterable[DataSourceConfig], *, connect: bool
    ) -> tuple[DataSourceConfig, Exception] | None:
        """Validate sources, and connect to each of them; nothing is stored.

        Args:
            configs: The sources.
            connect: False to validate them only.

        Returns:
            The first source that does not work, and why; None if all of them do.

        Raises:
            DataSourceError: A source is not valid.
        """
        return self._call(lambda: self._try_sources(list(configs), connect=connect))

    def discover(self, type_name: str, options: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return what a source of these options could use, by the option that it is a value of.

        Raises:
            DataSourceError: The connector cannot say, or is not allowed to.
        """

        async def ask() -> dict[str, list[str]]:
            registry = await self.create_memory_registry([])
            try:
                return await registry.discover(type_name, options)
            finally:
                await registry.close()

        return self._call(ask)

    def _call(self, operation: Callable[[], Coroutine[None, None, T]]) -> T:
        import asyncio

        from datasources.cli import log
        from datasources.registry import caller

        log.start()
        with caller(user=login_name()), output.stdout_to_stderr():
            return asyncio.run(operation())

    async def _try_sources(
        self, configs: list[DataSourceConfig], *, connect: bool
    ) -> tuple[DataSourceConfig, Exception] | None:
        for config in configs:
            register_source_secrets(self.plugins, config)
        registry = await self.create_memory_registry(configs)
        try:
            for config in configs if connect else []:
                check = await registry.check_connection(config.id)
                if check.error is not None:
                    return config, check.error
        finally:
            await registry.close()
        return None

    async def _run(
        self,
        operation: Callable[[DataSourceRegistry], Awaitable[T]],
        source_ids: Sequence[str],
        *,
        needs_keys: bool,
        create: bool,
    ) -> T:
        declared = [config for config in map(self.declared_config, source_ids) if config]
        registry = await (
            self.create_memory_registry(declared)
            if declared
            else self.open_registry(needs_keys=needs_keys, create=create)
        )
        try:
            for source_id in source_ids:
                self._check_place(registry, source_id, declared=bool(declared))
                if needs_keys:
                    with suppress(DataSourceError):  # the operation raises the same
                        register_source_secrets(
                            self.plugins, registry.get_config(source_id, True, sanitize=False)
                        )
            result = await operation(registry)
        except BaseException:
            with suppress(Exception):  # the first error is the one to report
                await registry.close()
            raise
        await registry.close()
        return result

    async def create_memory_registry(
        self, configs: Iterable[DataSourceConfig]
    ) -> DataSourceRegistry:
        """Return a registry that holds these sources, validated, in memory only."""
        from datasources.credentials import CredentialManager
        from datasources.registry import ConnectorFactory, SourceRecords
        from datasources.stores import MemoryStore

        store = MemoryStore()
        credentials = CredentialManager(CredentialManager.generate_key())
        registry = self._create_registry(store, credentials)
        # The registry's own method would tell observers of registrations, and these are none.
        records = SourceRecords(store, credentials)
        factory = ConnectorFactory(records, registry.policy, self.plugins)
        records.save([await factory.validate(config) for config in configs], replace=False)
        return registry

    async def open_registry(
        self, *, needs_keys: bool = True, create: bool = False
    ) -> DataSourceRegistry:
        """Return a registry on the store; the arguments are those of `run`."""
        _ = self.audit_log  # opened before a store and a key are made, as that can fail
        store = self.open_store(create=create)
        try:
            if (needs_keys or create) and not self.keys.exists:
                self._check_keyless_store(store, create=create)
            return self._create_registry(store, self.keys.manager())
        except BaseException:
            store.close()
            raise

    def _create_registry(self, store: Store, credentials: CredentialManager) -> DataSourceRegistry:
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

    def raise_missing_key(self, fingerprints: Iterable[str] = ()) -> NoReturn:
        """Raise MissingKeyError.

        Args:
            fingerprints: Of the keys that the stored sources are encrypted with.
        """
        if not (listed := ", ".join(sorted(fingerprints))):
            raise MissingKeyError("there is no key yet; `datasources keys init` makes one")
        raise MissingKeyError(
            f"the stored sources are encrypted with {listed}, but there is no key: "
            f"{self.keys.path!r} is missing; give it with --key-file or in "
            "DATASOURCE_ENCRYPTION_KEY"
        )

    def check_keys(self, store: Store) -> None:
        """Raise MissingKeyError if the keys cannot be used, or the store's own are lost.

        For commands that add sources, before they ask or test anything.
        """
        if self.keys.exists:
            self.keys.manager()
        else:
            self._check_keyless_store(store, create=False)

    def _check_keyless_store(self, store: Store, *, create: bool) -> None:
        """Raise MissingKeyError if the store has sources; on `create`, make a key for an empty one.

        A new key beside stored sources would hide that their own key is lost.
        """
        fingerprints = {record.credentials.partition(":")[0] for record in store.list()}
        # Asked again: another process may have made the key and a source since.
        if fingerprints and not self.keys.exists:
            self.raise_missing_key(fingerprints)
        if create and self.keys.create():
            output.echo_err(f"Made the encryption key {self.keys.path}: keep a copy of it.")


def _data_home(environ: Mapping[str, str]) -> str:
    home = environ.get("XDG_DATA_HOME", "")
    # The XDG Base Directory specification: a relative path is invalid and must be ignored.
    return home if os.path.isabs(home) else f"{paths.home_directory(environ)}/.local/share"


def login_name() -> str:
    """Return the name of the user that runs this process, whatever the environment claims."""
    import pwd

    with suppress(KeyError):  # a container may run as a user without an entry
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def register_source_secrets(plugins: Plugins, config: DataSourceConfig) -> None:
    """Mask a source's secrets in everything that goes to stderr from now on."""
    from datasources.cli import secrets
    from datasources.credentials import resolve_references

    def resolve(scheme: str, name: str) -> str | None:
        secret: str | None = plugins.first("datasources_resolve_secret", scheme=scheme, name=name)
        return secret

    with suppress(DataSourceError):  # using the source raises the same
        options = resolve_references(config.config, resolve)
        connector_class = plugins.connector_class(config.type)
        output.register_secrets(secrets.secret_values(connector_class, options))
