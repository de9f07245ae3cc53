"""Tools by which a model lists, describes, previews and fetches data."""

from __future__ import annotations

from datasources_agents.tools.failures import (
    JobNotFoundError as JobNotFoundError,
    ToolCallError as ToolCallError,
    describe_failure as describe_failure,
)
from datasources_agents.tools.jobs import (
    Fetches as Fetches,
    SessionFetches as SessionFetches,
    describe_receipt as describe_receipt,
)
from datasources_agents.tools.results import MAX_BYTES as MAX_BYTES
from datasources_agents.tools.schemas import (
    TOOLS as TOOLS,
    UPLOAD as UPLOAD,
    Tool as Tool,
    has_query as has_query,
    tool_schemas as tool_schemas,
)
from datasources_agents.tools.toolbox import (
    Toolbox as Toolbox,
    call_tool as call_tool,
)

__all__ = [
    "MAX_BYTES",
    "TOOLS",
    "UPLOAD",
    "Fetches",
    "JobNotFoundError",
    "SessionFetches",
    "Tool",
    "ToolCallError",
    "Toolbox",
    "call_tool",
    "describe_failure",
    "describe_receipt",
    "has_query",
    "tool_schemas",
]
