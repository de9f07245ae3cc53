"""Plain data that hosts, core and connectors pass to each other; it validates itself."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

from datasources.errors import OptionError
from datasources.json_models import JsonModel
from datasources.json_values import to_json_value
from datasources.names import TYPE_NAME, check_id
from datasources.redaction import MARK, redact
from datasources.stored_queries import StoredQuery, check_queries

T = TypeVar("T")


class DataSourceType(str):
    """The name of a connector type, as a string.

    The types of this project are constants of the class; every other lower-case name, as in
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
        if not TYPE_NAME.fullmatch(str(name)):
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
class Limits(JsonModel):
    """Limits of one fetch; the host sets them, never the author of a query.

    `None` is no limit.

    Raises:
        OptionError: A limit is negative, or of another type.
    """

    max_bytes: int | None = 100_000_000
    """Bytes of the file; a fetch that would write more fails and leaves no file."""
    max_rows: int | None = 10_000
    """Rows of a result; of a longer one the file has the first `max_rows`, and the receipt has
    `truncated=True`."""
    timeout: float | None = 300.0
    """Seconds that a fetch may take, including the wait for a connection."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_rows"):
            value = getattr(self, name)
            if not (value is None or is_whole(value, 0)):
                raise OptionError(
                    f"{name!r} must be a whole number of at least 0, or none for no limit"
                )
        if not (self.timeout is None or (is_number(self.timeout) and self.timeout >= 0)):
            raise OptionError(
                "'timeout' must be a number of seconds of at least 0, or none for no limit"
            )


@dataclass
class DataSourceConfig(JsonModel):
    """The configuration of one source.

    `repr` and pickles show the names of its options and no values; copies keep the values.

    Raises:
        OptionError: A field is not of its type, or the id or the type is not a valid name.
    """

    id: str
    """Letters, digits, `.`, `_`, `-`, 128 at most; the first is a letter or a digit."""
    type: DataSourceType
    """Given as a plain string, it becomes a `DataSourceType`."""
    name: str
    """A title for people: any text."""
    config: dict[str, Any]
    """The connector's options, secrets included, as values that JSON can hold."""
    created_at: float = field(default_factory=time.time)
    """Unix seconds."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Notes of the host, as values that JSON can hold; stored and shown in clear, so no place for
    secrets."""
    limits: Limits | None = None
    """Limits of fetches from this source; `None` for those of the policy."""
    version: int | None = field(default=None, compare=False)
    """The version of the stored source, which rises with each change; `None` if the configuration
    does not come from a registry. Registering a source ignores it."""
    paused: str | None = field(default=None, compare=False)
    """The reason why the stored source is paused; `None` if it is not. Registering a source ignores
    it."""
    queries: Mapping[str, StoredQuery] = field(default_factory=dict)
    """Stored queries by name, of lower-case letters, digits, `_` and `-`. The item of one is
    `query:NAME`. They are stored and shown in clear, so no place for secrets."""

    _unix_times: ClassVar[frozenset[str]] = frozenset({"created_at"})

    if TYPE_CHECKING:  # the generated one, but for the type of `type`

        def __init__(
            self,
            id: str,
            type: DataSourceType | str,
            name: str,
            config: dict[str, Any],
            created_at: float = ...,
            metadata: dict[str, Any] = ...,
            limits: Limits | None = None,
            version: int | None = None,
            paused: str | None = None,
            queries: Mapping[str, StoredQuery] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if type(self.type) is not DataSourceType:
            self.type = DataSourceType(self.type)
        check_config(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold, with secrets in the options masked.

        Only the connector knows which options are secret: here they are told by their names and
        values, so pass what `DataSourceRegistry.get_config` returns, which is masked already.
        """
        return super().to_dict() | {"config": to_json_value(redact(self.config))}

    def __repr__(self) -> str:
        options = ", ".join(map(repr, self.config))
        return (
            f"DataSourceConfig(id={self.id!r}, type={str(self.type)!r}, name={self.name!r}, "
            f"options=[{options}])"
        )

    def __getstate__(self) -> dict[str, Any]:
        # A pickle leaves the process, and only the connector knows which options are secret.
        return self.__dict__ | {"config": dict.fromkeys(self.config, MARK)}

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = memo[id(self)] = object.__new__(type(self))
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new


def check_config(config: DataSourceConfig) -> None:
    """Check the types of a configuration's fields, which a host can set to anything.

    Called when a configuration is made, and again when it is registered.

    Raises:
        OptionError: Names the field and the type that it should have.
    """
    if not isinstance(config.id, str):
        raise OptionError(f"the id of a source must be text, not {_type_name(config.id)}")
    check_id(config.id, "source")
    where = f"source {config.id!r}"
    if not isinstance(config.type, DataSourceType):
        raise OptionError(f"{where}: 'type' must be a DataSourceType")
    if not isinstance(config.name, str):
        raise OptionError(f"{where}: 'name' must be text, not {_type_name(config.name)}")
    if any("\ud800" <= character <= "\udfff" for character in config.name):
        raise OptionError(f"{where}: 'name' has a character that is no text, half of a pair")
    for name in ("config", "metadata"):
        value = getattr(config, name)
        if not (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
            raise OptionError(f"{where}: {name!r} must be a dict with texts as keys")
    if not (is_number(config.created_at) and math.isfinite(config.created_at)):
        raise OptionError(f"{where}: 'created_at' must be a number, of Unix seconds")
    if not (config.limits is None or isinstance(config.limits, Limits)):
        raise OptionError(f"{where}: 'limits' must be an instance of Limits, or None")
    check_queries(config.queries, where)


def _type_name(value: object) -> str:
    return type(value).__name__


@dataclass(slots=True)
class DataItem(JsonModel):
    """One item of a source, such as a file, a blob or a table; or a folder of items."""

    _unix_times: ClassVar[frozenset[str]] = frozenset({"modified_at"})

    name: str
    """The last part of the path, for people."""
    path: str
    """The identifier that `fetch_data` and `get_metadata` take; of a folder, it ends in `/`."""
    size: int | None = None
    """Bytes; `None` where unknown. A row count is not a size."""
    modified_at: float | None = None
    """Unix seconds; `None` where unknown."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """More facts from the listing; a folder has `{"kind": "folder"}`."""
    version: str | None = None
    """The version of the content now, as a fetch's receipt would have it; `None` where the listing
    gives none."""


class Page(NamedTuple):
    """One page of a listing."""

    items: list[DataItem]
    """The items; there may be fewer than the limit, or none, on any page."""
    cursor: str | None
    """Marks the place that the next page begins at; None on the last page."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return {"items": [item.to_dict() for item in self.items], "cursor": self.cursor}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Page:
        """Return the page that `to_dict` has described; raises OptionError as other models."""
        items, cursor = values.get("items"), values.get("cursor")
        if not isinstance(items, list) or not (cursor is None or isinstance(cursor, str)):
            raise OptionError("a Page is read from 'items', a list, and 'cursor', a text or null")
        return cls([DataItem.from_dict(item) for item in items], cursor)


@dataclass(frozen=True, slots=True)
class FetchRequest(JsonModel):
    """A request for one item."""

    source_id: str
    identifier: str
    format: str | None = None
    """The format of the file, such as `csv` or `parquet`; `None` for the connector's own."""
    version: str | None = None
    """The item's version, as a listing gave it. The workspace then records the receipt, and an
    item of that version whose file is there already is not fetched again. `None` always
    fetches."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The values of a stored query's parameters, by name; Python values, or those of JSON."""
    splits: int | None = None
    """The most splits to read the item in, for a directory of Parquet files; `None` for one file."""


@dataclass(frozen=True, slots=True)
class FetchReceipt(JsonModel):
    """The facts of a file that a fetch wrote into a workspace.

    After a fetch with `splits` they are those of a directory: `size` is the sum of its Parquet files,
    and `sha256` that of its manifest.
    """

    source_id: str
    identifier: str
    path: str
    """Absolute path of the file."""
    size: int
    """Bytes of the file."""
    sha256: str
    """The SHA-256 of the file's bytes, in hexadecimal."""
    rows: int | None
    """Data rows, without the header; `None` where the connector does not count them."""
    truncated: bool
    """True if the source had more rows than `Limits.max_rows`."""
    version: str | None
    """The version of the content, such as an ETag; `None` where the source has none."""
    fetched_at: datetime
    """When the file was complete, in UTC."""
    duration: float
    """Seconds from the request to the complete file."""
    unchanged: bool = False
    """True if nothing was fetched, as the workspace had the file in the current version."""


@dataclass(frozen=True, slots=True)
class FetchResult(JsonModel):
    """The result of one request of `fetch_many`: either the receipt or the error is set."""

    request: FetchRequest
    receipt: FetchReceipt | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class TextFormat(JsonModel):
    """The encoding, delimiter and header that a text file was read with for a preview."""

    encoding: str
    """Python's name of the encoding, such as `utf-8` or `cp1252`."""
    delimiter: str | None = None
    """The character between columns; `None` for text that is not delimited."""
    compression: str | None = None
    """`gzip`, `bzip2` or `xz` for a compressed file."""
    guessed: tuple[str, ...] = ()
    """The properties that are guessed and may be wrong: of `encoding`, `delimiter`, `header`."""


@dataclass(frozen=True, slots=True)
class Preview(JsonModel):
    """The first rows of an item."""

    columns: tuple[str, ...]
    """Column names in order; duplicates stay."""
    rows: Sequence[tuple[Any, ...]]
    """One value for each column, as `SupportsPreview.preview` describes."""
    truncated: bool
    """True if the item has more rows."""
    format: TextFormat | None = field(default=None, compare=False, repr=False)
    """The format that a file of text was read with; None for another item."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Sentences about what was guessed or left out, to be shown with the rows."""


@dataclass(frozen=True, slots=True)
class ColumnStatistics(JsonModel):
    """Statistics of one numeric column."""

    count: int
    """Number of values that are not null."""
    nulls: int
    """Number of values that are null."""
    min: Any
    """The least value, as the connector's driver gives it; `None` for a column without values."""
    max: Any
    """The greatest value, likewise."""
    mean: float | None
    """`None` for a column without values, and where the source does not tell it."""
    sampled: bool = False
    """True if the statistics come from a sample instead of all rows."""


@dataclass(frozen=True, slots=True)
class ConnectionCheck(JsonModel):
    """The result of testing a connection; true if the source answers."""

    ok: bool
    """True if the source answers."""
    duration: float
    """Seconds that the test took."""
    error: Exception | None = None
    """Why it does not answer; `None` if it does."""
    warnings: tuple[str, ...] = ()
    """Sentences about rights of the account that a reader does not need, if the connector tells."""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class Rotation(JsonModel):
    """The result of encrypting all sources again, with the first key."""

    changed: int
    """Number of sources that another key had encrypted before."""
    failed: Mapping[str, str]
    """The reasons of those that failed and are unchanged, by source id."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the host, as observers such as audit logs, metrics and traces see it."""

    name: str
    """The registry method, such as `fetch`."""
    source_id: str
    request_id: str
    """As `datasources.caller` named it, or else a random one."""
    user: str | None
    """As `datasources.caller` named it."""
    started_at: datetime
    """In UTC."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the call, such as the identifier, which may be a whole query; no secrets."""


@dataclass(slots=True)
class Outcome:
    """The figures of an operation's result; `None` where unknown."""

    size: int | None = None
    """Bytes of the file fetched or uploaded."""
    rows: int | None = None
    """Rows fetched or shown."""
    items: int | None = None
    """Items listed."""
    receipt: FetchReceipt | None = None
    """The receipt of a fetch."""

    def record(self, result: T) -> T:
        """Take the figures from what a registry method returns, and return that."""
        match result:
            case list():
                self.items = len(result)
            case Page():
                self.items = len(result.items)
            case FetchReceipt():
                self.receipt, self.size, self.rows = result, result.size, result.rows
            case DataItem():
                self.size = result.size
            case Preview():
                self.rows = len(result.rows)
        return result

    of = record  # the name in 0.1.0


@dataclass(frozen=True, slots=True)
class PoolConfig(JsonModel):
    """Sizes and times of a connection pool; all times are in seconds.

    Raises:
        OptionError: A value is out of its range.
    """

    max_size: int = 10
    """Connections in use at once; of a shareable connector, the calls that share it at once."""
    min_size: int = 0
    """Connections that stay open: from `initialize` on, or in the pool of a shareable connector."""
    max_idle_time: float = 300.0
    """Connections over `min_size` are closed when they have been idle for so long."""
    acquire_timeout: float = 30.0
    """Time that `acquire` waits before it raises `PoolTimeoutError`."""
    max_lifetime: float = 3600.0
    """Age at which a connection is replaced; it varies by 10 %, so that not all are at once."""
    connect_timeout: float = 15.0
    """Time that one attempt to connect may take."""
    connect_attempts: int = 3
    """Attempts to connect, with pauses between them that double; errors other than `ConnectError`
    are not tried again."""

    def __post_init__(self) -> None:
        for name in ("max_size", "connect_attempts"):
            if not is_whole(getattr(self, name), 1):
                raise OptionError(f"{name!r} must be a whole number of at least 1")
        if not (is_whole(self.min_size, 0) and self.min_size <= self.max_size):
            raise OptionError("'min_size' must be a whole number between 0 and 'max_size'")
        for name in ("max_idle_time", "acquire_timeout", "max_lifetime", "connect_timeout"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                raise OptionError(f"{name!r} must be a number of seconds of more than 0")


def is_whole(value: object, least: int) -> bool:
    """Return True if a value is an integer of at least `least`, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Return True if a value is an integer or a float, and neither a bool nor NaN.

    Every comparison with NaN is false, so that a limit of NaN would never be reached.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an integer that no float can hold
        return False


def check_keys(table: Iterable[object], accepted: Collection[str], where: str) -> None:
    """Refuse a table with keys that are not among those accepted.

    Raises:
        OptionError: Names `where`, the unknown keys and the accepted ones.
    """
    if unknown := [key for key in table if key not in accepted]:
        raise OptionError(
            f"{where}: unknown {', '.join(map(repr, unknown))}; accepted: {', '.join(accepted)}"
        )


def fill(cls: type[T], values: object, where: str) -> T:
    """Return an instance of a dataclass whose fields a table gives.

    Raises:
        OptionError: `values` is no mapping, or has unknown keys or wrong values; the message names
            `where` and the field, and never a value.
    """
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]  # T is a dataclass
    if not isinstance(values, Mapping):
        raise OptionError(f"{where} must be a table of {', '.join(names)}")
    check_keys(values, names, where)
    try:
        return cls(**values)
    except OptionError as exc:
        raise OptionError(f"{where}: {exc}") from None
