"""The registry: sources by id, and every operation on them."""

from __future__ import annotations

from datasources import lazy_exports

TYPE_CHECKING = False

if TYPE_CHECKING:
    from datasources.registry.access import Access as Access
    from datasources.registry.factory import ConnectorFactory as ConnectorFactory
    from datasources.registry.observing import (
        caller as caller,
        current_caller as current_caller,
        describe_error as describe_error,
        operation_target as operation_target,
        redacted_excerpt as redacted_excerpt,
        status as status,
    )
    from datasources.registry.opening import open_store as open_store
    from datasources.registry.records import SourceRecords as SourceRecords
    from datasources.registry.registry import DataSourceRegistry as DataSourceRegistry
    from datasources.registry.sessions import WorkspaceSession as WorkspaceSession
    from datasources.registry.updates import required_secrets as required_secrets

__getattr__ = lazy_exports(
    __name__,
    {
        "DataSourceRegistry": "registry",
        "Access": "access",
        "ConnectorFactory": "factory",
        "SourceRecords": "records",
        "WorkspaceSession": "sessions",
        "operation_target": "observing",
        "caller": "observing",
        "current_caller": "observing",
        "redacted_excerpt": "observing",
        "open_store": "opening",
        "required_secrets": "updates",
        "describe_error": "observing",
        "status": "observing",
    },
)
