"""Serve one bucket of Google Cloud Storage as a source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from datasources import ConnectError, DataItem, PermissionDeniedError
from datasources.objects import (
    ObjectBody,
    ObjectInfo,
    ObjectPage,
    ObjectSubject,
    ObjectUploads,
    StoredObject,
    UploadSource,
)
from datasources_object_store.checking import check_within
from datasources_object_store.gcs_options import GCSOptions
from datasources_object_store.gcs_reading import head_object, list_versions, read_object, scan
from datasources_object_store.gcs_service import GCSService
from datasources_object_store.gcs_upload import upload

_MOST = 1000  # names of buckets; more are no choice for a person


class GCSConnector(ObjectUploads):
    """The objects of one bucket, or of one folder of it."""

    type = "gcs"
    api_version = 1
    options_class = GCSOptions
    options: GCSOptions
    distribution = "datasources-object-store"
    version_pattern = re.compile(r"\?(generation=\d+)/(.+)", re.DOTALL)

    @classmethod
    async def discover(
        cls, options: Mapping[str, Any], *, check_address: Callable[[str], None]
    ) -> dict[str, list[str]]:
        """Return the buckets of the option `project`; none without it.

        Raises:
            ConnectorError: The service cannot be reached, or does not list them.
        """
        loaded = GCSOptions.load(options)
        if loaded.project is None:
            return {"bucket": []}
        service = GCSService(loaded, connections=1, check_address=check_address)
        await service.open()
        url = f"{loaded.service_url}/storage/v1/b"
        query = {"project": loaded.project, "maxResults": str(_MOST), "fields": "items(name)"}
        try:
            document = await service.retries().call(
                lambda: service.read_json("GET", url, query=query)
            )
        finally:
            await service.close()
        return {"bucket": sorted(item["name"] for item in document.get("items") or [])}

    async def open_store(self) -> GCSService:
        """Return the session with the service."""
        service = GCSService(
            self.options,
            connections=self.pool_config.max_size,
            check_address=self.check_address,
            secret=self.secret,
        )
        await service.open()
        return service

    async def close_store(self, store: GCSService) -> None:
        """Close the session."""
        await store.close()

    async def check_store(self, store: GCSService) -> None:
        """Check that the bucket can be listed.

        A service account that may not list is accepted: it may fetch objects by name.
        """
        try:
            await check_within(
                self.options.connect_timeout,
                lambda: scan(store, self.options.prefix, "", 1, ""),
                store.subject(),
            )
        except PermissionDeniedError:
            if self.options.credential == "anonymous":
                raise

    async def head_object(
        self, name: str, *, version: str | None = None, etag: str | None = None
    ) -> ObjectInfo:
        """Describe an object.

        Its `etag` is its generation. Beyond what every object has, `get_metadata` shows
        `modified_at` and `created_at` (Unix seconds or None) and `metadata`; where the service tells
        them, `content_type`, `content_encoding`, `content_language`, `content_disposition`,
        `cache_control`, `storage_class`, `content_md5`, `crc32c` and `kms_key`; and the identifiers
        of earlier `versions`.
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
        """Store a local file, in chunks if it is large."""
        return await upload(self._service, name, source, overwrite=overwrite)

    async def list_versions(self, identifier: str) -> list[DataItem]:
        """Return the earlier generations of an object, oldest first.

        Their paths, `?generation=NUMBER/NAME`, are identifiers for `fetch_data`, `get_metadata` and
        `preview`. If there is an object of exactly that name, the identifier means the object.

        Raises:
            ItemNotFoundError: There is no such object.
        """
        name = self.object_name(identifier)
        await self.describe_file(name)
        return await list_versions(self._service, name, identifier)

    async def listed_etag(self, name: str, version: str | None) -> str | None:
        """Return the generation in the listing of an object, or of a version of it."""
        if version is None:
            return await super().listed_etag(name, version)
        versions = await list_versions(self._service, name, name)
        return next((item.version for item in versions if item.path == f"?{version}/{name}"), None)

    async def more_metadata(
        self,
        name: str,
        version: str | None,
        identifier: str,
        info: ObjectInfo,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return the identifiers of earlier generations, where the bucket keeps them."""
        if version is not None:
            return {}
        try:
            versions = await list_versions(self._service, name, identifier)
        except (PermissionDeniedError, ConnectError):
            return {}  # the account may describe objects, and not list them
        return {"versions": [item.path for item in versions]} if versions else {}

    @property
    def _service(self) -> GCSService:
        service: GCSService = self.require_connection()
        return service
