"""References in chat, tools and MCP: what language models use of the sources of a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_agents.chat import Chat as Chat, prepare as prepare
    from datasources_agents.fence import Fence as Fence
    from datasources_agents.manifest import (
        Column as Column,
        FetchedFile as FetchedFile,
        Manifest as Manifest,
    )
    from datasources_agents.references import (
        Failure as Failure,
        Reference as Reference,
        ReferencesError as ReferencesError,
        references_in as references_in,
        without_references as without_references,
    )
    from datasources_agents.resolving import ResolveLimits as ResolveLimits, resolve as resolve
    from datasources_agents.responding import respond as respond
    from datasources_agents.tools import call_tool as call_tool, tool_schemas as tool_schemas

__all__ = [
    "Chat",
    "Column",
    "Failure",
    "Fence",
    "FetchedFile",
    "Manifest",
    "Reference",
    "ReferencesError",
    "ResolveLimits",
    "call_tool",
    "prepare",
    "references_in",
    "resolve",
    "respond",
    "tool_schemas",
    "without_references",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Chat": "chat",
        "Column": "manifest",
        "Failure": "references",
        "Fence": "fence",
        "FetchedFile": "manifest",
        "Manifest": "manifest",
        "Reference": "references",
        "ReferencesError": "references",
        "ResolveLimits": "resolving",
        "call_tool": "tools",
        "prepare": "chat",
        "references_in": "references",
        "resolve": "resolving",
        "respond": "responding",
        "tool_schemas": "tools",
        "without_references": "references",
    },
)
