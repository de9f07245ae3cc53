"""List, inspect and fetch data from outside systems through pip-installable connectors."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing `typing` takes as long as all the rest

if TYPE_CHECKING:
    from datasources.audit import AuditLog as AuditLog
    from datasources.connector import (
        API_VERSION as API_VERSION,
        DataSourceConnector as DataSourceConnector,
        SupportsGlob as SupportsGlob,
        SupportsIterItems as SupportsIterItems,
        SupportsPreview as SupportsPreview,
        SupportsReadTable as SupportsReadTable,
        SupportsStatistics as SupportsStatistics,
        SupportsUpload as SupportsUpload,
        abilities as abilities,
    )
    from datasources.copying import copy_file as copy_file
    from datasources.credentials import CredentialManager as CredentialManager
    from datasources.errors import (
        AuthenticationError as AuthenticationError,
        ConnectError as ConnectError,
        ConnectorError as ConnectorError,
        CredentialError as CredentialError,
        DataFetchError as DataFetchError,
        DataSourceError as DataSourceError,
        DataSourceExistsError as DataSourceExistsError,
        DataSourceNotFoundError as DataSourceNotFoundError,
        DecryptionError as DecryptionError,
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
        StoreError as StoreError,
        UnknownConnectorError as UnknownConnectorError,
    )
    from datasources.hookspecs import hookimpl as hookimpl
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
        PoolConfig as PoolConfig,
        Preview as Preview,
        Rotation as Rotation,
        TextFormat as TextFormat,
    )
    from datasources.operations import Outcome as Outcome, caller as caller
    from datasources.options import ConnectorOptions as ConnectorOptions
    from datasources.plugins import PluginEntry as PluginEntry, Plugins as Plugins
    from datasources.policy import Policy as Policy
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
        preview_file as preview_file,
        preview_parquet as preview_parquet,
        preview_text as preview_text,
        preview_workbook as preview_workbook,
    )
    from datasources.redaction import redact_text as redact_text
    from datasources.registry import DataSourceRegistry as DataSourceRegistry
    from datasources.sessions import WorkspaceSession as WorkspaceSession
    from datasources.stores import (
        MemoryStore as MemoryStore,
        SQLiteStore as SQLiteStore,
        Store as Store,
        StoredSource as StoredSource,
        check_write as check_write,
    )
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
    from datasources.workbooks import convert_workbook as convert_workbook
    from datasources.workspace import (
        Progress as Progress,
        Workspace as Workspace,
        WorkspaceFile as WorkspaceFile,
    )

_NAMES = {
    "audit": "AuditLog",
    "connector": (
        "API_VERSION DataSourceConnector SupportsGlob SupportsIterItems SupportsPreview "
        "SupportsReadTable SupportsStatistics SupportsUpload abilities"
    ),
    "copying": "copy_file",
    "credentials": "CredentialManager",
    "errors": (
        "AuthenticationError ConnectError ConnectorError CredentialError DataFetchError "
        "DataSourceError DataSourceExistsError DataSourceNotFoundError DecryptionError "
        "ItemNotFoundError LimitExceededError MissingKeyError OptionError "
        "PermissionDeniedError PluginConflictError PluginError PluginIncompatibleError "
        "PluginLoadError PolicyError PoolClosedError PoolError PoolTimeoutError RegistryError "
        "SecretNotFoundError StoreError UnknownConnectorError"
    ),
    "hookspecs": "hookimpl",
    "media_types": "guess_media_type",
    "models": (
        "ColumnStatistics ConnectionCheck DataItem DataSourceConfig DataSourceType "
        "FetchReceipt FetchRequest FetchResult Limits Operation PoolConfig Preview Rotation "
        "TextFormat"
    ),
    "operations": "Outcome caller",
    "options": "ConnectorOptions",
    "plugins": "PluginEntry Plugins",
    "policy": "Policy",
    "pool": "ConnectionPool ConnectionPoolManager PoolStatistics PooledConnection",
    "preview": (
        "MAX_WORKBOOK is_parquet is_workbook preview_file preview_parquet preview_text "
        "preview_workbook"
    ),
    "redaction": "redact_text",
    "registry": "DataSourceRegistry",
    "sessions": "WorkspaceSession",
    "stores": "MemoryStore SQLiteStore Store StoredSource check_write",
    "tabular": "CsvFile csv_file glob_prefix glob_regex items_below query_name",
    "threads": "ThreadWorker run_in_thread",
    "workbooks": "convert_workbook",
    "workspace": "Progress Workspace WorkspaceFile",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  (a list all the same)


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: `import datasources` itself costs next to nothing."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'datasources' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"datasources.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
