"""What a connector is: six methods, and optional abilities that can be seen without trying."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from datasources.errors import ConnectError
from datasources.models import ColumnStatistics, DataItem, DataSourceConfig, PoolConfig, Preview

if TYPE_CHECKING:
    from datasources.options import ConnectorOptions

    # Named here because inside the class `type` is the connector's.
    OptionsClass = type[ConnectorOptions]

API_VERSION = 1
"""The version of this contract; a connector names the one it was written for."""
OLDEST_API_VERSION = 1
"""The oldest one that core still serves; authors of what lies between are told to move on."""


class DataSourceConnector(ABC):
    """One kind of outside system, connected to one source.

    Implement the six methods; everything else has a default.  A connector raises the
    `ConnectorError` family for what goes wrong outside and lets everything else pass.
    All methods run on the event loop that called `connect`; none may block it.
    """

    type: ClassVar[str] = ""
    """The name sources use; the entry point bears the same name."""
    api_version: ClassVar[int] = 1
    """The contract it was written for; a class that does not say was written for the first."""
    options_class: ClassVar[OptionsClass | None] = None
    """Declares and validates the options; without it `config.config` is taken as it is."""
    shareable: ClassVar[bool] = False
    """True if one connected instance serves many callers at once, pooling inside its driver."""

    config: DataSourceConfig
    """The source, secrets resolved."""
    options: Any
    """The validated instance of `options_class`; annotate it with your own class."""
    pool_config: PoolConfig
    """What the host wants of the driver's own pool; matters to shareable connectors only."""

    def __init__(self, config: DataSourceConfig) -> None:
        self.config = config
        self.options = self.options_class.load(config.config) if self.options_class else None
        self.pool_config = PoolConfig()
        self._connection: Any = None

    def require_connection(self) -> Any:
        """Return what `connect` left in `_connection`.

        Raises:
            ConnectError: It is None: the connector is not connected.
        """
        if self._connection is None:
            raise ConnectError(f"source {self.config.id!r} is not connected")
        return self._connection

    @abstractmethod
    async def connect(self) -> bool:
        """Open what the other methods need; connecting twice does nothing more.

        Returns True.

        Raises:
            ConnectError: The system cannot be reached.
            AuthenticationError: It refuses the credentials.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Close everything; may be called at any time, also when never connected."""

    @abstractmethod
    async def test_connection(self) -> bool:
        """Tell whether the system answers now; errors of the outside are False, not raised.

        It leaves the connector as it was: connected if it was connected.
        """

    @abstractmethod
    async def list_items(self, path: str | None = None) -> list[DataItem]:
        """List what can be fetched: everything, or all that lies below `path`.

        Where the source has folders, a path that ends in `/` shows one folder instead: its direct
        children, folders included, these with `metadata["kind"] == "folder"` and a path that ends
        in `/`; the topmost folder is `"/"`.

        Raises:
            ItemNotFoundError: The source has no such path, where it can tell.
        """

    @abstractmethod
    async def fetch_data(self, identifier: str, workspace: str) -> str:
        """Bring one item into the directory `workspace`; return the path of the file.

        Write through `Workspace.of(workspace).create(name)`: it keeps names inside the
        workspace, applies the host's limits, and leaves nothing behind on failure.

        Raises:
            ItemNotFoundError: The source has no such item.
            LimitExceededError: A limit ended the transfer.
            DataFetchError: The transfer failed.
        """

    @abstractmethod
    async def get_metadata(self, identifier: str) -> dict[str, Any]:
        """Describe one item without fetching it, as values JSON can hold.

        Raises:
            ItemNotFoundError: The source has no such item.
        """


@runtime_checkable
class SupportsIterItems(Protocol):
    """Lists page by page, in constant memory."""

    def iter_items(self, path: str | None = None) -> AsyncIterator[DataItem]:
        """Yield what `list_items` would return, as it arrives."""
        ...


@runtime_checkable
class SupportsGlob(Protocol):
    """Expands patterns: `*` and `?` within a path segment, `**` across them, `[a-z]`."""

    async def glob_items(self, pattern: str) -> list[DataItem]:
        """Return the items whose path matches, in order of their paths."""
        ...


@runtime_checkable
class SupportsPreview(Protocol):
    """Shows the first rows without fetching the item."""

    async def preview(self, identifier: str, rows: int = 10) -> Preview:
        """Return at most `rows` rows."""
        ...


@runtime_checkable
class SupportsStatistics(Protocol):
    """Computes figures of numeric columns at the source."""

    async def statistics(self, identifier: str) -> dict[str, ColumnStatistics]:
        """Return figures by column name, numeric columns only."""
        ...


@runtime_checkable
class SupportsUpload(Protocol):
    """Takes files back."""

    async def upload_file(
        self, local_path: str, blob_name: str | None = None, overwrite: bool = True
    ) -> DataItem:
        """Store a local file under `blob_name`, the file's own name by default."""
        ...


@runtime_checkable
class SupportsReadTable(Protocol):
    """Reads an item into memory as a `pyarrow.Table`."""

    async def read_table(self, identifier: str) -> Any:
        """Return the item as a `pyarrow.Table`."""
        ...


ABILITIES = {
    "iter_items": "iter_items",
    "glob": "glob_items",
    "preview": "preview",
    "statistics": "statistics",
    "upload": "upload_file",
    "read_table": "read_table",
}
"""The optional abilities, and the method that is each of them."""


def abilities(connector: DataSourceConnector | type[DataSourceConnector]) -> frozenset[str]:
    """Return the names in `ABILITIES` that a connector, or a connector class, has."""
    return frozenset(name for name, method in ABILITIES.items() if hasattr(connector, method))
