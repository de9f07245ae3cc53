"""The contract of connectors: six methods, and optional abilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from datasources.errors import ConnectError, OptionError
from datasources.models import (
    ColumnStatistics,
    DataItem,
    DataSourceConfig,
    Limits,
    Page,
    PoolConfig,
    Preview,
)
from datasources.redaction import REFERENCE
from datasources.splits import Split, SplitPlan
from datasources.stored_queries import BoundQuery, StoredQuery
from datasources.streams import ItemStream

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions

    # Named here because inside the class `type` is the connector's.
    OptionsClass = type[ConnectorOptions]

API_VERSION = 1
"""The version of this contract; a connector names the one it was written for."""
OLDEST_API_VERSION = 1
"""The oldest version that core still serves; plugins of versions before `API_VERSION` are reported
as in need of an update."""

IdentifierKind = Literal["item", "query"]


_REMEMBERED_SECRETS = 16
"""Results of `secret` that are masked in errors: those in use, and those just replaced."""


class DataSourceConnector(ABC):
    """Base of connectors: an instance is a connection to one source.

    Implement the six abstract methods; everything else has a default. A connector raises
    subclasses of `ConnectorError` for failures of the outside system, with messages that hold no
    secret. All methods run on the event loop that called `connect`, and none may block it: see
    `run_in_thread` and `ThreadWorker`. Unless `shareable`, an instance serves one caller at a time.
    """

    type: ClassVar[str] = ""
    """The type of its sources, and the name of its entry point."""
    api_version: ClassVar[int] = 1
    """The version of the contract that it was written for."""
    options_class: ClassVar[OptionsClass | None] = None
    """Declares and validates the options; `None` takes `config.config` as it is, and core then
    masks by name what could be secret."""
    shareable: ClassVar[bool] = False
    """True if one connected instance serves many callers at once, with a pool inside its driver."""
    template_extras: ClassVar[Mapping[str, str]] = {}
    """More texts for people who set up a source, by name. `role` makes an account at the outside
    system with no more rights than a source needs; `datasources template TYPE --role` prints it."""

    config: DataSourceConfig
    """The configuration of the source, with references resolved: it holds secrets in clear."""
    options: Any
    """The validated instance of `options_class`; annotate it with your own class."""
    pool_config: PoolConfig
    """Sizes and times of the driver's own pool; set after `__init__`, for shareable connectors."""
    check_address: Callable[[str], None]
    """Set after `__init__`: raises PolicyError if the policy of the host does not allow an address.

    A connector calls it with each address right before it connects to it, the address in the form
    that is used: then a name that resolves to another address meanwhile, or a redirect, reaches no
    network that is denied. Without that call only the addresses before `connect` are checked."""

    _stored_options: Mapping[str, Any] | None = None
    """The options as they are stored, with their references; set by the registry."""
    _secret_resolver: Callable[[str], Awaitable[str]] | None = None
    """Resolves the references in a text, under the host's policy; set by the registry."""

    def __init__(self, config: DataSourceConfig) -> None:
        self.config = config
        self._late_secrets: deque[str] = deque(maxlen=_REMEMBERED_SECRETS)
        self.options = self.options_class.load(config.config) if self.options_class else None
        self.pool_config = PoolConfig()
        self.check_address = lambda _: None
        self._connection: Any = None

    def require_connection(self) -> Any:
        """Return `_connection`, which `connect` sets and `disconnect` sets to None.

        Raises:
            ConnectError: The connector is not connected.
        """
        if self._connection is None:
            raise ConnectError(f"source {self.config.id!r} is not connected")
        return self._connection

    async def secret(self, name: str) -> str:
        """Return the value of a text option, with the references in it resolved now.

        `options` holds the values of the moment at which the connector was made. A driver that
        connects again by itself asks here each time, and gets a secret that was rotated or renewed
        meanwhile. Only the secret is taken anew: a validator of the option is not called, and hosts
        that the text may name are not checked. What this returns is masked in later errors. An
        option without a reference costs nothing; others are resolved in a thread.

        Raises:
            OptionError: The option is not given, or not a text.
            SecretNotFoundError: A reference leads nowhere now.
            PolicyError: A reference is not allowed.
        """
        value = self._given_value(name)
        if not isinstance(value, str):
            state = "is not given" if value is None else "is not a text"
            raise OptionError(f"option {name!r} of source {self.config.id!r} {state}")
        if self._secret_resolver is not None and REFERENCE.search(value):
            value = await self._secret_resolver(value)
        if value not in self._late_secrets:
            self._late_secrets.append(value)
        return value

    def _given_value(self, name: str) -> Any:
        given = self._stored_options if self._stored_options is not None else self.config.config
        names = [name]
        if self.options_class is not None:
            fields = dict(self.options_class.fields())
            if name in fields:
                from datasources.option_types import option_names  # pydantic, in memory already

                names = option_names((name, fields[name]))
        value = next((given[n] for n in names if given.get(n) is not None), None)
        if value is None and self.options is not None:  # a default, or made by a validator
            value = getattr(self.options, name, None)
        reveal = getattr(value, "get_secret_value", None)  # pydantic's secrets, not imported here
        return reveal() if reveal else value

    @classmethod
    def identifier_kind(cls, identifier: str) -> IdentifierKind | None:  # noqa: ARG003  (for subclasses)
        """Return `item` if an identifier names an item, `query` if the system would run it.

        It needs no connection, and takes any text. What is called an item must never be run as a
        query, and every path that `list_items` returns is an item. The default is None: the
        connector does not tell them apart, and hosts treat each of its identifiers as a query,
        which only principals with the right `query` may use.
        """
        return None

    @classmethod
    def item_path(cls, identifier: str) -> str | None:  # noqa: ARG003  (for subclasses)
        """Return the path under which a listing has the item that an identifier names.

        It needs no connection. None, the default, means that it cannot be told without one; a
        grant that is narrowed to patterns over paths then refuses the identifier. An identifier
        that is a path of a listing is returned unchanged.
        """
        return None

    @classmethod
    def query_parameters(
        cls,
        query: StoredQuery,  # noqa: ARG003  (for subclasses)
    ) -> Collection[str] | None:
        """Return the names that stand in the text of a stored query for values of parameters.

        It needs no connection. They are those that `SupportsParameters.fetch_query` would bind,
        declared or not; a `:name` that may be something else counts only if the query declares it.
        A query that is stored must declare all of them, and no others. None, the default, means
        that they cannot be told without a connection.
        """
        return None

    @abstractmethod
    async def connect(self) -> bool:
        """Open the connection that the other methods use, and return True.

        On a connected instance it does nothing.

        Raises:
            ConnectError: The system cannot be reached; the pool tries again.
            AuthenticationError: The system refuses the credentials.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the connection; called at any time, also twice or without a connection."""

    @abstractmethod
    async def test_connection(self) -> bool:
        """Return True if the system answers now; a `ConnectorError` is False and not raised.

        A connected instance stays connected.
        """

    @abstractmethod
    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """Return the items of the source: all of them, or those below `path`.

        The order is the source's own. Every item can be fetched by its `path`, and no two have the
        same. Where the source has folders, these are not listed, but for a `path` that ends in
        `/`: then the result is one folder, `"/"` being the topmost, with its items and its folders,
        and no deeper ones. A folder has `metadata["kind"] == "folder"` and a `path` that ends in
        `/`.

        Raises:
            ItemNotFoundError: There is nothing at `path`; an empty list where the source cannot
                tell.
        """

    @abstractmethod
    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Write one item to a file in the directory `workspace`; return the path of the file.

        Write through `csv_file`, or through `Workspace.of(workspace).create(name)`: they keep names
        inside the workspace, apply the host's limits, and leave no file after a failure.

        Raises:
            ItemNotFoundError: The source has no such item.
            LimitExceededError: A limit ended the transfer.
            DataFetchError: The transfer failed.
        """

    @abstractmethod
    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Describe one item without fetching it.

        The values are those that JSON can hold. Hosts and the command line know these keys, all
        of them optional; a connector adds its own:

        - `name`, `path`: texts, as in `DataItem`
        - `kind`: text, such as `table`, `view`, `query`, `blob`
        - `size`: bytes, an integer; never a number of rows
        - `created_at`, `modified_at`, and every key that ends in `_at`: Unix seconds
        - `content_type`: text, such as `text/csv`
        - `etag`: text
        - `comment`: text for people
        - `columns`: list in order, of names, or of dicts with `name`, `type` and more
        - `rows`: exact number of rows, an integer; `estimated_rows`: an estimate of it
        - `metadata`, `tags`: dicts of texts that users of the system attached to the item

        A value of `None` means unknown.

        Raises:
            ItemNotFoundError: The source has no such item.
        """


