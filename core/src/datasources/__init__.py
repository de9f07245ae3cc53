"""List, inspect and fetch data from outside systems through pip-installable connectors."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing `typing` takes as long as all the rest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from datasources.connector import (
        API_VERSION as API_VERSION,
        DataSourceConnector as DataSourceConnector,
        SupportsDiscover as SupportsDiscover,
        SupportsGlob as SupportsGlob,
        SupportsIterItems as SupportsIterItems,
        SupportsPages as SupportsPages,
        SupportsParameters as SupportsParameters,
        SupportsPreview as SupportsPreview,
        SupportsQueryMetadata as SupportsQueryMetadata,
        SupportsQueryStatistics as SupportsQueryStatistics,
        SupportsReadTable as SupportsReadTable,
        SupportsRights as SupportsRights,
        SupportsSplits as SupportsSplits,
        SupportsStatistics as SupportsStatistics,
        SupportsStream as SupportsStream,
        SupportsUpload as SupportsUpload,
        abilities as abilities,
    )
    from datasources.copying import copy_file as copy_file
    from datasources.credentials import CredentialManager as CredentialManager
    from datasources.errors import (
        AuthenticationError as AuthenticationError,
        ConflictError as ConflictError,
        ConnectError as ConnectError,
        ConnectorError as ConnectorError,
        CredentialError as CredentialError,
        CursorError as CursorError,
        DataFetchError as DataFetchError,
        DataSourceError as DataSourceError,
        DataSourceExistsError as DataSourceExistsError,
        DataSourceNotFoundError as DataSourceNotFoundError,
        DecryptionError as DecryptionError,
        ItemExistsError as ItemExistsError,
        ItemNotFoundError as ItemNotFoundError,
        LimitExceededError as LimitExceededError,
        MissingKeyError as MissingKeyError,
        OptionError as OptionError,
        PermissionDeniedError as PermissionDeniedError,
        PluginConflictError as PluginConflictError,
        PluginError as PluginError,
        PluginIncompatibleError as PluginIncompatibleError,
        PluginLoadError as PluginLoadError,
        PolicyError as PolicyError,
        PoolClosedError as PoolClosedError,
        PoolError as PoolError,
        PoolTimeoutError as PoolTimeoutError,
        RegistryError as RegistryError,
        SecretNotFoundError as SecretNotFoundError,
        SecretRequiredError as SecretRequiredError,
        SourcePausedError as SourcePausedError,
        StoreError as StoreError,
        UnknownConnectorError as UnknownConnectorError,
        UnsupportedError as UnsupportedError,
    )
    from datasources.file_splits import (
        PinnedFile as PinnedFile,
        SplitFile as SplitFile,
        SplittableFiles as SplittableFiles,
    )
    from datasources.files import (
        delete_below as delete_below,
        open_below as open_below,
        open_regular as open_regular,
    )
    from datasources.forms import form as form
    from datasources.gathering import gather_splits as gather_splits
    from datasources.media_types import guess_media_type as guess_media_type
    from datasources.models import (
        ColumnStatistics as ColumnStatistics,
        ConnectionCheck as ConnectionCheck,
        DataItem as DataItem,
        DataSourceConfig as DataSourceConfig,
        DataSourceType as DataSourceType,
        FetchReceipt as FetchReceipt,
        FetchRequest as FetchRequest,
        FetchResult as FetchResult,
        Limits as Limits,
        Operation as Operation,
        Outcome as Outcome,
        Page as Page,
        PoolConfig as PoolConfig,
        Preview as Preview,
        Rotation as Rotation,
        TextFormat as TextFormat,
    )
    from datasources.observers import AuditLog as AuditLog, AuditObserver as AuditObserver
    from datasources.option_types import Option as Option
    from datasources.options import ConnectorOptions as ConnectorOptions
    from datasources.plugins import (
        PluginEntry as PluginEntry,
        Plugins as Plugins,
        hookimpl as hookimpl,
    )
    from datasources.policy import LOCAL_NETWORKS as LOCAL_NETWORKS, Policy as Policy
    from datasources.pool import (
        ConnectionPool as ConnectionPool,
        ConnectionPoolManager as ConnectionPoolManager,
        PooledConnection as PooledConnection,
        PoolStatistics as PoolStatistics,
    )
    from datasources.preview import (
        MAX_WORKBOOK as MAX_WORKBOOK,
        is_parquet as is_parquet,
        is_workbook as is_workbook,
        parquet_statistics as parquet_statistics,
        preview_file as preview_file,
        preview_parquet as preview_parquet,
        preview_text as preview_text,
        preview_workbook as preview_workbook,
    )
    from datasources.principals import Grant as Grant, Principal as Principal
    from datasources.redaction import redact_text as redact_text
    from datasources.registry import (
        Access as Access,
        DataSourceRegistry as DataSourceRegistry,
        WorkspaceSession as WorkspaceSession,
        caller as caller,
    )
    from datasources.retrying import backoff as backoff
    from datasources.splits import (
        Split as Split,
        SplitPlan as SplitPlan,
    )
    from datasources.stored_queries import (
        BoundQuery as BoundQuery,
        QueryParameter as QueryParameter,
        QueryValue as QueryValue,
        StoredQuery as StoredQuery,
    )
    from datasources.stores import (
        MemoryStore as MemoryStore,
        Record as Record,
        Records as Records,
        SQLiteStore as SQLiteStore,
        Store as Store,
        StoredSource as StoredSource,
        check_write as check_write,
    )
    from datasources.streams import ItemStream as ItemStream, byte_range as byte_range
    from datasources.tabular import (
        CsvFile as CsvFile,
        csv_file as csv_file,
        glob_prefix as glob_prefix,
        glob_regex as glob_regex,
        items_below as items_below,
        query_name as query_name,
    )
    from datasources.threads import (
        ThreadWorker as ThreadWorker,
        run_in_thread as run_in_thread,
    )
    from datasources.uri import SourceURI as SourceURI
    from datasources.workbooks import convert_workbook as convert_workbook
    from datasources.workspace import (
        Progress as Progress,
        Workspace as Workspace,
        WorkspaceFile as WorkspaceFile,
    )

_MODULE_OF = {
    "API_VERSION": "connector",
    "Access": "registry",
    "AuditLog": "observers",
    "AuditObserver": "observers",
    "AuthenticationError": "errors",
    "BoundQuery": "stored_queries",
    "ColumnStatistics": "models",
    "ConflictError": "errors",
    "ConnectError": "errors",
    "ConnectionCheck": "models",
    "ConnectionPool": "pool",
    "ConnectionPoolManager": "pool",
    "ConnectorError": "errors",
    "ConnectorOptions": "options",
    "CredentialError": "errors",
    "CredentialManager": "credentials",
    "CsvFile": "tabular",
    "CursorError": "errors",
    "DataFetchError": "errors",
    "DataItem": "models",
    "DataSourceConfig": "models",
    "DataSourceConnector": "connector",
    "DataSourceError": "errors",
    "DataSourceExistsError": "errors",
    "DataSourceNotFoundError": "errors",
    "DataSourceRegistry": "registry",
    "DataSourceType": "models",
    "DecryptionError": "errors",
    "FetchReceipt": "models",
    "FetchRequest": "models",
    "FetchResult": "models",
    "Grant": "principals",
    "ItemExistsError": "errors",
    "ItemNotFoundError": "errors",
    "ItemStream": "streams",
    "LOCAL_NETWORKS": "policy",
    "LimitExceededError": "errors",
    "Limits": "models",
    "MAX_WORKBOOK": "preview",
    "MemoryStore": "stores",
    "MissingKeyError": "errors",
    "Operation": "models",
    "Option": "option_types",
    "OptionError": "errors",
    "Outcome": "models",
    "Page": "models",
    "PermissionDeniedError": "errors",
    "PinnedFile": "file_splits",
    "PluginConflictError": "errors",
    "PluginEntry": "plugins",
    "PluginError": "errors",
    "PluginIncompatibleError": "errors",
    "PluginLoadError": "errors",
    "Plugins": "plugins",
    "Policy": "policy",
    "PolicyError": "errors",
    "PoolClosedError": "errors",
    "PoolConfig": "models",
    "PoolError": "errors",
    "PoolStatistics": "pool",
    "PoolTimeoutError": "errors",
    "PooledConnection": "pool",
    "Preview": "models",
    "Principal": "principals",
    "Progress": "workspace",
    "QueryParameter": "stored_queries",
    "QueryValue": "stored_queries",
    "Record": "stores",
    "Records": "stores",
    "RegistryError": "errors",
    "Rotation": "models",
    "SQLiteStore": "stores",
    "SecretNotFoundError": "errors",
    "SecretRequiredError": "errors",
    "SourcePausedError": "errors",
    "SourceURI": "uri",
    "Split": "splits",
    "SplitFile": "file_splits",
    "SplitPlan": "splits",
    "SplittableFiles": "file_splits",
    "Store": "stores",
    "StoreError": "errors",
    "StoredQuery": "stored_queries",
    "StoredSource": "stores",
    "SupportsDiscover": "connector",
    "SupportsGlob": "connector",
    "SupportsIterItems": "connector",
    "SupportsPages": "connector",
    "SupportsParameters": "connector",
    "SupportsQueryMetadata": "connector",
    "SupportsQueryStatistics": "connector",
    "SupportsPreview": "connector",
    "SupportsReadTable": "connector",
    "SupportsSplits": "connector",
    "SupportsRights": "connector",
    "SupportsStatistics": "connector",
    "SupportsStream": "connector",
    "SupportsUpload": "connector",
    "TextFormat": "models",
    "ThreadWorker": "threads",
    "UnknownConnectorError": "errors",
    "UnsupportedError": "errors",
    "Workspace": "workspace",
    "WorkspaceFile": "workspace",
    "WorkspaceSession": "registry",
    "abilities": "connector",
    "backoff": "retrying",
    "byte_range": "streams",
    "caller": "registry",
    "check_write": "stores",
    "convert_workbook": "workbooks",
    "copy_file": "copying",
    "csv_file": "tabular",
    "delete_below": "files",
    "form": "forms",
    "gather_splits": "gathering",
    "glob_prefix": "tabular",
    "glob_regex": "tabular",
    "guess_media_type": "media_types",
    "hookimpl": "plugins",
    "is_parquet": "preview",
    "is_workbook": "preview",
    "items_below": "tabular",
    "open_below": "files",
    "open_regular": "files",
    "parquet_statistics": "preview",
    "preview_file": "preview",
    "preview_parquet": "preview",
    "preview_text": "preview",
    "preview_workbook": "preview",
    "query_name": "tabular",
    "redact_text": "redaction",
    "run_in_thread": "threads",
}

__version__ = "0.1.0"
__all__ = sorted([*_MODULE_OF, "lazy_exports"])  # noqa: PLE0605  (a list all the same)


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the `__getattr__` of a package whose names are imported when they are first used.

    A connector's package exports its classes so: discovery imports the package, and no driver
    with it.

        __all__ = ["ShelfConnector"]
        __getattr__ = lazy_exports(__name__, {"ShelfConnector": "connector"})

    Args:
        package: The package's `__name__`.
        modules: For each name, the module of the package that defines it.
    """

    def import_name(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module
        from sys import modules as loaded

        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(loaded[package], name, value)  # so that it is found without this from now on
        return value

    return import_name


__getattr__ = lazy_exports(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
