"""References in chat, tools and MCP: what language models use of the sources of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_agents.fence import Fence as Fence
    from datasources_agents.tools import call_tool as call_tool, tool_schemas as tool_schemas

__all__ = ["Fence", "call_tool", "tool_schemas"]

__getattr__ = lazy_exports(
    __name__,
    {"Fence": "fence", "call_tool": "tools", "tool_schemas": "tools"},
)
