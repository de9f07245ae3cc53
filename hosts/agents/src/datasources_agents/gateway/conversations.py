"""The directories of requests and conversations, and the files that a conversation has."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from datasources import ConflictError, OptionError, Record, Records, RegistryError, WorkspaceSession
from datasources.names import check_id
from datasources_agents.gateway.settings import GatewaySettings
from datasources_agents.manifest import FetchedFile
from datasources_agents.references import Failure, Reference, ReferencesError, invalid
from datasources_agents.resolving import failure_of
from datasources_server.calls import Api, Call

_MAX_FILES = 100  # of one conversation; the latest ones are kept
_LOCK_SECONDS = 0.1  # between two attempts to lock a directory
_POINTER = "#/thread_id"
_WORKSPACE = Reference("", "", pointer="#")
_FOREIGN = "is a conversation of somebody else"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The conversation of a request; each request without a `thread_id` has one of its own."""

    id: str
    """The name of its directory."""
    lasts: bool
    """True if its files are kept for later requests."""
    files: Sequence[FetchedFile] = ()
    """The files that earlier requests have fetched."""


class Conversations:
    """The conversations on one store.

    Args:
        api: The parts that all requests share.
        settings: Of the gateway.
        root: The directory of the data.
    """

    def __init__(self, api: Api, settings: GatewaySettings, root: str) -> None:
        self._api = api
        self._settings = settings
        self.root = root
        # Of one root, as a gateway with another one on the store does not have the files.
        self._kind = f"gateway-conversation-{hashlib.sha256(root.encode()).hexdigest()[:12]}"

    async def find(self, call: Call, thread_id: object) -> Conversation:
        """Return the conversation of a request.

        Raises:
            ReferencesError: 422, `thread_id` is malformed, or that of somebody else.
        """
        if thread_id is None:
            return Conversation(uuid4().hex, lasts=False)
        if not isinstance(thread_id, str) or not thread_id:
            raise ReferencesError([invalid(_POINTER, "must be a text that is not empty")])
        name = self._name(call, thread_id)
        try:
            check_id(name, "conversation")
        except OptionError:  # it has no directory, and `open` says so
            return Conversation(name, lasts=True)
        record = await asyncio.to_thread(self._records().get, self._kind, name)
        if record is None:
            return Conversation(name, lasts=True)
        if record.owner != call.principal.id:
            raise ReferencesError([invalid(_POINTER, _FOREIGN)])
        files = [FetchedFile.from_dict(values) for values in record.data["files"]]
        return Conversation(name, lasts=True, files=files)

    @asynccontextmanager
    async def open(self, call: Call, conversation: Conversation) -> AsyncIterator[WorkspaceSession]:
        """Return a session of the directory, once no other request of the conversation has one.

        Raises:
            ReferencesError: 422, the name cannot be that of a directory, or somebody else has it;
                424, another request of the conversation takes too long, there are too many of them,
                or the directory cannot be opened.
        """
        try:
            session = call.access.workspace(
                conversation.id,
                root=self.root,
                quota=self._settings.quota,
                keep=conversation.lasts,
            )
        except OptionError:
            detail = "must be letters, digits, '.', '_' and '-', 128 characters at most"
            raise ReferencesError([invalid(_POINTER, detail)]) from None
        if conversation.lasts:
            await self._claim(call, conversation)
        async with AsyncExitStack() as stack:
            await self._enter(stack, session)
            yield session

    async def save(
        self, call: Call, conversation: Conversation, files: Sequence[FetchedFile]
    ) -> None:
        """Save which files a conversation has, without their cells.

        Raises:
            StoreError: The store cannot be written.
        """
        facts = [replace(file, columns=(), first_rows=(), notes=()) for file in files[-_MAX_FILES:]]
        await self._put(call, conversation, facts)

    def sweep(self) -> None:
        """Delete what conversations that are over have left, and requests of dead workers.

        A record outlives its directory, so that nobody else gets a directory with files in it. This
        blocks.
        """
        ttl = self._settings.conversation_ttl
        if os.path.isdir(self.root):
            self._api.registry.sweep_workspaces(self.root, ttl)
        records, after = self._records(), ""
        while page := records.list(self._kind, after=after):
            after = page[-1].id
            for record in page:
                is_over = record.data["used_at"] < time.time() - ttl
                if is_over and not os.path.lexists(os.path.join(self.root, record.id)):
                    with suppress(ConflictError):  # used meanwhile
                        over = replace(record, expires_at=time.time())
                        records.put(over, expected=record.version)

    async def _enter(self, stack: AsyncExitStack, session: WorkspaceSession) -> None:
        """Open a session, and wait for another one that has the directory."""
        deadline = time.monotonic() + self._settings.timeout
        while True:
            try:
                await stack.enter_async_context(session)
                return
            except RegistryError as exc:
                if not isinstance(exc.__cause__, BlockingIOError):
                    raise ReferencesError([failure_of(_WORKSPACE, exc)]) from exc
            if time.monotonic() > deadline:
                detail = "another request of this conversation has its files for too long"
                raise ReferencesError([Failure(_POINTER, 424, "conversation-busy", detail)])
            await asyncio.sleep(_LOCK_SECONDS)

    async def _claim(self, call: Call, conversation: Conversation) -> None:
        """Make the record of a new conversation.

        Raises:
            ReferencesError: Somebody else has it, or the principal has too many.
        """
        records, owner = self._records(), call.principal.id
        record = await asyncio.to_thread(records.get, self._kind, conversation.id)
        if record is None:
            most = self._settings.conversations
            present = await asyncio.to_thread(
                partial(records.list, self._kind, owner=owner, limit=most)
            )
            if len(present) >= most:
                detail = f"is new, and you have {most} conversations; old ones end by themselves"
                raise ReferencesError([Failure(_POINTER, 424, "too-many-conversations", detail)])
            with suppress(ConflictError):
                await self._put(call, conversation, (), expected=0)
            record = await asyncio.to_thread(records.get, self._kind, conversation.id)
        if record is not None and record.owner != owner:
            raise ReferencesError([invalid(_POINTER, _FOREIGN)])

    async def _put(
        self,
        call: Call,
        conversation: Conversation,
        files: Sequence[FetchedFile],
        *,
        expected: int | None = None,
    ) -> None:
        data = {"files": [file.to_dict() for file in files], "used_at": time.time()}
        record = Record(self._kind, conversation.id, call.principal.id, data)
        await asyncio.to_thread(partial(self._records().put, record, expected=expected))

    def _name(self, call: Call, thread_id: str) -> str:
        if self._settings.mode == "workspace":
            return thread_id  # which the model's server knows, too
        key = f"{call.principal.id}\0{thread_id}"
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _records(self) -> Records:
        return self._api.records()
