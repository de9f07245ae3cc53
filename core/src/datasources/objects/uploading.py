"""Uploads to object stores, for connectors that implement one more method."""

from __future__ import annotations

import os
from abc import abstractmethod

from datasources.errors import DataFetchError
from datasources.models import DataItem
from datasources.objects.connector import ObjectConnector
from datasources.objects.names import has_dot_segments, last_segment
from datasources.objects.uploads import Progress, StoredObject, UploadSource, open_file


class ObjectUploads(ObjectConnector):
    """An `ObjectConnector` with uploads: implement `store_object` as well."""

    async def upload_file(
        self,
        local_path: str,
        blob_name: str | None = None,
        overwrite: bool = True,
        *,
        progress: Progress | None = None,
    ) -> DataItem:
        """Store a local file as an object; return it as an item, whose version is the new ETag.

        Args:
            local_path: The file; it must not change during the upload.
            blob_name: Name of the object in the source; the file's own name by default.
            overwrite: False to fail if there is an object of that name.
            progress: Called on the event loop with the bytes stored so far and the file's size.

        Raises:
            ItemExistsError: The object exists, and `overwrite` is False.
            DataFetchError: The file cannot be read or changed, the name cannot be stored, or the
                upload failed.
        """
        self.require_connection()
        path = blob_name or os.path.basename(local_path)
        name = self.object_name(path)
        if has_dot_segments(name):
            raise self.subject(name).error(
                DataFetchError, "names with '.' or '..' between slashes cannot be stored"
            )
        with open_file(local_path) as file:
            source = UploadSource(file, self.subject(name), progress)
            stored = await self.store_object(name, source, overwrite=overwrite)
        metadata = {"kind": self.subject_class.object_noun, "etag": stored.etag}
        item = DataItem(last_segment(path), path, source.size, stored.modified_at, metadata)
        item.version = stored.etag
        return item

    @abstractmethod
    async def store_object(
        self, name: str, source: UploadSource, *, overwrite: bool
    ) -> StoredObject:
        """Store a local file as an object, which appears when it is complete.

        Args:
            name: The object's name in the store.
            source: The file. Call its `report` as bytes arrive; `send_parts` does so.
            overwrite: False to have the store refuse, at the moment of storing, a name that is
                taken, so that of two uploads at once one fails.

        Raises:
            ItemExistsError: The object exists, and `overwrite` is False.
            DataFetchError: The file changed while it was read, or the upload failed.
        """