@runtime_checkable
class SupportsIterItems(Protocol):
    """The ability `iter_items`: listing page by page, in constant memory."""

    def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield the items that `list_items` would return, as they arrive.

        The caller may stop before the end: use `async with` or `try` for what must be closed.

        Raises:
            ItemNotFoundError: As `list_items`.
        """
        ...


@runtime_checkable
class SupportsPages(Protocol):
    """The ability `pages`: listing one page, from where another one ended."""

    async def list_page(
        self, path: str | None = None, *, cursor: str | None = None, limit: int
    ) -> Page:
        """Return the next items that `list_items` would return, in a fixed order.

        All pages together have each item once, if none came or went meanwhile. A page is found
        without listing those before it, in memory for one page.

        Args:
            path: As for `list_items`.
            cursor: That of the page before, from this connector or another one to the same source;
                None for the first page. Core encrypts it before anybody else sees it.
            limit: The most items of the page, 1 at least.

        Raises:
            ItemNotFoundError: As `list_items`.
            OptionError: The cursor is none of this listing.
        """
        ...


@runtime_checkable
class SupportsGlob(Protocol):
    """The ability `glob`: expanding patterns at the source."""

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the items whose path matches, in order of their paths, without folders.

        `*` and `?` match within a segment of the path, `**` across segments, `[a-z]` one
        character; see `glob_regex`. A pattern that matches nothing gives an empty list.
        """
        ...


