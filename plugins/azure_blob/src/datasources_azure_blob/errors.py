"""Map error responses of the Blob service to the errors of `datasources`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    ItemExistsError,
    ItemNotFoundError,
    PermissionDeniedError,
)
from datasources.objects import ObjectSubject, TransientError, clock_note, retry_after

# Error class and reason by error code, and by HTTP status for codes that are not listed. With an
# empty reason, the message of the service is used instead.
# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
# https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
_BY_CODE: dict[str, tuple[type[ConnectorError], str]] = {
    "AccountIsDisabled": (ConnectError, "the storage account is disabled"),
    "AuthorizationPermissionMismatch": (PermissionDeniedError, ""),
    "AuthorizationProtocolMismatch": (PermissionDeniedError, ""),
    "AuthorizationResourceTypeMismatch": (PermissionDeniedError, ""),
    "AuthorizationServiceMismatch": (PermissionDeniedError, ""),
    "AuthorizationSourceIPMismatch": (PermissionDeniedError, ""),
    "BlobAlreadyExists": (ItemExistsError, "it exists already, and overwriting is off"),
    "BlobArchived": (DataFetchError, "it is in the archive tier; rehydrate it first"),
    "BlobBeingRehydrated": (DataFetchError, "it is still being rehydrated from the archive tier"),
    "BlobImmutableDueToPolicy": (PermissionDeniedError, ""),
    "BlobNotFound": (ItemNotFoundError, "it does not exist"),
    "BlobUsesCustomerSpecifiedEncryption": (
        PermissionDeniedError,
        "it is encrypted with a key of its owner's, which this source has not",
    ),
    "ConditionNotMet": (DataFetchError, "it changed while it was read; fetch it again"),
    "ContainerBeingDeleted": (ConnectError, "it is being deleted"),
    "ContainerDisabled": (ConnectError, "it is disabled"),
    "ContainerNotFound": (ConnectError, "the container does not exist"),
    "InsufficientAccountPermissions": (PermissionDeniedError, ""),
    "InvalidAuthenticationInfo": (AuthenticationError, ""),
    "LeaseIdMissing": (PermissionDeniedError, "it is leased by someone else"),
    "PublicAccessNotPermitted": (AuthenticationError, "the account allows no anonymous access"),
    "UnauthorizedBlobOverwrite": (PermissionDeniedError, "overwriting is not allowed"),
}
# Added to the reason, where the service's own words do not say what to do.
_HINTS = {
    "AuthorizationFailure": "most likely the account's firewall does not allow this network",
    "AuthorizationProtocolMismatch": "the SAS is for https only",
    "AuthorizationResourceTypeMismatch": "the account SAS needs the resource types 'c' and 'o'",
    "AuthorizationServiceMismatch": "the account SAS needs the service 'b'",
    "AuthorizationSourceIPMismatch": "the SAS is for other addresses than this machine's",
}
_BY_STATUS: dict[int, tuple[type[ConnectorError], str]] = {
    401: (AuthenticationError, ""),
    403: (AuthenticationError, ""),
    407: (ConnectError, "the proxy asks for credentials"),
    412: (DataFetchError, "it changed while it was read; fetch it again"),
}
# Statuses after which the same request may succeed: timeouts, throttling, a gateway's and the
# service's own passing failures.
# https://learn.microsoft.com/azure/storage/blobs/storage-retry-policy-python
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}
# AuthenticationErrorDetail explains an expired or premature SAS. No other detail is shown: for a
# wrong signature it holds the string to sign, which has the SAS's fields.
_SAS_TIME_DETAIL = re.compile(r"Sign(?:ature not valid|ed expiry time|ed start time)[^<\n]*")


@dataclass(frozen=True, slots=True)
class Subject(ObjectSubject):
    """The container or blob of a request, as error messages name it."""

    container_noun = "container"
    object_noun = "blob"


def error_from_response(
    subject: Subject, status: int, headers: Mapping[str, str], body: bytes | bytearray
) -> ConnectorError | TransientError:
    """Return the error for a response that is not a success.

    It is a `TransientError` if the request may be sent again. The code is taken from the header
    `x-ms-error-code`, or from the body, which the response to a HEAD request lacks.
    """
    text = body.decode("utf-8", errors="replace")
    code = headers.get("x-ms-error-code") or _xml_element("Code", text) or None
    error_class, reason = (
        _BY_CODE.get(code or "") or _BY_STATUS.get(status) or _by_subject(subject, status, code)
    )
    message = _xml_element("Message", text).partition("\n")[0].strip()
    if detail := _SAS_TIME_DETAIL.search(text):
        message = detail[0].strip()
    if code == "AuthorizationFailure" and message.startswith("This request is not authorized"):
        error_class = PermissionDeniedError  # Azurite has the code for wrong signatures, too
    reason = reason or message or f"the service answered with status {status}"
    if error_class is PermissionDeniedError and (hint := _HINTS.get(code or "")):
        reason = f"{reason.rstrip('.')}; {hint}"
    if error_class is AuthenticationError:
        reason = f"the service refuses the credentials; it says: {reason}{clock_note(headers)}"
    error = subject.error(error_class, reason, code=code or str(status))
    if status in _TRANSIENT_STATUSES:
        return TransientError(error, retry_after(headers))
    return error


def _by_subject(
    subject: Subject, status: int, code: str | None
) -> tuple[type[ConnectorError], str]:
    if status == 404:
        # To anonymous callers, the service says of what is not public that it does not exist.
        note = ", or is not public" if code == "ResourceNotFound" else ""
        error_class = ConnectError if subject.name is None else ItemNotFoundError
        return error_class, f"it does not exist{note}"
    return (ConnectError if subject.name is None else DataFetchError), ""


def _xml_element(name: str, xml: str) -> str:
    """Return the text of an element; not parsed, as gateways answer with all kinds of bodies."""
    match = re.search(f"<{name}>(.*?)</{name}>", xml, re.DOTALL)
    return match[1] if match else ""
