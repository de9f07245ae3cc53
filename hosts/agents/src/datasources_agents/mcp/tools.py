"""The tools as those of an MCP server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools.base import Tool as McpTool
from mcp.server.mcpserver.utilities.func_metadata import func_metadata
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field, PrivateAttr

from datasources_agents.mcp.results import Results
from datasources_agents.tools import TOOLS, UPLOAD, Tool, Toolbox, has_query

if TYPE_CHECKING:
    from datasources_agents.mcp.server import Caller, FindCaller

_PROGRESS_SECONDS = 0.5  # between two notifications of progress
_HEADER = "Source"  # the request header is `Mcp-Param-Source`


def make_tools(find_caller: FindCaller, only: Caller | None, results: Results) -> list[SourceTool]:
    """Return the tools of a server.

    Args:
        find_caller: Returns the caller of a request.
        only: The only caller; None if there are several.
        results: Makes the results.
    """
    may_query = only is None or has_query(only.access)
    uploads = only is not None and only.uploads is not None
    tools = []
    for tool in [*TOOLS.values(), UPLOAD] if uploads else TOOLS.values():
        server_tool = SourceTool(
            fn=_no_function,
            name=tool.name,
            title=None,
            context_kwarg=None,
            description=tool.description,
            parameters=_parameters(tool, may_query=may_query),
            fn_metadata=func_metadata(_no_function, structured_output=False),
            is_async=True,
            annotations=_annotations(tool),
        )
        server_tool._find_caller = find_caller
        server_tool._results = results
        tools.append(server_tool)
    return tools


class SourceTool(McpTool):
    """A tool that checks its arguments itself, as the SDK's own check repeats their values."""

    parameters: dict[str, Any] = Field(description="JSON schema for tool parameters")
    _find_caller: FindCaller = PrivateAttr()
    _results: Results = PrivateAttr()

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> CallToolResult:
        """Run the tool.

        Raises:
            ToolError: The call has failed; the message is one sentence.
        """
        del convert_result
        caller = self._find_caller(context)
        progress = _Progress(context)
        call = Toolbox(caller.access, caller.fetches, uploads=caller.uploads).call(
            self.name, arguments, progress=progress.note
        )
        result = await _run(asyncio.create_task(call), progress)
        if "error" in result and "state" not in result:
            raise ToolError(result["error"]["message"])
        return self._results.make(result)


class _Progress:
    """Notifies the client of the progress of a fetch."""

    def __init__(self, context: Context[Any, Any]) -> None:
        self._context = context
        self._latest: tuple[int, int | None] | None = None

    def note(self, fetched: int, total: int | None) -> None:
        """Take the bytes so far and the total."""
        self._latest = fetched, total

    async def send(self) -> None:
        """Send what is new."""
        if self._latest is not None:
            (fetched, total), self._latest = self._latest, None
            await self._context.report_progress(fetched, total)


async def _run(task: asyncio.Task[dict[str, Any]], progress: _Progress) -> dict[str, Any]:
    """Return the result of a task; cancel the task if the request is cancelled.

    A cancelled scope of anyio interrupts every `await` in it again, also those by which a
    connection is cleaned up. The task has only one cancellation, and its end is awaited.
    """
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_PROGRESS_SECONDS)
            await progress.send()
        return task.result()
    finally:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])


def _parameters(tool: Tool, *, may_query: bool) -> dict[str, Any]:
    """Return the JSON Schema of the arguments, of which those with a default are not required."""
    schema = tool.parameters(may_query=may_query)
    properties = schema["properties"]
    if "source" in properties:
        properties["source"]["x-mcp-header"] = _HEADER
    required = [name for name in properties if not isinstance(properties[name]["type"], list)]
    return schema | {"required": required}


def _annotations(tool: Tool) -> ToolAnnotations:
    writes = tool is UPLOAD or tool.name.startswith("fetch_")
    return ToolAnnotations(
        read_only_hint=not writes,
        destructive_hint=tool is UPLOAD if writes else None,
        open_world_hint=False,
    )


async def _no_function() -> None:
    """Stand for the function of a tool, which has none: `run` is its own."""
