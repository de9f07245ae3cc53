"""Run the tools: each call is an operation of `Access`, and its result is bounded JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from datasources import Access, FetchRequest, OptionError, UnsupportedError, WorkspaceSession
from datasources.workspace import Progress
from datasources_agents.tools.arguments import check_arguments, parameter_values
from datasources_agents.tools.describing import describe_item
from datasources_agents.tools.failures import ToolCallError, TooSlowError, describe_failure
from datasources_agents.tools.jobs import Fetches, SessionFetches
from datasources_agents.tools.listing import list_items, list_sources
from datasources_agents.tools.previewing import preview_item
from datasources_agents.tools.schemas import TOOLS, UPLOAD

_TIMEOUT = 30.0  # seconds of a call that is no fetch


async def call_tool(
    name: str,
    arguments: Mapping[str, Any] | str,
    access: Access,
    workspace: WorkspaceSession | None = None,
) -> dict[str, Any]:
    """Run a tool for a model, and return its result as values that JSON can hold.

    A failure is a result as well: `{"error": {"slug", "message", "retryable"}}`, whose message is
    one sentence. Names and values of the source are only in the fields that hold data.

    Args:
        name: The name of the tool.
        arguments: The arguments; or their JSON, as a chat completion has it.
        access: What the caller may do.
        workspace: The session that items are fetched into, and whose end cancels its jobs; None
            refuses to fetch.
    """
    fetches = None if workspace is None else SessionFetches(workspace)
    return await Toolbox(access, fetches).call(name, arguments)


class Toolbox:
    """The tools of one principal.

    Args:
        access: What the principal may do.
        fetches: Writes items to files; None refuses to fetch.
        uploads: Stores files of the workspace in sources; None is without that tool.
    """

    def __init__(
        self,
        access: Access,
        fetches: Fetches | None = None,
        *,
        uploads: SessionFetches | None = None,
    ) -> None:
        self._access = access
        self._fetches = fetches
        self._uploads = uploads
        self._tools = TOOLS if uploads is None else {**TOOLS, UPLOAD.name: UPLOAD}

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, *, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Run a tool; see `call_tool`.

        Args:
            name: The name of the tool.
            arguments: The arguments, or their JSON.
            progress: Called during a fetch with the bytes so far and the total, None where unknown.
        """
        try:
            tool = self._tools.get(name)
            if tool is None:
                names = ", ".join(self._tools)
                raise ToolCallError(f"there is no such tool; the tools are {names}")
            checked = check_arguments(tool, _parse(arguments))
            return await self._run(name, checked, progress)
        except Exception as exc:  # noqa: BLE001  (described, and logged if unexpected)
            return {"error": describe_failure(exc)}

    async def _run(
        self, name: str, arguments: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        if name == "fetch_item":
            return await self._fetch(arguments, progress)
        if name == "fetch_status":
            return await self._status(arguments)
        if name == UPLOAD.name and self._uploads is not None:
            return await self._uploads.upload(self._access, **arguments)
        operation = _OPERATIONS[name]
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await operation(self._access, arguments)
        except TimeoutError:
            raise TooSlowError(
                f"{name} has taken more than {_TIMEOUT:g} seconds; fetch_item may take longer"
            ) from None

    async def _fetch(self, arguments: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
        request = FetchRequest(
            arguments["source"],
            arguments["item"],
            arguments["format"],
            parameters=parameter_values(arguments["parameters"]),
        )
        return await self._require_fetches().fetch(
            self._access, request, arguments["max_rows"], progress
        )

    async def _status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._require_fetches().status(
            self._access, arguments["job"], cancel=arguments["cancel"] is True
        )

    def _require_fetches(self) -> Fetches:
        if self._fetches is None:
            raise UnsupportedError("this host has no workspace to fetch items into")
        return self._fetches


_OPERATIONS = {
    "list_sources": list_sources,
    "list_items": list_items,
    "describe_item": describe_item,
    "preview_item": preview_item,
}


def _parse(arguments: Mapping[str, Any] | str) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        raise OptionError("the arguments of the call are not JSON") from None
