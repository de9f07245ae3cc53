"""The error of a machine that has no sandbox."""

from __future__ import annotations

from datasources import DataSourceError


class SandboxUnavailableError(DataSourceError):
    """Raised when code cannot be run in a sandbox on this machine; it is not run at all."""

    slug = "sandbox-unavailable"
    http_status = 501
