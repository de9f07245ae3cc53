"""Map error responses of Google Cloud Storage to the errors of `datasources`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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

# Error class and reason by HTTP status, which is what the service documents; the code of an error is
# the `reason` of its body. https://cloud.google.com/storage/docs/json_api/v1/status-codes
_BY_STATUS: dict[int, tuple[type[ConnectorError], str]] = {
    401: (AuthenticationError, ""),
    403: (PermissionDeniedError, ""),
    407: (ConnectError, "the proxy asks for credentials"),
    412: (DataFetchError, "it changed while it was read; fetch it again"),
}
_BY_CODE: dict[str, tuple[type[ConnectorError], str]] = {
    "invalid_client": (AuthenticationError, ""),
    "invalid_grant": (AuthenticationError, ""),
    "userProjectMissing": (PermissionDeniedError, "it needs 'requester_pays' and 'project'"),
}
_EXISTS = (ItemExistsError, "it exists already, and overwriting is off")
_NO_BUCKET = "The specified bucket does not exist"
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}


def error_from_response(
    subject: ObjectSubject,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    is_upload: bool = False,
) -> ConnectorError | TransientError:
    """Return the error for a response that is not a success.

    It is a `TransientError` if the request may be sent again. With `is_upload`, a failed condition
    means that the object exists.
    """
    code, message = _code_and_message(body)
    error_class, reason = (
        _BY_CODE.get(code or "") or _BY_STATUS.get(status) or _by_subject(subject, status, message)
    )
    if is_upload and status == 412:
        error_class, reason = _EXISTS
    reason = reason or message.rstrip(".") or f"the service answered with status {status}"
    if error_class is AuthenticationError:
        reason = f"the service refuses the credentials; it says: {reason}{clock_note(headers)}"
    error = subject.error(error_class, reason, code=code or str(status))
    if status in _TRANSIENT_STATUSES:
        return TransientError(error, retry_after(headers))
    return error


def _by_subject(
    subject: ObjectSubject, status: int, message: str
) -> tuple[type[ConnectorError], str]:
    if status == 404:
        if subject.name is None or _NO_BUCKET in message:
            return ConnectError, "the bucket does not exist"
        return ItemNotFoundError, "it does not exist"
    return (ConnectError if subject.name is None else DataFetchError), ""


def _code_and_message(body: bytes) -> tuple[str | None, str]:
    """Return the reason and the first line of the message in an error; None and a text otherwise."""
    try:
        error: Any = json.loads(body)["error"]
        if isinstance(error, str):  # of the token service
            return error, str(json.loads(body).get("error_description", error))
        reasons = error.get("errors") or [{}]
        message = str(error.get("message", "")).partition("\n")[0]
        return reasons[0].get("reason"), message
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        text = body.decode(errors="replace")
        return None, text if _NO_BUCKET in text else ""
