"""Check that a container can be used, with as few requests as show it."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from datasources import AuthenticationError, ConnectError, ConnectorError, PermissionDeniedError
from datasources.objects import Retries, TransientError
from datasources_azure_blob.options import AzureBlobOptions
from datasources_azure_blob.service import BlobService

# Name of a blob that is asked for where listing is not allowed; it need not exist.
_PROBE_BLOB = "datasources-probe"
# Further attempts after an answer such as 503. An account that gives no answer is not tried again:
# the pool does that.
_RETRIES = 2
# The codes of a SAS or role that is valid, but does not include the operation.
_NOT_PERMITTED = ("AuthorizationPermissionMismatch", "InsufficientAccountPermissions")


async def check_access(service: BlobService) -> None:
    """Check within `connect_timeout` that the container may be listed, read or written to.

    Raises:
        ConnectError: The account does not answer, or has no such container.
        AuthenticationError: The service refuses the credentials.
        PermissionDeniedError: The credentials allow nothing with this container.
    """
    seconds = service.options.connect_timeout
    retries = Retries(_RETRIES, seconds)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await _list_or_read(service)
                except TransientError as failure:
                    if failure.error.code is None:  # no answer of the service
                        raise failure.error from failure.__cause__
                    await retries.pause(failure)
    except TimeoutError as exc:
        reason = f"no answer within {seconds:g} s"
        raise service.subject().error(ConnectError, reason) from exc


async def _list_or_read(service: BlobService) -> None:
    """List one blob below the prefix; if that is not allowed, ask for one that need not exist.

    The prefix is part of both requests, since a SAS may be for its folder alone. Two kinds of
    callers may read but not list: those with credentials for reading alone (403), and anonymous
    ones, to whom the service says that the container does not exist (404, ResourceNotFound). To
    both it says BlobNotFound of a missing blob they may read.
    """
    options = service.options
    try:
        query = {"restype": "container", "comp": "list", "maxresults": "1"}
        query |= {"prefix": options.prefix} if options.prefix else {}
        (await service.send("GET", query=query)).close()
    except (AuthenticationError, PermissionDeniedError, ConnectError) as refusal:
        may_be_hidden = options.credential == "anonymous" and (
            refusal.code == "ResourceNotFound" or isinstance(refusal, AuthenticationError)
        )
        if not may_be_hidden and not isinstance(refusal, PermissionDeniedError):
            raise
        await _read(service, refusal)


async def _read(service: BlobService, refusal: ConnectorError) -> None:
    try:
        (await service.send("HEAD", service.options.prefix + _PROBE_BLOB)).close()
    except ConnectorError as answer:
        if answer.code == "BlobNotFound":
            return
        if answer.code == "ContainerNotFound":
            reason = "the container does not exist"
            raise service.subject().error(ConnectError, reason, code=answer.code) from answer
        if isinstance(answer, PermissionDeniedError) and answer.code in _NOT_PERMITTED:
            if _may_write_only(service.options):
                return
            reason = "the credentials may neither list nor read its blobs"
            if service.options.uses_identity:
                reason += "; the identity needs a role such as 'Storage Blob Data Reader'"
            raise service.subject().error(
                PermissionDeniedError, reason, code=answer.code
            ) from refusal.__cause__
        raise refusal from refusal.__cause__


def _may_write_only(options: AzureBlobOptions) -> bool:
    """Return True if a SAS is for uploads alone, or a policy of the container says what it is for.

    https://learn.microsoft.com/rest/api/storageservices/create-service-sas
    """
    fields = parse_qs(options.account().sas or "")
    rights = set(fields.get("sp", [""])[0])
    return "si" in fields or (bool(rights) and not rights & {"r", "l"})
