"""The exceptions of the client, in one tree; those of the core have the same names there.

```
DataSourceError
  OptionError            CursorError
  RegistryError          DataSourceNotFoundError, DataSourceExistsError, UnsupportedError,
                         ConflictError, SourcePausedError
  PluginError            UnknownConnectorError, PluginConflictError, PluginLoadError,
                         PluginIncompatibleError
  CredentialError        MissingKeyError, DecryptionError, SecretNotFoundError
  StoreError
  PoolError              PoolTimeoutError, PoolClosedError
  PolicyError            SecretRequiredError
  ConnectorError         ConnectError, AuthenticationError, PermissionDeniedError,
                         ItemNotFoundError, DataFetchError, LimitExceededError
    DataFetchError       ItemExistsError
  ServerError            ServerUnreachableError, ServerTimeoutError, ResponseError
                         (of the client itself: no problem document says them)
```

No exception holds the token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_TYPE_PREFIX = "urn:datasources:error:"
_INSTANCE_PREFIX = "urn:uuid:"
_LONGEST_TEXT = 2000  # characters of a server's text in an exception


class FieldError(NamedTuple):
    """A part of a request that is wrong."""

    pointer: str
    """A JSON pointer into the body, such as `#/options/port`, or the name of a parameter."""
    detail: str
    """The reason."""


class DataSourceError(Exception):
    """Base of all exceptions of the client; also raised for errors that have no class here."""

    slug: str = "data-source-error"
    """The name of the error for programs: the end of the problem document's `type`."""

    def __init__(
        self,
        detail: str,
        *,
        slug: str | None = None,
        status: int | None = None,
        retryable: bool = False,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        code: str | None = None,
        setting: str | None = None,
    ) -> None:
        super().__init__(detail)
        if slug is not None:
            self.slug = slug
        self.detail = detail
        """One sentence."""
        self.status = status
        """The status of the response; None if there was none."""
        self.retryable = retryable
        """True if the same call may work later without a change of anything."""
        self.errors = tuple(errors)
        """The parts of the request that are wrong, if the server names them."""
        self.request_id = request_id
        """The id of the request in the server's log and audit trail."""
        self.retry_after = retry_after
        """Seconds after which the server asks to try again; None if it names none."""
        self.code = code
        """The outside system's own code, such as an SQLSTATE; None if there is none."""
        self.setting = setting
        """The field of the server's policy that does not allow the request; None if it is another
        rule."""


class OptionError(DataSourceError):
    """Raised when an argument, a setting or an option is unknown, missing or not of its type."""

    slug = "option-invalid"


class CursorError(OptionError):
    """Raised when a cursor of a listing is forged, expired, or belongs to another listing."""

    slug = "cursor-invalid"


class RegistryError(DataSourceError):
    """Base of the errors about source ids and missing abilities."""

    slug = "registry-error"


class DataSourceNotFoundError(RegistryError):
    """Raised when there is no such source, or it is not granted."""

    slug = "source-not-found"


class DataSourceExistsError(RegistryError):
    """Raised when a source id is taken; the source that has it is unchanged."""

    slug = "source-exists"


class UnsupportedError(RegistryError):
    """Raised when a source's connector does not have the ability that a call needs."""

    slug = "not-supported"


class ConflictError(RegistryError):
    """Raised when a source is not of the version that a change expects; nothing was changed."""

    slug = "conflict"


class SourcePausedError(RegistryError):
    """Raised by the operations of a source that is paused; the message gives the reason."""

    slug = "source-paused"


class PluginError(DataSourceError):
    """Base of the errors of one plugin of the server."""

    slug = "plugin-error"


class UnknownConnectorError(PluginError):
    """Raised when no plugin of the server offers a source's type."""

    slug = "connector-unknown"


class PluginConflictError(PluginError):
    """Raised when several plugins offer a source's type and the server prefers none."""

    slug = "plugin-conflict"


class PluginLoadError(PluginError):
    """Raised when importing a plugin fails or takes too long."""

    slug = "plugin-load-failed"


class PluginIncompatibleError(PluginError):
    """Raised when a plugin was written for another version of the server's core."""

    slug = "plugin-incompatible"


class CredentialError(DataSourceError):
    """Base of the errors of the server's encryption keys and secrets."""

    slug = "credential-error"


class MissingKeyError(CredentialError):
    """Raised when the server's encryption key is missing or another one."""

    slug = "key-missing"


class DecryptionError(CredentialError):
    """Raised when the server cannot decrypt a source."""

    slug = "decryption-failed"


class SecretNotFoundError(CredentialError):
    """Raised when a reference such as `${env:NAME}` cannot be resolved."""

    slug = "secret-not-found"


