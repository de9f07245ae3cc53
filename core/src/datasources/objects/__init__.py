"""A kit for connectors to object stores: the author lists and reads, the kit does the rest."""

from __future__ import annotations

from datasources import lazy_exports

TYPE_CHECKING = False  # as type checkers know it

if TYPE_CHECKING:
    from datasources.objects.connector import ObjectConnector as ObjectConnector
    from datasources.objects.failures import (
        ObjectSubject as ObjectSubject,
        Retries as Retries,
        TransientError as TransientError,
    )
    from datasources.objects.http import (
        ObjectHttp as ObjectHttp,
        clock_note as clock_note,
        content_range as content_range,
        content_size as content_size,
        http_time as http_time,
        retry_after as retry_after,
    )
    from datasources.objects.names import (
        folder_item as folder_item,
        has_dot_segments as has_dot_segments,
        last_segment as last_segment,
        quote_name as quote_name,
    )
    from datasources.objects.options import ObjectStoreOptions as ObjectStoreOptions
    from datasources.objects.proxies import proxy_for as proxy_for
    from datasources.objects.store import (
        ObjectBody as ObjectBody,
        ObjectInfo as ObjectInfo,
        ObjectPage as ObjectPage,
        ObjectStore as ObjectStore,
    )
    from datasources.objects.uploading import ObjectUploads as ObjectUploads
    from datasources.objects.uploads import (
        StoredObject as StoredObject,
        UploadSource as UploadSource,
    )

_MODULE_OF = {
    "ObjectBody": "store",
    "ObjectConnector": "connector",
    "ObjectHttp": "http",  # needs aiohttp, as the functions of that module do
    "ObjectInfo": "store",
    "ObjectPage": "store",
    "ObjectStore": "store",
    "ObjectStoreOptions": "options",
    "ObjectSubject": "failures",
    "ObjectUploads": "uploading",
    "Retries": "failures",
    "StoredObject": "uploads",
    "TransientError": "failures",
    "UploadSource": "uploads",
    "clock_note": "http",
    "content_range": "http",
    "content_size": "http",
    "folder_item": "names",
    "has_dot_segments": "names",
    "http_time": "http",
    "last_segment": "names",
    "proxy_for": "proxies",
    "quote_name": "names",
    "retry_after": "http",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  (a list all the same)

__getattr__ = lazy_exports(__name__, _MODULE_OF)
