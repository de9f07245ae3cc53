"""The operations of an object store that its connector's author writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from datasources.models import DataItem
from datasources.objects.failures import ObjectSubject, Retries
from datasources.objects.options import ObjectStoreOptions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One content of an object, as a response describes it."""

    size: int
    """Bytes of the whole object."""
    etag: str
    """The mark of this content, without the quotes of the header, as in the items of `scan`."""
    content_type: str | None = None
    encoding: str = ""
    """The object's Content-Encoding; empty if it has none."""
    checksums: Mapping[str, bytes] = field(default_factory=dict)
    """Digests of the whole content to check it with, by algorithm as `hashlib.new` takes it."""
    is_folder: bool = False
    """True if the store marks the object as a folder."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of `get_metadata`, as JSON holds them: `modified_at`, `metadata` and others."""


class ObjectBody(ABC):
    """The body of one response: bytes of an object, as they arrive."""

    info: ObjectInfo
    """The object that the bytes are of."""
    start: int
    """Offset of the first byte in the object."""
    partial: bool
    """True if the body is the range that was asked for, False if it is the whole object."""

    @abstractmethod
    async def read(self) -> bytes:
        """Return the next bytes that have arrived; none at the end.

        Raises:
            TransientError: The connection broke; the rest may be asked for again.
            ConnectorError: The source was disconnected.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the response, whose rest is not read; called once or more."""


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """One response of a listing."""

    names: Sequence[str]
    """Names of objects, and with a delimiter of folders, which end in it; in the store's order."""
    item: Callable[[int], DataItem]
    """Returns the item of the name at an index, with the name as its `path` and the ETag as its
    `version`. One that the store marks as a folder has `metadata["kind"] == "folder"`. The items of
    a page are made in batches, between which other tasks run."""
    next_marker: str = ""
    """The place after the page, for the next request; empty after the last page."""


class ObjectStore(ABC):
    """The operations that a connector to an object store implements for `ObjectConnector`.

    Names are those in the store, with the prefix of the source. A method sends one request, and
    raises `TransientError` where the same request may succeed later: the kit repeats it.
    """

    options: ObjectStoreOptions

    @abstractmethod
    async def open_store(self) -> Any:
        """Return the client of the store, which becomes `_connection`; nothing need be sent."""

    @abstractmethod
    async def close_store(self, store: Any) -> None:
        """Close a client; requests under way fail with ConnectError."""

    @abstractmethod
    async def check_store(self, store: Any) -> None:
        """Check that the store can be used with these options.

        Raises:
            ConnectError: The service cannot be reached, or has no such container.
            AuthenticationError: The service refuses the credentials.
            PermissionDeniedError: The credentials allow nothing with the container.
        """

    @abstractmethod
    async def head_object(
        self, name: str, *, version: str | None = None, etag: str | None = None
    ) -> ObjectInfo:
        """Describe an object without reading it.

        Args:
            name: The object.
            version: The version that an identifier names, None for the current content.
            etag: Refuse any other content: a URL that a proxy resolves may lead to one.

        Raises:
            ItemNotFoundError: There is no such object or version; its `code` is that of the store.
            DataFetchError: The object has another ETag.
        """

    @abstractmethod
    async def read_object(
        self,
        name: str,
        start: int,
        stop: int,
        *,
        version: str | None = None,
        etag: str | None = None,
    ) -> ObjectBody:
        """Request a range of an object; the caller closes the body.

        Args:
            name: The object.
            start: The first byte; at 0, an empty object is no error.
            stop: The byte after the last one, which may be after the end.
            version: As for `head_object`.
            etag: Refuse any other content, so that a fetch never mixes two.

        Raises:
            ItemNotFoundError, DataFetchError: As `head_object`.
        """

    @abstractmethod
    async def scan(self, prefix: str, *, delimiter: str, limit: int, marker: str) -> ObjectPage:
        """Return one page of the names that start with `prefix`, in the store's order.

        Args:
            prefix: The beginning of the names; empty for all.
            delimiter: `/` to have names that contain it after the prefix as one folder; or empty.
            limit: The most names; the store may return fewer, or none, before the last page.
            marker: The `next_marker` of the page before; empty for the first one.

        Raises:
            ConnectError: There is no such container, or the response is no listing.
        """

    @abstractmethod
    def subject(self, name: str | None = None) -> ObjectSubject:
        """Return the container, or an object of it, as error messages name it."""

    wrong_checksum_hint: ClassVar[str] = ""
    """Added to the error for an object that does not match its checksums: it may be stored with a
    wrong one."""

    def retries(self) -> Retries:
        """Return the retries that the options allow for one request."""
        return Retries(self.options.retries, self.options.retry_timeout)

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Call `attempt` until it ends without `TransientError`, or no retry is left."""
        return await self.retries().call(attempt)
