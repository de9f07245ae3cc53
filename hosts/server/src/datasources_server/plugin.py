"""Commands of the command line; this module stays light to import."""

from __future__ import annotations

from typing import Any

from datasources import hookimpl


@hookimpl
def datasources_commands(group: Any) -> None:
    """Add `serve` and `tokens`."""
    from datasources_server.commands import tokens_group
    from datasources_server.serving import serve_command

    group.add_command(serve_command)
    group.add_command(tokens_group)
