"""The objects of the API, as frozen dataclasses.

Times are `datetime` in UTC, durations seconds, sizes bytes; None is unknown.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any, Generic, TypeVar

from datasources_client.errors import DataSourceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing."""

    items: tuple[T, ...]
    """There may be fewer than the limit, or none, on any page."""
    cursor: str | None
    """Marks the place that the next page begins at; None on the last page. It is valid for about an
    hour, for the same listing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of the token."""

    id: str
    admin: bool
    tokens: bool
    """True if the caller may manage tokens."""


@dataclass(frozen=True, slots=True)
class SourceType:
    """A type that sources of the server can have."""

    type: str
    distribution: str | None
    """The Python distribution that offers it."""
    version: str | None
    """Of the distribution."""
    abilities: tuple[str, ...]
    """The optional operations, such as `preview`."""
    state: str
    """`ready` or `unusable`."""
    reason: str | None
    """Why it cannot be used; for administrators only."""


@dataclass(frozen=True, slots=True)
class SampleIdentifier:
    """An example of an item's identifier."""

    identifier: str
    meaning: str


@dataclass(frozen=True, slots=True)
class TypeDescription:
    """The options of a type of sources."""

    type: str
    abilities: tuple[str, ...]
    schema: Mapping[str, Any] | None
    """The JSON Schema of the options; secrets are `writeOnly`."""
    form: Mapping[str, Any] | None
    """The options in the order and the groups in which people are asked for them."""
    template: str
    """An annotated example for a configuration file, in TOML."""
    sample_identifiers: tuple[SampleIdentifier, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each fetch from a source; None is no limit."""

    max_bytes: int | None = 100_000_000
    max_rows: int | None = 10_000
    timeout: float | None = 300.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class SecretState:
    """The state of a secret option, which the server never shows."""

    set: bool
    fingerprint: str | None
    """Changes when the secret does; None if the secret is not set."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source. The fields from `options` on are None for all but administrators."""

    id: str
    type: str
    name: str
    abilities: tuple[str, ...]
    state: str
    """`ready`, `paused` or `unusable`."""
    reason: str | None
    """Why the source is paused, or, for administrators only, unusable."""
    version: int | None
    """Rises with each change; a change names the version that it was made for."""
    rights: tuple[str, ...] = ()
    """Those that the caller has: of `read`, `query` and `write`."""
    options: Mapping[str, Any] | None = None
    """With secrets masked."""
    secrets: Mapping[str, SecretState] | None = None
    """By the names of options."""
    metadata: Mapping[str, Any] | None = None
    limits: Limits | None = None
    """None also for those of the server's policy."""
    queries: Mapping[str, Any] | None = None
    """The stored queries by name."""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """The result of a test of a connection; true if the source answers."""

    ok: bool
    seconds: float
    """Seconds that the test took."""
    error: DataSourceError | None
    """Why the source does not answer; None if it does."""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a source, such as a file, a blob or a table; or a folder of items."""

    name: str
    """The last part of the path, for people."""
    path: str
    """The identifier for all other calls; of a folder, it ends in `/` and may be listed."""
    size: int | None
    modified_at: datetime | None
    metadata: Mapping[str, Any]
    """More facts from the listing; a folder has `{"kind": "folder"}`."""
    version: str | None
    """The version of the content, as a receipt of a fetch would have it."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """The encoding, delimiter and header that a text file was read with for a preview."""

    encoding: str
    delimiter: str | None = None
    compression: str | None = None
    guessed: tuple[str, ...] = ()
    """The properties that are guessed: of `encoding`, `delimiter`, `header`."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows of an item."""

    columns: tuple[str, ...]
    """Names in order; duplicates stay."""
    rows: tuple[tuple[Any, ...], ...]
    """One value for each column, as JSON has it: dates and decimals are texts."""
    truncated: bool
    """True if the item has more rows."""
    format: TextFormat | None = None
    """None for an item that is not a file of text."""
    notes: tuple[str, ...] = ()
    """Sentences about what was guessed or left out."""


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Statistics of one numeric column."""

    count: int
    """Number of values that are not null."""
    nulls: int
    min: Any
    max: Any
    mean: float | None
    sampled: bool = False
    """True if the statistics come from a sample instead of all rows."""


@dataclass(frozen=True, slots=True)
class ContentReceipt:
    """The server's receipt of the content of an item."""

    size: int
    sha256: str
    """In hexadecimal."""
    rows: int | None
    """Data rows, without the header."""
    truncated: bool
    """True if the item has more rows than the server's limits admit."""
    version: str | None
    """The version of the content, such as an ETag of the outside system."""
    fetched_at: datetime
    duration: float
    """Seconds that the server took to fetch the item."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The facts of a file that was downloaded."""

    source: str
    item: str
    path: str
    """The absolute path of the file."""
    size: int
    sha256: str
    """The SHA-256 of the file's bytes, in hexadecimal."""
    content: ContentReceipt | None
    """The server's receipt, of the same size and SHA-256; None for a stream."""

    @property
    def rows(self) -> int | None:
        """Data rows, without the header; None where unknown."""
        return None if self.content is None else self.content.rows

    @property
    def truncated(self) -> bool:
        """True if the item has more rows than the server's limits admit; a stream is never cut."""
        return self.content is not None and self.content.truncated


@dataclass(frozen=True, slots=True)
class UploadReceipt:
    """The facts of a file that was stored in a source."""

    item: Item
    size: int
    sha256: str
    """The SHA-256 of the bytes that the server has received, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to content, which needs no token and is usable once."""

    url: str
    expires: datetime
    max_rows: int | None
    """The rows that the content of a table has at most; None is no limit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The splits of an item, which may be read until the block of `Client.plan` ends."""

    splits: tuple[Mapping[str, Any], ...]
    """JSON for readers, also in other processes; together they have each row once."""
    schema: str = field(repr=False)
    """The Arrow schema of the rows of every split, as an IPC message in base64."""
    consistent: bool
    """True if all splits are read from one state of the source."""
    concurrency: int | None
    """Splits that may be read at once, over all readers; None if the source sets no bound."""
    expires: datetime
    """The latest time at which the plan ends."""
    token: str = field(repr=False)
    """Reads these splits until the plan ends, and nothing else: for readers elsewhere."""

    def arrow_schema(self) -> Any:
        """Return the `pyarrow.Schema` of the rows, with pyarrow, which has to be installed."""
        ipc = importlib.import_module("pyarrow.ipc")
        return ipc.read_schema(BytesIO(base64.b64decode(self.schema)))


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory of the server for files of some sources."""

    id: str
    sources: tuple[str, ...]
    quota: int
    created_at: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """An item to fetch into a workspace."""

    source: str
    item: str
    format: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Values of the parameters of a stored query."""


@dataclass(frozen=True, slots=True)
class FileReceipt:
    """The facts of a file in a workspace."""

    source: str
    path: str
    """Relative to the workspace."""
    size: int
    sha256: str
    rows: int | None
    truncated: bool
    version: str | None


@dataclass(frozen=True, slots=True)
class JobItem:
    """An item that a job fetches."""

    source: str
    item: str
    """Cut after 500 characters."""
    format: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A fetch into a workspace."""

    id: str
    workspace: str
    state: str
    """`running`, `finished`, `failed`, `cancelled` or `lost`."""
    created_at: datetime
    ended_at: datetime | None
    progress: Mapping[str, Any] | None
    """`item`, `items`, `bytes` and `total` while it runs."""
    receipts: tuple[FileReceipt, ...]
    problem: Mapping[str, Any] | None
    """The problem document of a job that has not finished."""
    owner: str = ""
    items: tuple[JobItem, ...] = ()
    """The first ten."""
    item_count: int = 0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event of a job."""

    name: str
    """`progress`, `receipt`, or `end`, which is the last one."""
    data: Mapping[str, Any]
    number: int | None
    """The number to go on after; None for `end`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights for one source."""

    source: str
    rights: tuple[str, ...]
    """Of `read`, `query` and `write`."""
    items: tuple[str, ...] | None = None
    """Patterns of items that the grant holds for; None for all."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit trail: an operation, or a request that was refused."""

    time: datetime
    operation: str
    """Such as `fetch`, `registered`, `token_made` or `refused`."""
    source: str | None = None
    user: str | None = None
    request_id: str | None = None
    outcome: str | None = None
    """`ok`, `cancelled`, `stopped`, the error's class, or the reason of a refusal."""
    identifier: str | None = None
    error: str | None = None
    duration: float | None = None
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the server, without the token itself."""

    name: str
    """The id of its principal, and the user in the audit trail."""
    admin: bool
    grants: tuple[Grant, ...]
    created_at: datetime | None
    expires_at: datetime | None
    """None if it does not expire."""
    last_used_at: datetime | None = None
    """To the minute; None if it was not used yet."""
