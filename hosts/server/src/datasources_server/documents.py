"""Models of what the API answers, for its OpenAPI document; answers are not made from these."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

Ability = Annotated[str, Field(examples=["preview"])]
State = Literal["ready", "paused", "unusable"]
Time = Annotated[str, Field(examples=["2026-05-01T09:30:00.000000+00:00"])]


class Document(BaseModel):
    """An answer; a later version may have more fields."""

    model_config = ConfigDict(extra="allow")


class ProblemField(Document):
    """A field of the request that is wrong."""

    pointer: Annotated[str, Field(examples=["#/options/host"])]
    detail: Annotated[str, Field(examples=["Field required"])]


class ProblemDocument(Document):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Field(examples=["urn:datasources:error:source-not-found"])]
    title: Annotated[str, Field(examples=["Source not found"])]
    status: Annotated[int, Field(examples=[404])]
    detail: Annotated[str, Field(examples=["there is no source 'shop'"])]
    instance: Annotated[str, Field(examples=["urn:uuid:4f4cbd9b-5ba0-4a3c-9f1c-3a1a0c3c9a0e"])]
    errors: list[ProblemField] = []


class CallerDocument(Document):
    """The principal of the request."""

    id: Annotated[str, Field(examples=["ann"])]
    admin: bool
    tokens: bool
    """True if the caller may manage tokens."""


class TypeEntry(Document):
    """A type of sources."""

    type: Annotated[str, Field(examples=["postgresql"])]
    distribution: str | None
    version: str | None
    abilities: list[Ability]
    state: Literal["ready", "unusable"]
    reason: str | None


class TypeList(Document):
    """The types of sources."""

    items: list[TypeEntry]


class SampleIdentifier(Document):
    """An example of an identifier."""

    identifier: Annotated[str, Field(examples=["public.orders"])]
    meaning: str


class TypeDocument(Document):
    """A type of sources with its options, as JSON Schema and as a form."""

    type: Annotated[str, Field(examples=["postgresql"])]
    abilities: list[Ability]
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")]
    form: dict[str, Any] | None
    template: str
    sample_identifiers: list[SampleIdentifier]


class SecretState(Document):
    """Tells if a secret is set, and by its fingerprint if it has changed."""

    set: bool
    fingerprint: str | None


class SourceDocument(Document):
    """A source; the fields from `options` on are for administrators."""

    id: Annotated[str, Field(examples=["shop"])]
    type: Annotated[str, Field(examples=["postgresql"])]
    name: str
    abilities: list[Ability]
    state: State
    reason: str | None
    version: int | None
    rights: list[Literal["query", "read", "write"]]
    options: dict[str, Any] | None = None
    secrets: dict[str, SecretState] | None = None
    metadata: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    queries: dict[str, Any] | None = None
    created_at: Time | None = None


class ValidDocument(Document):
    """The answer to a request with `dry_run`."""

    valid: Literal[True]


class SourcePage(Document):
    """A page of sources."""

    items: list[SourceDocument]
    next_cursor: str | None


class ErrorDocument(Document):
    """An error of a test."""

    slug: Annotated[str, Field(examples=["authentication-failed"])]
    message: str
    http_status: int
    retryable: bool


class TestDocument(Document):
    """The result of a test of a connection."""

    ok: bool
    seconds: float
    error: ErrorDocument | None


class ChoicesDocument(Document):
    """Values that options could have, by option."""

    choices: dict[str, list[Any]]


class ItemDocument(Document):
    """An item of a source."""

    name: Annotated[str, Field(examples=["orders"])]
    path: Annotated[str, Field(examples=["public.orders"])]
    size: int | None
    modified_at: Time | None
    metadata: dict[str, Any]
    version: str | None


class ItemPage(Document):
    """A page of items."""

    items: list[ItemDocument]
    next_cursor: str | None


class MetadataDocument(Document):
    """The description of an item, as its connector gives it."""

    metadata: dict[str, Any]


class TextFormatDocument(Document):
    """The properties with which a file of text was read, and those that are guessed."""

    encoding: Annotated[str, Field(examples=["utf-8"])]
    delimiter: str | None
    compression: str | None
    guessed: list[str]


class PreviewDocument(Document):
    """The first rows of an item."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool
    format: TextFormatDocument | None
    notes: list[str]


