"""Map error responses of S3 and STS to the errors of `datasources`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape

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

_CHANGED = (DataFetchError, "it changed while it was read; fetch it again")
_EXISTS = (ItemExistsError, "it exists already, and overwriting is off")
# Error class and reason by error code. With an empty reason, the message of the service is used.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_BY_CODE: dict[str, tuple[type[ConnectorError], str]] = {
    "AccessDenied": (PermissionDeniedError, "the credentials do not allow it"),
    "AccountProblem": (PermissionDeniedError, ""),
    "AllAccessDisabled": (PermissionDeniedError, "all access to it is disabled"),
    "AuthorizationHeaderMalformed": (AuthenticationError, ""),
    "ExpiredToken": (AuthenticationError, "the session token has expired"),
    "ExpiredTokenException": (AuthenticationError, "the token has expired"),
    "InvalidAccessKeyId": (AuthenticationError, "it has no such key"),
    "InvalidClientTokenId": (AuthenticationError, "it has no such key"),
    "InvalidBucketName": (ConnectError, "the service takes no bucket of that name"),
    "InvalidIdentityToken": (AuthenticationError, ""),
    "InvalidObjectState": (DataFetchError, "it is archived; restore it first"),
    "InvalidRange": (DataFetchError, "it has no such range"),
    "InvalidToken": (AuthenticationError, "the session token is not valid"),
    "KMS.DisabledException": (PermissionDeniedError, "its encryption key is disabled"),
    "NoSuchBucket": (ConnectError, "the bucket does not exist"),
    "NoSuchKey": (ItemNotFoundError, "it does not exist"),
    "NoSuchVersion": (ItemNotFoundError, "it has no such version"),
    "NotSignedUp": (PermissionDeniedError, ""),
    "PreconditionFailed": _CHANGED,
    "RequestTimeTooSkewed": (AuthenticationError, ""),
    "SignatureDoesNotMatch": (
        AuthenticationError,
        "the signature is not made with the secret of the key",
    ),
}
_BY_STATUS: dict[int, tuple[type[ConnectorError], str]] = {
    301: (ConnectError, "the bucket is in another region"),
    307: (ConnectError, "the bucket is in another region"),
    401: (AuthenticationError, ""),
    403: (PermissionDeniedError, "the credentials do not allow it"),
    407: (ConnectError, "the proxy asks for credentials"),
    412: _CHANGED,
}
_TRANSIENT_STATUSES = {408, 409, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "IDPCommunicationError",
    "InternalError",
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidAccessKeyId"}
"""Codes after which newer credentials may be accepted."""


def error_from_response(
    subject: ObjectSubject,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    is_upload: bool = False,
) -> ConnectorError | TransientError:
    """Return the error for a response that is not a success.

    It is a `TransientError` if the request may be sent again. The responses to HEAD requests have
    no body, hence no code. With `is_upload`, a failed condition means that the object exists.
    """
    text = body.decode("utf-8", errors="replace")
    code = xml_element("Code", text) or None
    by_subject = _by_subject(subject, status)
    error_class, reason = _BY_CODE.get(code or "") or _BY_STATUS.get(status) or by_subject
    if is_upload and (status == 412 or code == "PreconditionFailed"):
        error_class, reason = _EXISTS
    message = xml_element("Message", text).partition("\n")[0].strip().rstrip(".")
    reason = reason or message or f"the service answered with status {status}"
    if region := _other_region(headers, text, status, code):
        error_class, reason = ConnectError, f"the bucket is in the region {region!r}; set 'region'"
    if headers.get("x-amz-delete-marker") == "true":
        error_class, reason = ItemNotFoundError, "it was deleted"
    if error_class is AuthenticationError:
        reason = f"the service refuses the credentials; it says: {reason}{clock_note(headers)}"
    error = subject.error(error_class, reason, code=code or str(status))
    conflict = code == "ConditionalRequestConflict" and is_upload
    if (status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES) and (status != 409 or conflict):
        return TransientError(error, retry_after(headers))
    return error


def xml_element(name: str, xml: str) -> str:
    """Return the text of an element; not parsed, as gateways answer with all kinds of bodies."""
    match = re.search(f"<{name}>(.*?)</{name}>", xml, re.DOTALL)
    return unescape(match[1]) if match else ""


def _by_subject(subject: ObjectSubject, status: int) -> tuple[type[ConnectorError], str]:
    if status == 404:
        error_class = ConnectError if subject.name is None else ItemNotFoundError
        return error_class, "it does not exist"
    return (ConnectError if subject.name is None else DataFetchError), ""


def _other_region(
    headers: Mapping[str, str], text: str, status: int, code: str | None
) -> str | None:
    """Return the region that a refusal names as the bucket's own; None for any other refusal."""
    if status not in (301, 307) and code not in ("AuthorizationHeaderMalformed", "IllegalLocation"):
        return None
    region = headers.get("x-amz-bucket-region") or xml_element("Region", text)
    return region if re.fullmatch(r"[A-Za-z0-9-]{1,40}", region) else None
