"""Serve one container as a source; the modules beside this one do the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from datasources import (
    AuthenticationError,
    ConnectorError,
    DataFetchError,
    DataItem,
    PermissionDeniedError,
)
from datasources.objects import (
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    ObjectUploads,
    StoredObject,
    UploadSource,
)
from datasources_azure_blob.discovering import discover
from datasources_azure_blob.errors import Subject
from datasources_azure_blob.folders import scan
from datasources_azure_blob.options import AzureBlobOptions
from datasources_azure_blob.probe import check_access
from datasources_azure_blob.properties import tags_in
from datasources_azure_blob.reading import BlobInfo, head_blob, read_blob
from datasources_azure_blob.service import BlobService
from datasources_azure_blob.upload import upload
from datasources_azure_blob.versions import (
    VERSION_PATTERN,
    list_versions,
    listed_version_etag,
    version_query,
)


class AzureBlobConnector(ObjectUploads):
    """The blobs of one container, or of one folder of it."""

    type = "azure_blob"
    api_version = 1
    options_class = AzureBlobOptions
    options: AzureBlobOptions
    subject_class = Subject
    distribution = "datasources-azure-blob"
    version_pattern = VERSION_PATTERN
    wrong_checksum_hint = (
        "if it is stored with a wrong MD5, the option 'check_md5' = false fetches it"
    )

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the name of a blob.

        None for what may be a snapshot or version, as there may also be a blob of that name, and
        for a name with a backslash, which the service stores as a slash.
        """
        return None if "\\" in identifier else super().item_path(identifier)

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Return the containers of the account.

        Raises:
            ConnectorError: The account cannot be reached, or does not list them to these
                credentials.
        """
        return await discover(AzureBlobOptions.load(options), check_address)

    async def open_store(self) -> BlobService:
        """Return the session with the account."""
        service = BlobService(
            self.options,
            connections=self.pool_config.max_size,
            check_address=self.check_address,
            secret=self.secret,
        )
        await service.open()
        return service

    async def close_store(self, store: BlobService) -> None:
        """Close the session."""
        await store.close()

    async def check_store(self, store: BlobService) -> None:
        """Check that the container may be listed, read or written to."""
        await check_access(store)

    async def head_object(
        self, name: str, *, version: str | None = None, etag: str | None = None
    ) -> ObjectInfo:
        """Return the properties of a blob.

        Beyond those of every object, `get_metadata` shows `modified_at` and `created_at` (Unix
        seconds or None) and `metadata`. Where the service tells them: `content_type`,
        `content_encoding`, `content_language`, `content_disposition`, `cache_control`,
        `content_md5`, `blob_type`, `tier`, `archive_status`, `lease_state`, `expires`,
        `version_id`, and `tags` (None if the credentials do not allow reading them). Where there
        are any: the identifiers of its `snapshots` and `versions`.
        """
        return await head_blob(self._service, name, version, etag)

    async def read_object(
        self,
        name: str,
        start: int,
        stop: int,
        *,
        version: str | None = None,
        etag: str | None = None,
    ) -> ObjectBody:
        """Request a range of a blob."""
        return await read_blob(self._service, name, (start, stop), version, etag)

    async def scan(self, prefix: str, *, delimiter: str, limit: int, marker: str) -> ObjectPage:
        """Return one page of the container's listing."""
        return await scan(self._service, prefix, delimiter, limit, marker)

    def subject(self, name: str | None = None) -> Subject:
        """Return the container, or a blob of it, as error messages name it."""
        return self._service.subject(name)

    async def store_object(
        self, name: str, source: UploadSource, *, overwrite: bool
    ) -> StoredObject:
        """Store a local file as a block blob, with its MD5."""
        return await upload(self._service, name, source, overwrite=overwrite)

    async def list_versions(self, identifier: str) -> list[DataItem]:
        """Return the snapshots and earlier versions of a blob, oldest first of each kind.

        Their paths, `?snapshot=TIME/NAME` and `?versionid=TIME/NAME`, are identifiers for
        `fetch_data`, `get_metadata` and `preview`. If there is a blob of exactly that name, the
        identifier means the blob.

        Raises:
            ItemNotFoundError: There is no such blob.
        """
        name = self.object_name(identifier)
        return await self._versions(name, identifier, await self.describe_file(name))

    async def listed_etag(self, name: str, version: str | None) -> str | None:
        """Return the ETag in the listing of a blob, or of its snapshot or version."""
        if version is None:
            return await super().listed_etag(name, version)
        return await listed_version_etag(self._service, name, version)

    async def more_metadata(
        self, name: str, version: str | None, identifier: str, info: ObjectInfo
    ) -> dict[str, Any]:
        """Return the tags of a blob, and the identifiers of its snapshots and versions."""
        metadata: dict[str, Any] = {}
        if isinstance(info, BlobInfo) and info.has_tags:
            metadata["tags"] = await self._tags(name, version)
        if version is None:
            metadata |= await self._version_identifiers(name, identifier, info)
        return metadata

    @property
    def _service(self) -> BlobService:
        service: BlobService = self.require_connection()
        return service

    async def _versions(self, blob: str, identifier: str, info: ObjectInfo) -> list[DataItem]:
        # An account without versioning may refuse to include versions.
        include = "snapshots,versions" if "version_id" in info.properties else "snapshots"
        return await list_versions(self._service, blob, identifier, include)

    async def _version_identifiers(
        self, blob: str, identifier: str, info: ObjectInfo
    ) -> dict[str, list[str]]:
        """Return the identifiers of snapshots and versions; none if listing is not allowed."""
        identifiers: dict[str, list[str]] = {}
        try:
            items = await self._versions(blob, identifier, info)
        except ConnectorError as exc:
            hidden = exc.code == "ResourceNotFound"  # the service's answer to anonymous callers
            if not hidden and not isinstance(exc, (PermissionDeniedError, AuthenticationError)):
                raise
            return identifiers
        for item in items:
            identifiers.setdefault(f"{item.metadata['kind']}s", []).append(item.path)
        return identifiers

    async def _tags(self, blob: str, version: str | None) -> Mapping[str, str] | None:
        """Return a blob's tags, or None if the credentials do not allow reading them."""
        query = {**version_query(version), "comp": "tags"}
        try:
            _, body = await self._service.read("GET", blob, query=query)
        except (PermissionDeniedError, AuthenticationError):
            return None
        try:
            return tags_in(body)
        except SyntaxError as exc:  # the base class of ElementTree.ParseError
            subject = self._service.subject(blob)
            raise subject.error(DataFetchError, "the answer is not its tags") from exc
