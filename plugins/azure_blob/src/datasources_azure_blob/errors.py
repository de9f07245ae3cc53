"""Every failure of the service and of the way to it, mapped to this project's errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time

from datasources import (
    AuthenticationError,
    ConnectError,
    ConnectorError,
    DataFetchError,
    ItemNotFoundError,
    PermissionDeniedError,
    redact_text,
)

# The service's error code, or else its status, gives the error class and the reason; an empty
# reason is the service's own words.
# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
_BY_CODE: dict[str, tuple[type[ConnectorError], str]] = {
    "AccountIsDisabled": (ConnectError, "the storage account is disabled"),
    "AuthorizationPermissionMismatch": (PermissionDeniedError, ""),
    "AuthorizationProtocolMismatch": (PermissionDeniedError, ""),
    "AuthorizationResourceTypeMismatch": (PermissionDeniedError, ""),
    "AuthorizationServiceMismatch": (PermissionDeniedError, ""),
    "AuthorizationSourceIPMismatch": (PermissionDeniedError, ""),
    "BlobAlreadyExists": (DataFetchError, "it exists already, and overwriting is off"),
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
_BY_STATUS: dict[int, tuple[type[ConnectorError], str]] = {
    401: (AuthenticationError, ""),
    403: (AuthenticationError, ""),
    407: (ConnectError, "the proxy asks for credentials"),
    412: (DataFetchError, "it changed while it was read; fetch it again"),
}
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_MOST_SKEW = 15  # minutes
# The service explains an expired or premature SAS in a detail; other details hold signatures.
_TIME_DETAIL = re.compile(r"Sign(?:ature not valid|ed expiry time|ed start time)[^<\n]*")


class TransientError(Exception):
    """A failure that another attempt may not have; `error` is what it is if all have it."""

    def __init__(self, error: ConnectorError, retry_after: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about, for messages."""

    container: str
    blob: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        if self.blob is None:
            return f"container {self.container!r}"
        return f"blob {self.blob!r} of container {self.container!r}"

    def error(
        self, kind: Callable[..., ConnectorError], reason: str, *, code: str | None = None
    ) -> ConnectorError:
        """Return an error that names the subject, with secrets taken out of the reason."""
        return kind(f"{self}: {redact_text(reason, self.secrets)}", code=code)


def refused(
    subject: Subject, status: int, headers: Mapping[str, str], body: bytes | bytearray
) -> ConnectorError | TransientError:
    """Return the error for an answer that is not a success; `TransientError` if it may pass."""
    text = body.decode("utf-8", errors="replace")
    code = headers.get("x-ms-error-code") or _element("Code", text) or None
    kind, reason = (
        _BY_CODE.get(code or "") or _BY_STATUS.get(status) or _default(subject, status, code)
    )
    message = _element("Message", text).partition("\n")[0].strip()
    if detail := _TIME_DETAIL.search(text):
        message = detail[0].strip()
    reason = reason or message or f"the service answered with status {status}"
    if kind is AuthenticationError:
        reason = f"the service refuses the credentials; it says: {reason}{_skew(headers)}"
    error = subject.error(kind, reason, code=code or str(status))
    return TransientError(error, _retry_after(headers)) if status in _TRANSIENT else error


def _default(subject: Subject, status: int, code: str | None) -> tuple[type[ConnectorError], str]:
    if status == 404:
        hidden = ", or is not public" if code == "ResourceNotFound" else ""
        kind = ConnectError if subject.blob is None else ItemNotFoundError
        return kind, f"it does not exist{hidden}"
    return (ConnectError if subject.blob is None else DataFetchError), ""


def _skew(headers: Mapping[str, str]) -> str:
    """Return a remark where the clocks differ by more than the service lets a signature differ."""
    try:
        there = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except ValueError:
        return ""
    minutes = abs(time() - there) / 60
    return f" (this machine's clock is {minutes:.0f} minutes off)" if minutes > _MOST_SKEW else ""


def _element(name: str, xml: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", xml, re.DOTALL)
    return found[1] if found else ""


def _retry_after(headers: Mapping[str, str]) -> float:
    value = headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return 0.0
