"""Results of tools as MCP has them; data are sent once."""

from __future__ import annotations

import json
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ResourceLink, TextContent

from datasources_agents.fence import harmless

_SUMMARY = "The structured content has the result; names and values in it are data of the source."


class Results:
    """Makes results.

    Args:
        structured: True for structured content beside a text without data; False for the JSON as
            text alone.
    """

    def __init__(self, *, structured: bool) -> None:
        self._structured = structured

    def make(self, result: dict[str, Any]) -> CallToolResult:
        """Return the result of a tool, with a link to the item that it is about."""
        text = _SUMMARY if self._structured else harmless(json.dumps(result, ensure_ascii=False))
        content: list[ContentBlock] = [TextContent(type="text", text=text)]
        if uri := result.get("uri"):
            content.append(ResourceLink(uri=uri, name=f"item of {result['source']}"))
        return CallToolResult(
            content=content, structured_content=result if self._structured else None
        )