class StoreError(DataSourceError):
    """Raised when the server's store of sources cannot be read or written."""

    slug = "store-failed"


class PoolError(DataSourceError):
    """Base of the errors of the server's connection pools."""

    slug = "pool-error"


class PoolTimeoutError(PoolError):
    """Raised when no connection to a source became free in time."""

    slug = "pool-timeout"


class PoolClosedError(PoolError):
    """Raised when a source was closed while the request waited for it."""

    slug = "pool-closed"


class PolicyError(DataSourceError):
    """Raised when a host, network, path, reference or statement is not allowed; see `setting`."""

    slug = "not-allowed"


class SecretRequiredError(PolicyError):
    """Raised when a change would send secrets elsewhere; `errors` names those to give again."""

    slug = "secret-required"


class ConnectorError(DataSourceError):
    """Base of the errors of outside systems; see `code`."""

    slug = "source-failed"


class ConnectError(ConnectorError):
    """Raised when the outside system cannot be reached, or has no such database or container."""

    slug = "source-unreachable"


class AuthenticationError(ConnectorError):
    """Raised when the outside system refuses the credentials of the source."""

    slug = "source-login-refused"


class PermissionDeniedError(ConnectorError):
    """Raised when the credentials of the source do not allow the operation."""

    slug = "source-permission-denied"


class ItemNotFoundError(ConnectorError):
    """Raised when the source has no item with the identifier."""

    slug = "item-not-found"


class DataFetchError(ConnectorError):
    """Raised when a transfer from the outside system fails."""

    slug = "fetch-failed"


class ItemExistsError(DataFetchError):
    """Raised when an upload that may not overwrite finds an item of that name."""

    slug = "item-exists"


class LimitExceededError(ConnectorError):
    """Raised when an operation reaches a limit of the server."""

    slug = "limit-exceeded"


class ServerError(DataSourceError):
    """Base of the failures between client and server, which no problem document describes."""

    slug = "server-failed"


class ServerUnreachableError(ServerError):
    """Raised when the server cannot be reached, or its certificate is not trusted.

    Nothing was sent.
    """

    slug = "server-unreachable"


class ServerTimeoutError(ServerError):
    """Raised when the server is silent for longer than the time-out."""

    slug = "server-timeout"


class ResponseError(ServerError):
    """Raised for a response that is cut off, malformed, a redirect, or not one of the API."""

    slug = "response-invalid"


def error_from_problem(
    document: Mapping[str, Any], status: int, retry_after: float | None
) -> DataSourceError:
    """Return the error that a problem document (RFC 9457) describes.

    Args:
        document: Any JSON object; members of other types than they should have are ignored.
        status: The status of the response.
        retry_after: Seconds of the header `Retry-After`.
    """
    errors = document.get("errors")
    instance = _text(document, "instance")
    return _error(
        (_text(document, "type") or "").removeprefix(_TYPE_PREFIX),
        _text(document, "detail"),
        document,
        status=status,
        retry_after=retry_after,
        errors=list(_field_errors(errors if isinstance(errors, list) else [])),
        request_id=instance.removeprefix(_INSTANCE_PREFIX) if instance else None,
    )


def error_from_dict(values: Mapping[str, Any]) -> DataSourceError:
    """Return the error that the core's `DataSourceError.to_dict` describes."""
    status = values.get("http_status")
    return _error(
        _text(values, "slug") or "",
        _text(values, "message"),
        values,
        status=status if isinstance(status, int) else None,
    )


def printable(text: str) -> str:
    """Return a server's text in one line, bounded, and without control characters."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _error(
    slug: str, detail: str | None, members: Mapping[str, Any], **arguments: Any
) -> DataSourceError:
    error_class = _classes_by_slug().get(slug, DataSourceError)
    return error_class(
        detail or f"the server answered with the error {slug!r}",
        slug=slug or None,
        retryable=members.get("retryable") is True,
        code=_text(members, "code"),
        setting=_text(members, "setting"),
        **arguments,
    )


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    return printable(value) if isinstance(value, str) else None


def _field_errors(values: Sequence[object]) -> Iterator[FieldError]:
    for value in values:
        if isinstance(value, dict):
            yield FieldError(_text(value, "pointer") or "", _text(value, "detail") or "")


def _classes_by_slug() -> dict[str, type[DataSourceError]]:
    classes: dict[str, type[DataSourceError]] = {}
    pending: list[type[DataSourceError]] = [DataSourceError]
    while pending:
        error_class = pending.pop()
        # A server does not decide what the client says of its own.
        if not issubclass(error_class, ServerError):
            classes[error_class.slug] = error_class
            pending += error_class.__subclasses__()
    return classes
