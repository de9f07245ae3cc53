"""Results of tools as MCP has them; data are sent once."""

from __future__ import annotations

import json
import re
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ResourceLink, TextContent

# What JSON may hold as it is, and models, terminals and viewers may take for more than data.
_COMMANDS = re.compile("[<>\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")
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
        text = _SUMMARY if self._structured else _dump(result)
        content: list[ContentBlock] = [TextContent(type="text", text=text)]
        if uri := result.get("uri"):
            content.append(ResourceLink(uri=uri, name=f"item of {result['source']}"))
        return CallToolResult(
            content=content, structured_content=result if self._structured else None
        )


def _dump(result: dict[str, Any]) -> str:
    """Return JSON that keeps other scripts readable, with commands to terminals escaped."""
    text = json.dumps(result, ensure_ascii=False)
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
