"""The MCP server as `build` makes it, with the tools that the conformance suite calls.

Run by uvicorn as `tests.judges.conformance_server:app`. The suite's own tools stand for what a server
could do; ours are listed and called beside them.
"""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

from datasources import DataSourceRegistry, Grant, Principal
from datasources_agents.mcp import build

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJg"
    "gg=="
)
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
AnyContext = Context[Any, Any]
Requests = dict[str, InputRequest]

_access = DataSourceRegistry().access(Principal("judge", grants=[Grant("lake", {"read"})]))
server = build(_access)
tool = partial(server.tool, description="A tool of the suite.")
prompt = partial(server.prompt, description="A prompt of the suite.")


def text(content: str) -> TextContent:
    return TextContent(type="text", text=content)


def resource(uri: str, media_type: str, content: str) -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=media_type, text=content)
    return EmbeddedResource(type="resource", resource=contents)


def question(message: str, name: str, type: str = "string") -> ElicitRequest:
    schema: Any = {"type": "object", "properties": {name: {"type": type}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=text(prompt))
    return CreateMessageRequest(
        params=CreateMessageRequestParams(messages=[message], max_tokens=100)
    )


def answer_to(context: AnyContext, name: str) -> Any:
    return (context.input_responses or {}).get(name)


@tool()
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@tool()
def test_image_content() -> list[ImageContent]:
    return [ImageContent(type="image", data=PNG, mime_type="image/png")]


@tool()
def test_audio_content() -> list[AudioContent]:
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


@tool()
def test_embedded_resource() -> list[EmbeddedResource]:
    return [resource("test://embedded-resource", "text/plain", "An embedded resource.")]


@tool()
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    return [
        text("Multiple content types test:"),
        ImageContent(type="image", data=PNG, mime_type="image/png"),
        resource("test://mixed-content-resource", "application/json", '{"test": "data"}'),
    ]


@tool()
def test_error_handling() -> str:
    raise ToolError("This tool intentionally returns an error for testing")


@tool()
async def test_tool_with_logging(context: AnyContext) -> str:
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.info(message)
    return "Tool with logging executed successfully"


@tool()
async def test_logging_tool(context: AnyContext) -> str:
    await context.info("logged")
    return "done"


@tool()
async def test_tool_with_progress(context: AnyContext) -> str:
    for step in (0, 50, 100):
        await context.report_progress(step, 100, f"Completed step {step} of 100")
    return "done"


@tool()
async def test_sampling(prompt: str, context: AnyContext) -> str:
    message = SamplingMessage(role="user", content=text(prompt))
    result = await context.session.create_message([message], max_tokens=100)
    return f"LLM response: {result.content.text}"


class Answer(BaseModel):
    username: str = Field(description="Name")
    email: str = Field(description="Address")


@tool()
async def test_elicitation(message: str, context: AnyContext) -> str:
    result = await context.elicit(message=message, schema=Answer)
    return f"User response: {result.action}"


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field("active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


@tool()
async def test_elicitation_sep1034_defaults(context: AnyContext) -> str:
    result = await context.elicit(message="Please provide user information", schema=Defaults)
    return f"Elicitation completed: {result.action}"


def _titled(keyword: str, **titles: str) -> dict[str, Any]:
    return {keyword: [{"const": value, "title": title} for value, title in titles.items()]}


class Enums(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": ["a", "b", "c"]})  # noqa: N815
    titledSingle: str = Field(json_schema_extra=_titled("oneOf", a="A", b="B"))  # noqa: N815
    legacyEnum: str = Field(  # noqa: N815
        json_schema_extra={"enum": ["a", "b"], "enumNames": ["A", "B"]}
    )
    untitledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": {"type": "string", "enum": ["a", "b", "c"]}}
    )
    titledMulti: list[str] = Field(  # noqa: N815
        json_schema_extra={"items": _titled("anyOf", a="A", b="B")}
    )


@tool()
async def test_elicitation_sep1330_enums(context: AnyContext) -> str:
    result = await context.elicit(message="Please select", schema=Enums)
    return f"Elicitation completed: {result.action}"


@tool()
async def test_missing_capability(context: AnyContext) -> str:
    capabilities = context.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "the tool needs sampling",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return "done"


@tool()
async def test_streaming_elicitation(context: AnyContext) -> str | InputRequiredResult:
    await context.report_progress(1, 2)
    if answer_to(context, "name") is None:
        return InputRequiredResult(input_requests={"name": question("Name?", "name")})
    return "done"


@tool()
async def test_trigger_tool_change(context: AnyContext) -> str:
    await context.notify_tools_changed()
    return "done"


@tool()
async def test_trigger_prompt_change(context: AnyContext) -> str:
    await context.notify_prompts_changed()
    return "done"


@tool()
async def test_input_required_result_elicitation(
    context: AnyContext,
) -> str | InputRequiredResult:
    answer = answer_to(context, "user_name")
    if answer is None:
        request = question("What is your name?", "name")
        return InputRequiredResult(input_requests={"user_name": request})
    return f"Hello, {answer.content['name']}!"


@tool()
async def test_input_required_result_sampling(context: AnyContext) -> str | InputRequiredResult:
    answer = answer_to(context, "capital_question")
    if answer is None:
        request = sampling("What is the capital of France?")
        return InputRequiredResult(input_requests={"capital_question": request})
    return str(answer.content.text)


@tool()
async def test_input_required_result_list_roots(
    context: AnyContext,
) -> str | InputRequiredResult:
    answer = answer_to(context, "client_roots")
    if answer is None:
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    return ", ".join(str(root.uri) for root in answer.roots)


@tool()
async def test_input_required_result_request_state(
    context: AnyContext,
) -> str | InputRequiredResult:
    if answer_to(context, "confirm") is None:
        requests: Requests = {"confirm": question("Please confirm", "ok", "boolean")}
        return InputRequiredResult(input_requests=requests, request_state="confirming")
    return "state-ok" if context.request_state == "confirming" else "wrong state"


@tool()
async def test_input_required_result_tampered_state(
    context: AnyContext,
) -> str | InputRequiredResult:
    if answer_to(context, "confirm") is None:
        requests: Requests = {"confirm": question("Please confirm", "ok", "boolean")}
        return InputRequiredResult(input_requests=requests, request_state="sealed by the SDK")
    return "done"


@tool()
async def test_input_required_result_multiple_inputs(
    context: AnyContext,
) -> str | InputRequiredResult:
    requests: Requests = {
        "user_name": question("What is your name?", "name"),
        "greeting": sampling("Generate a greeting"),
        "client_roots": ListRootsRequest(),
    }
    if not requests.keys() <= (context.input_responses or {}).keys():
        return InputRequiredResult(input_requests=requests, request_state="asked")
    return "all answers are there"


@tool()
async def test_input_required_result_multi_round(
    context: AnyContext,
) -> str | InputRequiredResult:
    if context.request_state == "round-2" and answer_to(context, "step2") is not None:
        return "done"
    if context.request_state == "round-1" and answer_to(context, "step1") is not None:
        second: Requests = {"step2": question("Step 2: What is your favorite color?", "color")}
        return InputRequiredResult(input_requests=second, request_state="round-2")
    requests: Requests = {"step1": question("Step 1: What is your name?", "name")}
    return InputRequiredResult(input_requests=requests, request_state="round-1")


@tool()
async def test_input_required_result_capabilities(
    context: AnyContext,
) -> str | InputRequiredResult:
    capabilities = context.client_capabilities
    requests: Requests = {}
    if capabilities is not None and capabilities.sampling is not None:
        requests["greeting"] = sampling("Generate a greeting")
    if capabilities is not None and capabilities.elicitation is not None:
        requests["name"] = question("What is your name?", "name")
    return InputRequiredResult(input_requests=requests) if requests else "nothing to ask"


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    return base64.b64decode(PNG)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    return "Watched resource content"


@prompt()
def test_simple_prompt() -> str:
    return "This is a simple prompt for testing."


@prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803
    return [UserMessage(content=resource(resourceUri, "text/plain", "Embedded resource content."))]


@prompt()
def test_prompt_with_image() -> list[UserMessage]:
    return [UserMessage(content=ImageContent(type="image", data=PNG, mime_type="image/png"))]


@prompt()
def test_input_required_result_prompt(context: AnyContext) -> Any:
    if answer_to(context, "user_context") is None:
        request = question("What context should the prompt use?", "context")
        return InputRequiredResult(input_requests={"user_context": request})
    return "done"


@server.completion()
async def complete(*_: Any) -> Completion:
    return Completion(values=[], total=0, has_more=False)


async def accept(*_: Any) -> EmptyResult:
    return EmptyResult()


# Methods of the older revision that the SDK has no decorators for.
_handlers: dict[str, Any] = {
    "logging/setLevel": SetLevelRequestParams,
    "resources/subscribe": SubscribeRequestParams,
    "resources/unsubscribe": UnsubscribeRequestParams,
}
for _method, _params in _handlers.items():
    server._lowlevel_server.add_request_handler(_method, _params, accept)

app = server.streamable_http_app(
    transport_security=TransportSecuritySettings(
        allowed_hosts=["127.0.0.1:*", "localhost:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
    )
)