@runtime_checkable
class SupportsPreview(Protocol):
    """The ability `preview`: showing the first rows without fetching the item."""

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return at most `rows` rows, in the order in which a fetch would write them.

        Values are Python's own where the source has types, such as `int`, `Decimal`, `datetime`,
        and `None` for null; `str` where it has none, as a text file, or where Python has no such
        type. They are not shortened. `Preview.truncated` is True if the item has more rows.

        Raises:
            ItemNotFoundError: The source has no such item.
            DataFetchError: The item has no rows to show, such as an image.
        """
        ...


@runtime_checkable
class SupportsStatistics(Protocol):
    """The ability `statistics`: computing figures of columns at the source."""

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        """Return the statistics of the numeric columns, by the name of the column.

        Raises:
            ItemNotFoundError: The source has no such item.
        """
        ...


@runtime_checkable
class SupportsUpload(Protocol):
    """The ability `upload`: storing files at the source."""

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        """Store a local file as an item; return the item as a listing would, with its `version`.

        The item appears when it is complete: after a failure there is none, or the older one.

        Args:
            local_path: The file; it must not change meanwhile.
            blob_name: The path of the item; by default the name of the file.
            overwrite: False to refuse if there is such an item, decided at the source, so that of
                two uploads at once one fails.

        Raises:
            ItemExistsError: There is such an item, and `overwrite` is False.
            DataFetchError: The file cannot be read, or the upload failed.
            PermissionDeniedError: The credentials do not allow it.
        """
        ...


@runtime_checkable
class SupportsStream(Protocol):
    """The ability `stream`: sending the bytes of an item as they arrive, without a file."""

    async def open_stream(
        self,
        identifier: str,
        *,
        format: str | None = None,
        limits: Limits | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> ItemStream:
        """Return a stream of the bytes that a fetch would write, or of a range of them.

        All bytes are of one version of the content. A failure raises an error out of the stream,
        which never ends early as if it were whole. Core keeps to the limits and counts the bytes;
        it closes the stream while the connector is connected.

        Args:
            identifier: The item.
            format: As for a fetch; None is the connector's own.
            limits: Those of the host, for what core cannot see, such as `max_rows`.
            start: The first byte, from 0; None is the beginning.
            end: The byte after the last one; None, or more than there are, is the end. See
                `byte_range`.

        Raises:
            ItemNotFoundError: The source has no such item.
            OptionError: The range begins after the end of the content.
            UnsupportedError: There is no stream of this item in this format; core then fetches it.
        """
        ...


@runtime_checkable
class SupportsReadTable(Protocol):
    """The ability `read_table`: reading an item into memory as a `pyarrow.Table`."""

    async def read_table(self, identifier: str) -> Any:
        """Return the item as a `pyarrow.Table`.

        The limits of fetches do not apply; a connector may have a bound of its own.

        Raises:
            ItemNotFoundError: The source has no such item.
            DataFetchError: The item is not a table.
            LimitExceededError: The item is over the connector's bound.
        """
        ...


@runtime_checkable
class SupportsDiscover(Protocol):
    """The ability `discover`: saying what there is before a source exists."""

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> Mapping[str, Sequence[str]]:
        """Return values to choose from, by the name of the option, as far as they can be known.

        Called by the registry, which has validated the options, resolved their references and
        checked hosts and networks; the caller may cancel it.

        Args:
            options: Valid options, completed by `discover_defaults` of the options class where
                those given so far are not enough.
            check_address: As `DataSourceConnector.check_address`.

        Raises:
            ConnectorError: The system cannot be reached, or refuses to say.
        """
        ...


@runtime_checkable
class SupportsParameters(Protocol):
    """The ability `parameters`: running stored queries, whose values are bound by the driver.

    Identifiers `query:NAME` are stored queries of such a connector; its other methods never get
    one.
    """

    async def fetch_query(self, query: BoundQuery, workspace: str) -> str:
        """Write the result of a query to a file, as `fetch_data` does; return the path of the file.

        In the text, `:name` stands for the value of the parameter `name`, of its type, but not in
        strings, names in quotes and comments. The values go to the system apart from the text, as
        parameters of its protocol, and never become a part of the text. The name of the file is
        that of the query and the ending of the format.

        Raises:
            PolicyError: The query would do something other than read.
            LimitExceededError: A limit ended the transfer.
            DataFetchError: The system refuses the query, or the transfer failed.
        """
        ...

    async def preview_query(self, query: BoundQuery, rows: int = 10) -> Preview:
        """Return at most `rows` rows of a query's result, as `SupportsPreview.preview` does."""
        ...