class ColumnDocument(Document):
    """Figures of one column."""

    count: int
    nulls: int
    min: Any
    max: Any
    mean: float | None
    sampled: bool


class StatisticsDocument(Document):
    """Figures of an item's numeric columns, by column."""

    columns: dict[str, ColumnDocument]


class ReceiptDocument(Document):
    """The receipt of content."""

    size: int
    sha256: str
    rows: int | None
    truncated: bool
    version: str | None
    fetched_at: Time
    duration: float


class OutcomeDocument(Document):
    """The outcome of a stream: a receipt, or the problem that has ended it."""

    receipt: ReceiptDocument | None = None
    problem: ProblemDocument | None = None


class UploadDocument(Document):
    """The receipt of an upload."""

    item: ItemDocument
    size: int
    sha256: str


class LinkDocument(Document):
    """A link to content, usable once. A table has `max_rows` rows at most; null is no limit."""

    url: str
    expires: Time
    max_rows: int | None


class WorkspaceDocument(Document):
    """A workspace."""

    id: str
    sources: list[str]
    quota: int
    """Bytes."""
    created_at: Time
    expires: Time


class FileReceiptDocument(ReceiptDocument):
    """The receipt of a file in a workspace."""

    source: str
    path: Annotated[str, Field(examples=["public.orders.csv"])]


class ReceiptsDocument(Document):
    """The receipts of a fetch into a workspace, in the order of its items."""

    receipts: list[FileReceiptDocument]


class ProgressDocument(Document):
    """The progress of a job."""

    item: int
    """The number of the item that is being fetched, from 1."""
    items: int
    bytes: int
    total: int | None


class JobItemDocument(Document):
    """An item that a job fetches; a long one is cut after 500 characters."""

    source: Annotated[str, Field(examples=["shop"])]
    item: Annotated[str, Field(examples=["public.orders"])]
    format: str | None


class JobDocument(Document):
    """A job: `progress` while it runs, then receipts or a problem."""

    id: str
    owner: Annotated[str, Field(examples=["ann"])]
    workspace: str
    items: list[JobItemDocument]
    """The first ten."""
    item_count: int
    state: Literal["running", "finished", "failed", "cancelled", "lost"]
    cancelling: bool
    created_at: Time
    ended_at: Time | None
    progress: ProgressDocument | None
    receipts: list[FileReceiptDocument]
    problem: ProblemDocument | None


class JobPage(Document):
    """A page of jobs."""

    items: list[JobDocument]
    next_cursor: str | None


class AuditEntry(Document):
    """An operation on a source or a token, or a request that was refused."""

    time: Time
    operation: Annotated[str, Field(examples=["fetch"])]
    source: str | None = None
    user: str | None = None
    request_id: str | None = None
    outcome: str | None = None


class AuditPage(Document):
    """A page of the audit trail."""

    items: list[AuditEntry]
    next_cursor: str | None


class GrantDocument(Document):
    """Rights for one source; no items are all."""

    source: str
    rights: list[Literal["query", "read", "write"]]
    items: list[str] | None


class TokenDocument(Document):
    """A token, without itself."""

    name: Annotated[str, Field(examples=["ann"])]
    admin: bool
    grants: list[GrantDocument]
    expires_at: Time | None
    last_used_at: Time | None
    """To the minute; null if it was not used yet."""


class TokenList(Document):
    """The tokens by name."""

    items: list[TokenDocument]


class NewTokenDocument(Document):
    """A token that was made; it is not shown again."""

    name: str
    token: str


class StatusDocument(Document):
    """The state of the process."""

    status: Literal["ok"]


def describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application, with problems under their own media type.

    FastAPI describes a model under the media type of the route's other answers.
    """
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for operations in document["paths"].values():
            for operation in operations.values():
                for response in operation["responses"].values():
                    _move_problem(response.get("content", {}))
        app.openapi_schema = document
    return app.openapi_schema


def methods_of(app: FastAPI, path: str) -> list[str]:
    """Return the methods that an application describes for an address, by name."""
    return sorted(
        method.upper()
        for template, operations in describe_api(app)["paths"].items()
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path)
        for method in operations
    )


def _move_problem(content: dict[str, Any]) -> None:
    if "application/problem+json" in content and "application/json" in content:
        content["application/problem+json"] = content.pop("application/json")
