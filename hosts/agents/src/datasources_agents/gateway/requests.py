"""One chat request of the gateway: read, resolved, and written for the model's server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from datasources import Access, Record, WorkspaceSession, open_below
from datasources_agents.chat import add_to_question
from datasources_agents.gateway.settings import GatewaySettings
from datasources_agents.gateway.uploads import Uploads, upload_name
from datasources_agents.manifest import FetchedFile, Manifest
from datasources_agents.references import (
    Failure,
    Reference,
    ReferencesError,
    last_user_message,
    references_in,
    without_references,
)
from datasources_agents.resolving import resolve

_ATTACHED = "Files attached to this question, fetched for it."
_IN_DIRECTORY = "Files in the working directory, fetched for this question."


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The body of a request, and the references in it."""

    settings: GatewaySettings
    content: bytes
    body: dict[str, Any]
    references: list[Reference]

    @classmethod
    def parse(cls, content: bytes, settings: GatewaySettings) -> ChatRequest:
        """Read a body.

        Raises:
            ReferencesError: 422, it is no object of JSON, or references are malformed.
        """
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            failure = Failure("#", 422, "request-invalid", "the body must be an object of JSON")
            raise ReferencesError([failure])
        maximum = settings.references
        references = references_in(body, in_text=settings.in_text, maximum=maximum)
        return cls(settings, content, body, references)

    @property
    def thread_id(self) -> object:
        """The id of the conversation: of the body, or of its last message of the user."""
        index = last_user_message(self.body)
        message = {} if index is None else self.body["messages"][index]
        return self.body.get("thread_id", message.get("thread_id"))

    def relayed(self) -> bytes:
        """Return the body of a request without data, which stays as it is without references."""
        body = without_references(self.body)
        return self.content if body == self.body else _dump(body)

    async def resolve(
        self, session: WorkspaceSession, access: Access, earlier: Sequence[FetchedFile]
    ) -> Manifest:
        """Fetch the references into a directory; raises as `datasources_agents.resolve`."""
        return await resolve(
            self.references, session, access, limits=self.settings.limits, earlier=earlier
        )

    def with_directory(self, manifest: Manifest, session: WorkspaceSession) -> bytes:
        """Return the body for a server that reads the files in a directory.

        The server knows the directory by the id of the conversation, `thread_id`.
        """
        introduction = f"{_IN_DIRECTORY} The directory is {str(session.path)!r}."
        body = without_references(self.body)
        if self.thread_id is None:
            body["thread_id"] = session.id
        return _dump(add_to_question(body, manifest.prompt(introduction=introduction)))

    async def with_uploads(
        self,
        manifest: Manifest,
        session: WorkspaceSession,
        uploads: Uploads,
        owner: str,
        stack: AsyncExitStack,
    ) -> bytes:
        """Upload the files, and return the body that names them.

        Args:
            manifest: The files.
            session: Of the directory that has them.
            uploads: Those of this worker.
            owner: The id of the principal.
            stack: Deletes the uploads when it is left.

        Raises:
            UpstreamError, Problem: The server does not take a file.
        """
        records = {}
        for file in manifest.files:
            record = uploads.plan(owner, *upload_name(file.path, session.id))
            stack.callback(uploads.delete, record)
            records[file.path] = record
        turn = asyncio.Semaphore(self.settings.concurrency)

        async def upload(path: str, record: Record) -> str:
            async with turn:
                with os.fdopen(open_below(session.path, path), "rb") as file:
                    return await uploads.upload(record, file)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(upload(*entry)) for entry in records.items()]
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from None
        names = {path: record.data["name"] for path, record in records.items()}
        text = manifest.with_paths(names).prompt(introduction=_ATTACHED)
        body = add_to_question(without_references(self.body), text)
        return _dump(self._with_files(body, [task.result() for task in tasks]))

    def _with_files(self, body: dict[str, Any], ids: Sequence[str]) -> dict[str, Any]:
        """Return a body whose last message of the user names files, as the settings say."""
        index = last_user_message(body)
        assert index is not None  # the description of the files is in it
        message = dict(body["messages"][index])
        content = message["content"]
        if self.settings.mode == "file_parts":
            parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
            files = [{"type": "file", "file": {"file_id": file_id}} for file_id in ids]
            message["content"] = [*parts, *files]
        else:
            present = message.get("file_ids")
            message["file_ids"] = [*(present if isinstance(present, list) else ()), *ids]
            message["content"] = _text_of(content)
        messages = list(body["messages"])
        messages[index] = message
        return body | {"messages": messages}


def _text_of(content: Any) -> Any:
    """Return parts that are texts alone as one text, as servers with `file_ids` may take no parts."""
    if not isinstance(content, list):
        return content
    texts = [
        part.get("text")
        for part in content
        if isinstance(part, dict) and part.get("type") == "text"
    ]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        return content
    return "\n\n".join(map(str, texts))


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
