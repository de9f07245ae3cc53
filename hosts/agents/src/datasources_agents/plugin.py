"""Commands of the command line; this module stays light to import."""

from __future__ import annotations

from typing import Any

from datasources import hookimpl


@hookimpl
def datasources_commands(group: Any) -> None:
    """Add `mcp` and `run`."""
    from datasources_agents.commands import mcp_command
    from datasources_agents.sandbox.command import run_command

    group.add_command(mcp_command)
    group.add_command(run_command)
