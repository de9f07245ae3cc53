"""What passes between hosts, core and connectors: plain data, no behaviour beyond validation."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Self

from datasources.errors import OptionError
from datasources.redaction import MARK

_TYPE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class DataSourceType(str):
    """The name of a kind of source: a string that any connector may extend.

    Known types are constants of the class; every other lower-case name, as in
    `DataSourceType("snowflake")`, is a type as well.

    Raises:
        OptionError: The name is not `[a-z][a-z0-9_]*`, 64 characters at most.
    """

    __slots__ = ()

    AZURE_BLOB: ClassVar[DataSourceType]
    POSTGRESQL: ClassVar[DataSourceType]
    LOCAL_FILE: ClassVar[DataSourceType]
    CUSTOM: ClassVar[DataSourceType]

    def __new__(cls, name: str) -> DataSourceType:
        if not _TYPE_NAME.fullmatch(str(name)):
            raise OptionError(
                f"{name!r} is not a type name; one is lower-case letters, digits and underscores"
            )
        return super().__new__(cls, name)

    @property
    def value(self) -> str:
        """The name as a plain string."""
        return str(self)


DataSourceType.AZURE_BLOB = DataSourceType("azure_blob")
DataSourceType.POSTGRESQL = DataSourceType("postgresql")
DataSourceType.LOCAL_FILE = DataSourceType("local_file")
DataSourceType.CUSTOM = DataSourceType("custom")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one fetch may bring into a workspace; set by the host, never by a query's author.

    `None` lifts a limit.

    Raises:
        OptionError: A limit is negative.
    """

    max_bytes: int | None = 100_000_000
    """Bytes of the file written; over it the fetch fails and leaves nothing."""
    max_rows: int | None = 10_000
    """Rows of a result; the file holds exactly the first `max_rows`, the receipt says so."""
    timeout: float | None = 300.0
    """Seconds from the start of the fetch to its end, waiting for a connection included."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_rows", "timeout"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise OptionError(f"limit {name!r} must not be negative; None lifts it")


@dataclass
class DataSourceConfig:
    """One configured source.

    Copies keep the options; a pickle, as `repr`, has their names and no values.

    Raises:
        OptionError: The id or the type is not a valid name.
    """

    id: str
    """The host's name for the source: letters, digits, `.`, `_`, `-`, 128 at most."""
    type: DataSourceType
    name: str
    """For people; no rules."""
    config: dict[str, Any]
    """The connector's options, secrets included: never shown in `repr`."""
    created_at: float = field(default_factory=time.time)
    """Unix seconds."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The host's own notes, stored and shown in clear: not a place for secrets."""
    limits: Limits | None = None
    """This source's limits; `None` takes the policy's."""

    def __post_init__(self) -> None:
        self.id = str(self.id)
        if not _SOURCE_ID.fullmatch(self.id):
            raise OptionError(
                f"{self.id!r} is not a source id; one starts with a letter or digit and goes on "
                "with letters, digits, '.', '_' or '-', 128 characters at most"
            )
        if type(self.type) is not DataSourceType:
            self.type = DataSourceType(self.type)

    def __repr__(self) -> str:
        options = ", ".join(map(repr, self.config))
        return (
            f"DataSourceConfig(id={self.id!r}, type={str(self.type)!r}, name={self.name!r}, "
            f"options=[{options}])"
        )

    def __getstate__(self) -> dict[str, Any]:
        # What is pickled leaves the process, and only a connector knows which options are secret.
        return self.__dict__ | {"config": dict.fromkeys(self.config, MARK)}

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = memo[id(self)] = object.__new__(type(self))
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new


@dataclass(slots=True)
class DataItem:
    """One thing a source can give: a file, a blob, a table, a folder."""

    name: str
    """The last part of the path, for people."""
    path: str
    """The identifier that `fetch_data` and `get_metadata` take."""
    size: int | None = None
    """Bytes; `None` where unknown. A row count is not a size."""
    modified_at: float | None = None
    """Unix seconds; `None` where unknown."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What else the listing told, such as `kind`, `etag`, `content_type`."""
    version: str | None = None
    """The source's mark of the content as it is now, as `FetchReceipt.version` would be; `None`
    where the listing tells none."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One item to bring into a workspace."""

    source_id: str
    identifier: str
    format: str | None = None
    """The file format wanted, such as `csv` or `parquet`; `None` is the connector's own."""
    version: str | None = None
    """The version that a listing told. With it, the receipt is kept in the workspace, and a file
    of that version which an earlier one tells of is not fetched again; `None` fetches always."""


