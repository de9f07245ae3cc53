"""Serve one bucket of S3, or of a service that speaks its protocol, as a source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from datasources import ConnectorError, DataItem, PermissionDeniedError
from datasources.objects import (
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    ObjectSubject,
    ObjectUploads,
    StoredObject,
    UploadSource,
)
from datasources_object_store.s3_discovery import check_access, discover
from datasources_object_store.s3_listing import list_versions, scan
from datasources_object_store.s3_options import S3Options
from datasources_object_store.s3_reading import head_object, read_object
from datasources_object_store.s3_service import S3Service
from datasources_object_store.s3_upload import upload


class S3Connector(ObjectUploads):
    """The objects of one bucket, or of one folder of it."""

    type = "s3"
    api_version = 1
    options_class = S3Options
    options: S3Options
    distribution = "datasources-object-store"
    version_pattern = re.compile(r"\?(versionid=[^/]+)/(.+)", re.DOTALL)
    wrong_checksum_hint = "if its ETag is no MD5, the option 'check_md5' = false fetches it"

    @classmethod
    def item_path(cls, identifier: str) -> str | None:
        """Return the name of an object.

        None for what may be a version, and for a name with a backslash, which some services store
        as a slash.
        """
        return None if "\\" in identifier else super().item_path(identifier)

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Return the buckets that the credentials may list.

        Raises:
            ConnectorError: The service cannot be reached, or does not list them.
        """
        return await discover(S3Options.load(options), check_address)

    async def open_store(self) -> S3Service:
        """Return the session with the service."""
        service = S3Service(
            self.options,
            connections=self.pool_config.max_size,
            check_address=self.check_address,
            secret=self.secret,
        )
        await service.open()
        return service

    async def close_store(self, store: S3Service) -> None:
        """Close the session."""
        await store.close()

    async def check_store(self, store: S3Service) -> None:
        """Check that the bucket can be listed.

        Credentials that the service knows, but that may not list, are accepted: they may fetch
        objects by name, and there is no request that tells whether they may.
        """
        try:
            await check_access(store)
        except PermissionDeniedError as exc:
            if exc.code != "AccessDenied" or self.options.credential == "anonymous":
                raise

    async def head_object(
        self, name: str, *, version: str | None = None, etag: str | None = None
    ) -> ObjectInfo:
        """Describe an object.

        Beyond those of every object, `get_metadata` shows `modified_at` (Unix seconds) and
        `metadata`; where the service tells them, `content_type`, `content_encoding`,
        `content_language`, `content_disposition`, `cache_control`, `storage_class`, `version_id`,
        `encryption`, `archive_status` and `restore`; and the identifiers of earlier `versions`.
        """
        return await head_object(self._service, name, version, etag)

    async def read_object(
        self,
        name: str,
        start: int,
        stop: int,
        *,
        version: str | None = None,
        etag: str | None = None,
    ) -> ObjectBody:
        """Request a range of an object."""
        return await read_object(self._service, name, (start, stop), version, etag)

    async def scan(self, prefix: str, *, delimiter: str, limit: int, marker: str) -> ObjectPage:
        """Return one page of the bucket's listing."""
        return await scan(self._service, prefix, delimiter, limit, marker)

    def subject(self, name: str | None = None) -> ObjectSubject:
        """Return the bucket, or an object of it, as error messages name it."""
        return self._service.subject(name)

    async def store_object(
        self, name: str, source: UploadSource, *, overwrite: bool
    ) -> StoredObject:
        """Store a local file, in parts if it is large."""
        return await upload(self._service, name, source, overwrite=overwrite)

    async def list_versions(self, identifier: str) -> list[DataItem]:
        """Return the earlier versions of an object, oldest first.

        Their paths, `?versionid=ID/NAME`, are identifiers for `fetch_data`, `get_metadata` and
        `preview`. If there is an object of exactly that name, the identifier means the object.

        Raises:
            ItemNotFoundError: There is no such object.
        """
        name = self.object_name(identifier)
        await self.describe_file(name)
        return await list_versions(self._service, name, identifier)

    async def listed_etag(self, name: str, version: str | None) -> str | None:
        """Return the ETag in the listing of an object, or of a version of it."""
        if version is None:
            return await super().listed_etag(name, version)
        versions = await list_versions(self._service, name, name)
        return next((item.version for item in versions if item.path == f"?{version}/{name}"), None)

    async def more_metadata(
        self, name: str, version: str | None, identifier: str, info: ObjectInfo
    ) -> dict[str, Any]:
        """Return the identifiers of earlier versions, where the bucket keeps them."""
        if version is not None or "version_id" not in info.properties:
            return {}
        try:
            versions = await list_versions(self._service, name, identifier)
        except ConnectorError:
            return {}  # the credentials need a right of its own to list them
        return {"versions": [item.path for item in versions]} if versions else {}

    @property
    def _service(self) -> S3Service:
        service: S3Service = self.require_connection()
        return service
