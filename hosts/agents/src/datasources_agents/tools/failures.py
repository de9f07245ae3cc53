"""Errors as a model sees them: one sentence, without control characters, of limited length."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

from datasources import (
    CredentialError,
    DataSourceError,
    DataSourceNotFoundError,
    PluginError,
    StoreError,
    UnknownConnectorError,
    redact_text,
)

_MAX_LENGTH = 500  # characters of a sentence, which may quote what the source has said
_NOT_PRINTABLE = re.compile(
    "[\x00-\x20\x7f-\xa0\u2028\u2029\u200b-\u200f\u202a-\u202e\ud800-\udfff]+"
)

_log = logging.getLogger("datasources.agents")


class ToolCallError(DataSourceError):
    """A call of a tool that cannot be answered."""

    slug = "tool-call-invalid"
    http_status = 422


class JobNotFoundError(ToolCallError):
    """There is no such job of this principal."""

    slug = "job-not-found"
    http_status = 404


class TooSlowError(ToolCallError):
    """A call has taken too long."""

    slug = "too-slow"
    http_status = 504
    retryable = True


def describe_failure(error: Exception) -> dict[str, Any]:
    """Return `slug`, `message` and `retryable` of an error.

    Texts of errors that are not expected, and of those about the store, keys and plugins, are
    logged and not shown.
    """
    if isinstance(error, DataSourceNotFoundError):
        return _failure(error, "there is no such source, or it is not granted to you")
    if not isinstance(error, DataSourceError):
        text = "".join(traceback.format_exception(error))
        _log.error("unexpected error in a tool:\n%s", redact_text(text))
        message = "the tool has failed; the log of its host says why"
        return {"slug": "unexpected-error", "message": message, "retryable": False}
    if isinstance(error, (StoreError, CredentialError, PluginError)) and not isinstance(
        error, UnknownConnectorError
    ):
        _log.error("%s: %s", error.slug, redact_text(str(error)))
        return _failure(error, "the source cannot be used now; the log of its host says why")
    return _failure(error, redact_text(str(error)))


def _failure(error: DataSourceError, text: str) -> dict[str, Any]:
    message = _NOT_PRINTABLE.sub(" ", text).strip()
    if len(message) > _MAX_LENGTH:
        message = message[:_MAX_LENGTH] + "…"
    return {"slug": error.slug, "message": message, "retryable": error.retryable}
