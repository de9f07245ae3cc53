"""Code of others in a sandbox, which reads the sources of a workspace session without a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_agents.sandbox.environment import (
        scrubbed_environment as scrubbed_environment,
    )
    from datasources_agents.sandbox.errors import (
        SandboxUnavailableError as SandboxUnavailableError,
    )
    from datasources_agents.sandbox.models import (
        ChangedFile as ChangedFile,
        RunLimits as RunLimits,
        RunResult as RunResult,
    )
    from datasources_agents.sandbox.runner import Runner as Runner

__all__ = [
    "ChangedFile",
    "RunLimits",
    "RunResult",
    "Runner",
    "SandboxUnavailableError",
    "scrubbed_environment",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "ChangedFile": "models",
        "RunLimits": "models",
        "RunResult": "models",
        "Runner": "runner",
        "SandboxUnavailableError": "errors",
        "scrubbed_environment": "environment",
    },
)
