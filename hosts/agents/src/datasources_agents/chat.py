"""The data of one chat request: there before the model runs, deleted after its answer."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from datasources import Access, RegistryError, WorkspaceSession
from datasources_agents.manifest import FetchedFile, Manifest
from datasources_agents.references import (
    Reference,
    ReferencesError,
    last_user_message,
    references_in,
    without_references,
)
from datasources_agents.resolving import ResolveLimits, failure_of, resolve


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat request whose data are fetched."""

    body: dict[str, Any]
    """The request for the model: without references, and with a description of the files at the
    end of the last message of the user."""
    workspace: WorkspaceSession
    """The session of the directory that has the files, `workspace.path`."""
    manifest: Manifest
    """The description of the files."""


@asynccontextmanager
async def prepare(
    body: Mapping[str, Any],
    access: Access,
    *,
    workspace: WorkspaceSession | None = None,
    root: str | os.PathLike[str] | None = None,
    quota: int | None = None,
    limits: ResolveLimits | None = None,
    in_text: bool = False,
    earlier: Sequence[FetchedFile] = (),
) -> AsyncIterator[Chat]:
    """Fetch what a chat request refers to; leaving the block deletes the files.

    Args:
        body: The body of the request, which is not changed.
        access: What the caller may do.
        workspace: An open session to fetch into, which stays as it is when the block is left; by
            default a new one.
        root: The directory of a new session; None takes a temporary one.
        quota: Bytes that the files of a new session may have together.
        limits: Bounds of the fetches.
        in_text: As for `references_in`.
        earlier: As for `resolve`, with a `workspace` of a conversation.

    Raises:
        ReferencesError: References are malformed, or cannot be had; or the directory of a new
            session cannot be made.
    """
    limits = limits or ResolveLimits()
    references = references_in(body, in_text=in_text, maximum=limits.references)
    async with AsyncExitStack() as stack:
        if workspace is None:
            session = access.workspace(secrets.token_hex(16), root=root, quota=quota)
            try:
                workspace = await stack.enter_async_context(session)
            except RegistryError as exc:
                failure = failure_of(Reference("", "", pointer="#"), exc)
                raise ReferencesError([failure]) from exc
        manifest = await resolve(references, workspace, access, limits=limits, earlier=earlier)
        question = add_to_question(without_references(body), manifest.prompt())
        yield Chat(question, workspace, manifest)


def add_to_question(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return a chat request with a text at the end of the last message of the user.

    Args:
        body: The request, which is not changed.
        text: The text. If it is empty, the request stays as it is.
    """
    if not text:
        return dict(body)
    messages = list(body["messages"]) if isinstance(body.get("messages"), list) else []
    index = last_user_message(body)
    if index is None:
        return {**body, "messages": [*messages, {"role": "user", "content": text}]}
    content = messages[index].get("content")
    if isinstance(content, list):
        content = [*content, {"type": "text", "text": text}]
    else:
        content = f"{content}\n\n{text}" if isinstance(content, str) and content else text
    messages[index] = messages[index] | {"content": content}
    return {**body, "messages": messages}