@runtime_checkable
class SupportsQueryMetadata(Protocol):
    """The ability `query_metadata`: describing the result of stored queries without running them."""

    async def describe_query(self, query: BoundQuery) -> dict[str, Any]:
        """Return `columns` of a query's result, as `DataSourceConnector.get_metadata` does.

        The query is bound to NULL in every parameter, as only its columns are asked for.

        Raises:
            PolicyError, DataFetchError: As `SupportsParameters.fetch_query`.
        """
        ...


@runtime_checkable
class SupportsQueryStatistics(Protocol):
    """The ability `query_statistics`: computing figures of the results of stored queries."""

    async def query_statistics(self, query: BoundQuery) -> dict[str, ColumnStatistics]:
        """Return figures of a result's numeric columns, as `SupportsStatistics.statistics` does."""
        ...


@runtime_checkable
class SupportsSplits(Protocol):
    """The ability `splits`: dividing an item into parts that several readers read."""

    def plan_splits(
        self,
        identifier: str,
        *,
        target_bytes: int,
        max_splits: int,
        key: str | None = None,
        consistent: bool = True,
    ) -> AbstractAsyncContextManager[SplitPlan]:
        """Return a plan for an `async with` block; what the readers need is kept for so long.

        The splits together have each row of the item once, in the state that it has on entering.
        Core sets `Split.fingerprint`, which authenticates the whole split, and `SplitPlan.reader`.

        Args:
            identifier: As for `fetch_data`.
            target_bytes: Bytes that a split should have, as far as they can be estimated.
            max_splits: The most splits, 1 at least.
            key: A column whose ranges divide what cannot be divided otherwise, such as a query.
            consistent: False to accept that the splits are read from different states.

        Raises:
            ItemNotFoundError: The source has no such item.
            OptionError: There is no column `key`.
        """
        ...

    def read_split(self, split: Split, columns: Sequence[str] | None = None) -> AsyncIterator[Any]:
        """Yield the rows of a split as `pyarrow.RecordBatch`, also on another connector.

        The caller may stop before the end. Every batch has the schema of the plan, or that of
        `columns`, in the order of `columns`.

        Raises:
            OptionError: There is no such column.
            DataFetchError: The plan has ended, or the item has changed since.
        """
        ...


@runtime_checkable
class SupportsRights(Protocol):
    """The ability `rights`: telling what the account of a source may do besides reading."""

    async def excess_rights(self) -> Sequence[str]:
        """Return a sentence, without a period, for each right that a reader does not need.

        Nothing is tried out: the connector asks the outside system. An empty list means that the
        account can only read, as far as the system tells.
        """
        ...


ABILITIES = {
    "iter_items": "iter_items",
    "pages": "list_page",
    "glob": "glob_items",
    "preview": "preview",
    "statistics": "statistics",
    "upload": "upload_file",
    "stream": "open_stream",
    "read_table": "read_table",
    "splits": "plan_splits",
    "discover": "discover",
    "parameters": "fetch_query",
    "query_metadata": "describe_query",
    "query_statistics": "query_statistics",
    "rights": "excess_rights",
}
"""The names of the optional abilities, and the method that a connector with one has."""


def abilities(connector: DataSourceConnector | type[DataSourceConnector]) -> frozenset[str]:
    """Return the names of the abilities that a connector or a connector class has."""
    return frozenset(name for name, method in ABILITIES.items() if hasattr(connector, method))
