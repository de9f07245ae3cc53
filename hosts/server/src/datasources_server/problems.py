"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import http
import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from datasources import (
    ConnectorError,
    CredentialError,
    DataSourceError,
    DataSourceExistsError,
    DataSourceNotFoundError,
    OptionError,
    PluginError,
    PolicyError,
    SecretRequiredError,
    StoreError,
    UnknownConnectorError,
    redact_text,
)

_log = logging.getLogger("datasources.server")

_HIDDEN = "the server cannot use this source now; its administrators can read why"

# The option of `datasources serve` that admits what a field of the policy refuses.
_OPTIONS = {
    "denied_networks": "--allow-network",
    "allowed_roots": "--allow-root",
    "allowed_references": "--allow-reference",
    "allow_ambient": "--allow-ambient",
}


class Problem(Exception):  # noqa: N818  (the name that RFC 9457 gives it)
    """An error that is answered with a problem document.

    Args:
        status: The status of the response.
        slug: The name of the error for programs; the end of the document's `type`.
        detail: One sentence; it does not repeat values of the request.
        errors: Objects with `pointer` and `detail`: parts of the request, and what is wrong there.
        headers: Of the response.
        members: More members of the document.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = members

    def to_dict(self, request_id: str) -> dict[str, Any]:
        """Return the problem document."""
        document = {
            "type": f"urn:datasources:error:{self.slug}",
            "title": self.slug.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:uuid:{request_id}",
            **self.members,
        }
        return document | ({"errors": self.errors} if self.errors else {})


class ProblemResponse(Response):
    """The response of a problem."""

    media_type = "application/problem+json"

    def __init__(self, problem: Problem, request_id: str) -> None:
        content = json.dumps(problem.to_dict(request_id)).encode()
        super().__init__(content, problem.status, problem.headers)


def invalid(pointer: str, detail: str) -> Problem:
    """Return the problem of one part of a request.

    Args:
        pointer: A JSON pointer into the body, such as `#/options`, or the name of a parameter.
        detail: The reason.
    """
    error = {"pointer": pointer, "detail": detail}
    return Problem(422, "request-invalid", f"{pointer}: {detail}", errors=[error])


def problem_of(error: Exception, *, is_admin: bool = False) -> Problem:
    """Return the problem of an error.

    Args:
        error: The error; the text of one that is not expected is logged and not shown.
        is_admin: True if the client may read about the store, keys and plugins.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _validation_problem(error)
    if isinstance(error, HTTPException):
        return _http_problem(error)
    if isinstance(error, DataSourceError):
        return _core_problem(error, is_admin=is_admin)
    text = "".join(traceback.format_exception(error))
    _log.error("unexpected error:\n%s", redact_text(text))
    return Problem(500, "unexpected-error", "the server failed; its log says why")


def _core_problem(error: DataSourceError, *, is_admin: bool) -> Problem:
    status, detail, headers = error.http_status, str(error), {}
    members: dict[str, Any] = {"retryable": error.retryable}
    errors = _errors_by_option(error)
    if isinstance(error, DataSourceNotFoundError):
        detail = "there is no such source, or it is not granted to you"
    elif isinstance(error, DataSourceExistsError):
        detail = "a source of this id exists already"
    elif isinstance(error, PolicyError) and error.rule is not None:
        members["setting"] = error.rule
        detail += _remedy(error.rule)
    elif isinstance(error, ConnectorError) and error.code is not None:
        members["code"] = error.code
    elif _is_internal(error):
        _log.error("%s: %s", error.slug, redact_text(detail))
        if not is_admin:
            detail = _HIDDEN
    if error.slug in ("conflict", "source-exists", "item-exists"):
        status = 412  # the routes that raise these demand If-Match or If-None-Match
    if status == 503 and error.retryable:
        headers["Retry-After"] = "1"
    return Problem(status, error.slug, detail, errors=errors, headers=headers, **members)


def error_dict(error: Exception | None, *, is_admin: bool) -> dict[str, Any] | None:
    """Return the error of a test of a connection; `is_admin` as for `problem_of`."""
    if not isinstance(error, DataSourceError):
        return None
    described: dict[str, Any] = error.to_dict()
    if _is_internal(error) and not is_admin:
        return described | {"message": _HIDDEN}
    if isinstance(error, PolicyError) and error.rule is not None:
        described["setting"] = error.rule
        described["message"] += _remedy(error.rule)
    return described


def _remedy(rule: str) -> str:
    """Return the settings that can admit what a field of the policy refuses."""
    option = _OPTIONS.get(rule)
    other = "" if option is None else f", or {option} of `datasources serve`"
    return f"; the policy's {rule!r}{other} can admit it"


def _errors_by_option(error: DataSourceError) -> list[dict[str, str]]:
    """Return the members `errors` of the problem of an error about options."""
    reasons: Mapping[str, str] = {}
    part = "options"
    if isinstance(error, SecretRequiredError):
        reason = (
            "must be given again, or removed: a stored secret is sent only to the destination that "
            "it was stored for, and this is another destination"
        )
        reasons = {f"/{_escape(name)}": reason for name in error.options}
    elif isinstance(error, OptionError):
        reasons, part = error.fields, error.part
    return [
        {"pointer": f"#/{part}{pointer}", "detail": reason} for pointer, reason in reasons.items()
    ]


def _is_internal(error: DataSourceError) -> bool:
    if isinstance(error, UnknownConnectorError):
        return False
    return isinstance(error, (StoreError, CredentialError, PluginError))


def _http_problem(error: HTTPException) -> Problem:
    phrase = http.HTTPStatus(error.status_code).phrase
    details = {
        404: "there is nothing at this address",
        405: "this address does not have the method",
        400: "the request cannot be read",
    }
    detail = details.get(error.status_code, phrase.lower())
    slug = phrase.lower().replace(" ", "-")
    return Problem(error.status_code, slug, detail, headers=error.headers)


def _validation_problem(error: RequestValidationError) -> Problem:
    """Return the problem of a malformed request; pydantic's texts quote no value but of tags."""
    errors = []
    for fault in error.errors():
        place, *path = fault["loc"]
        if fault["type"] == "json_invalid":
            path = []
        pointer = (
            "#" + "".join(f"/{_escape(str(name))}" for name in path)
            if place == "body"
            else ".".join(map(str, path))
        )
        errors.append({"pointer": pointer[:200], "detail": redact_text(str(fault["msg"]))[:200]})
    detail = "; ".join(f"{error['pointer']}: {error['detail']}" for error in errors[:3])
    return Problem(422, "request-invalid", detail, errors=errors[:20])


def _escape(name: str) -> str:
    """Return a name as a JSON pointer has it (RFC 6901, 3)."""
    return name.replace("~", "~0").replace("/", "~1")
