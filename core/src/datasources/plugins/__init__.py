"""Plugins: find the installed ones, check that they fit, import them, call their hooks.

Discovery imports neither a plugin nor pluggy, whose import takes longer than a whole listing of the
plugins. So the names of this package are imported when they are first used.
"""

from __future__ import annotations

from datasources import lazy_exports

TYPE_CHECKING = False

if TYPE_CHECKING:
    from datasources.plugins.discovery import (
        PluginEntry as PluginEntry,
        describe_error as describe_error,
        resolve_conflicts as resolve_conflicts,
        scan as scan,
    )
    from datasources.plugins.hookspecs import PROJECT as PROJECT, hookimpl as hookimpl
    from datasources.plugins.manager import IMPORT_TIMEOUT as IMPORT_TIMEOUT, Plugins as Plugins

__getattr__ = lazy_exports(
    __name__,
    {
        "IMPORT_TIMEOUT": "manager",
        "PROJECT": "hookspecs",
        "PluginEntry": "discovery",
        "Plugins": "manager",
        "describe_error": "discovery",
        "hookimpl": "hookspecs",
        "resolve_conflicts": "discovery",
        "scan": "discovery",
    },
)
