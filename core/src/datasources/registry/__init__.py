"""The registry: sources by id, and every operation on them."""

from __future__ import annotations

from datasources import lazy_exports

TYPE_CHECKING = False

if TYPE_CHECKING:
    from datasources.registry.observing import (
        asked_for as asked_for,
        caller as caller,
        current_caller as current_caller,
        excerpt as excerpt,
        told as told,
        verdict as verdict,
    )
    from datasources.registry.records import Sources as Sources, open_store as open_store
    from datasources.registry.registry import DataSourceRegistry as DataSourceRegistry
    from datasources.registry.sessions import WorkspaceSession as WorkspaceSession

__getattr__ = lazy_exports(
    __name__,
    {
        "DataSourceRegistry": "registry",
        "Sources": "records",
        "WorkspaceSession": "sessions",
        "asked_for": "observing",
        "caller": "observing",
        "current_caller": "observing",
        "excerpt": "observing",
        "open_store": "records",
        "told": "observing",
        "verdict": "observing",
    },
)
