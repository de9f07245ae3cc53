"""Check that a bucket can be used, and list the buckets before a source exists."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

from datasources import ConnectError
from datasources_object_store.checking import check_within
from datasources_object_store.s3_options import S3Options
from datasources_object_store.s3_service import S3Service

_MOST = 1000  # names; more are no choice for a person


async def check_access(service: S3Service) -> None:
    """List one object below the prefix, within `connect_timeout`.

    Raises:
        ConnectError: The service does not answer, or has no such bucket.
        AuthenticationError: The service refuses the credentials.
        PermissionDeniedError: The credentials may not list the bucket.
    """
    options = service.options
    query = {"list-type": "2", "max-keys": "1"}
    query |= {"prefix": options.prefix} if options.prefix else {}
    await check_within(
        options.connect_timeout, lambda: service.read("GET", query=query), service.subject()
    )


async def discover(
    options: S3Options, check_address: Callable[[str], None]
) -> dict[str, list[str]]:
    """Return the names of the buckets; credentials for a single bucket may not list them.

    Raises:
        ConnectError, AuthenticationError, PermissionDeniedError: As for connecting a source.
    """
    service = S3Service(options, connections=1, check_address=check_address)
    service.use_service()
    await service.open()
    try:
        _, body = await service.retries().call(lambda: service.read("GET"))
    finally:
        await service.close()
    try:
        names = [element.text or "" for element in ET.fromstring(body).iterfind(".//{*}Name")]  # noqa: S314
    except ET.ParseError as exc:
        raise ConnectError("the list of buckets is not XML") from exc
    return {"bucket": sorted(names)[:_MOST]}
