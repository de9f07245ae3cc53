"""Errors as a model sees them: one sentence, without control characters, of limited length."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

from datasources import (
    ConnectorError,
    CredentialError,
    DataSourceError,
    DataSourceNotFoundError,
    PluginError,
    StoreError,
    UnknownConnectorError,
    redact_text,
)

_MAX_LENGTH = 500  # characters of a sentence, which may quote what the source has said
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
    text = redact_text(str(error))
    if isinstance(error, ConnectorError) and error.code is not None:
        # The words of a server, which may quote a cell.
        return _failure(error, f"the source answers: {json.dumps(text[:_MAX_LENGTH])}")
    return _failure(error, _one_line(text))


def _failure(error: DataSourceError, message: str) -> dict[str, Any]:
    return {"slug": error.slug, "message": message, "retryable": error.retryable}


def _one_line(text: str) -> str:
    """Return a text of limited length without line ends and other control characters."""
    line = "".join(c if c.isprintable() else " " for c in text[:_MAX_LENGTH])
    return line if len(text) <= _MAX_LENGTH else f"{line}…"