@dataclass(frozen=True, slots=True)
class FetchReceipt:
    """What landed in the workspace."""

    source_id: str
    identifier: str
    path: str
    """Absolute path of the file."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file's bytes, in hexadecimal."""
    rows: int | None
    """Data rows, header not counted; `None` where the connector does not count them."""
    truncated: bool
    """True if the source had more rows than the limit let through."""
    version: str | None
    """The source's mark of this content, such as an ETag; `None` where it has none."""
    fetched_at: datetime
    """When the file was complete, UTC."""
    duration: float
    """Seconds from request to complete file."""
    unchanged: bool = False
    """True if the file was in the workspace already, of the version that the source has now, and
    nothing was brought."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return asdict(self) | {"fetched_at": self.fetched_at.isoformat()}


@dataclass(frozen=True, slots=True)
class FetchResult:
    """How one request of `fetch_many` ended: exactly one of receipt and error is set."""

    request: FetchRequest
    receipt: FetchReceipt | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How a text file was read for a preview."""

    encoding: str
    """Python's name of the encoding, such as `utf-8` or `cp1252`."""
    delimiter: str | None = None
    """The character between columns; `None` for text that is not delimited."""
    compression: str | None = None
    """`gzip`, `bzip2` or `xz` for a compressed file."""
    guessed: tuple[str, ...] = ()
    """The properties that are guessed and may be wrong: of `encoding`, `delimiter`, `header`."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows of an item."""

    columns: tuple[str, ...]
    """Column names in order, duplicates kept."""
    rows: Sequence[tuple[Any, ...]]
    truncated: bool
    """True if the item has more rows."""
    format: TextFormat | None = field(default=None, compare=False, repr=False)
    """How the text was read, for a file of text."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Sentences about what was guessed or left out, to be shown with the rows."""


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Figures of one numeric column."""

    count: int
    """Values that are not null."""
    nulls: int
    min: Any
    max: Any
    mean: float | None
    """`None` for a column without values."""
    sampled: bool = False
    """True if the figures come from a sample, not from every row."""


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """Whether a source answers, and if not, why."""

    ok: bool
    duration: float
    """Seconds it took to know."""
    error: Exception | None = None

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class Rotation:
    """What re-encrypting all sources under the first key has done."""

    changed: int
    """Sources that are under it now and were not before."""
    failed: Mapping[str, str]
    """Reasons by source id; these are as they were."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call a host made, as observers (audit, metrics, tracing) see it."""

    name: str
    """The registry method, such as `fetch`."""
    source_id: str
    request_id: str
    user: str | None
    started_at: datetime
    """UTC."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Harmless particulars; an identifier may be a whole query."""


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Sizes and times of a connection pool; every time in seconds.

    Raises:
        OptionError: A value is out of its range.
    """

    max_size: int = 10
    """Connections, or leases on one shareable connector, in use at once."""
    min_size: int = 0
    """Connections kept open while the pool lives."""
    max_idle_time: float = 300.0
    """An idle connection over `min_size` is closed after this long."""
    acquire_timeout: float = 30.0
    """How long `acquire` waits before `PoolTimeoutError`."""
    max_lifetime: float = 3600.0
    """A connection older than this is replaced, give or take 10 % against rushes."""
    connect_timeout: float = 15.0
    """One attempt to connect."""
    connect_attempts: int = 3
    """Attempts after `ConnectError`, with exponential back-off; other errors are final."""

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise OptionError(f"'max_size' must be at least 1, not {self.max_size}")
        if not 0 <= self.min_size <= self.max_size:
            raise OptionError(f"'min_size' must be between 0 and max_size, not {self.min_size}")
        if self.connect_attempts < 1:
            raise OptionError(f"'connect_attempts' must be at least 1, not {self.connect_attempts}")
        for name in ("max_idle_time", "acquire_timeout", "max_lifetime", "connect_timeout"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name!r} must be more than 0 seconds")
