"""An MCP server on the sources that a principal may use."""

from __future__ import annotations

from datasources_agents.mcp.server import (
    Caller as Caller,
    FindCaller as FindCaller,
    build as build,
    build_for as build_for,
)

__all__ = ["Caller", "FindCaller", "build", "build_for"]
