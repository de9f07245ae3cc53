"""The exceptions of this project, in one tree.

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
```

A message is one sentence: what is wrong, with which source, item or option, and what is possible.
It holds no secret.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping


class DataSourceError(Exception):
    """Base of every exception that core and connectors raise on purpose."""

    slug: str = "data-source-error"
    """The name of the error for programs: stable, in lower case with hyphens. A subclass without
    one has that of its base."""
    http_status: int = 500
    """The status of an HTTP response about the error."""
    retryable: bool = False
    """True if the same call may work later without a change of anything."""

    def to_dict(self) -> dict[str, object]:
        """Return `slug`, `message`, `http_status` and `retryable`; a connector's error, its `code`."""
        return {
            "slug": self.slug,
            "message": str(self),
            "http_status": self.http_status,
            "retryable": self.retryable,
        }

    @staticmethod
    def from_dict(values: Mapping[str, object]) -> DataSourceError:
        """Return the error that `to_dict` has described.

        A slug that is not known here, such as one of a later version, gives a `DataSourceError`
        with the slug, status and `retryable` of the description.
        """
        slug, message = str(values.get("slug")), str(values.get("message", ""))
        error_class = _classes_by_slug().get(slug)
        if error_class is None:
            error = DataSourceError(message)
            error.slug = slug
            status = values.get("http_status")
            if isinstance(status, int):
                error.http_status = status
            error.retryable = values.get("retryable") is True
            return error
        fields = values.get("fields")
        if issubclass(error_class, OptionError) and isinstance(fields, dict):
            error = error_class(message, fields={str(k): str(v) for k, v in fields.items()})
            error.part = str(values.get("part", error.part))
            return error
        if issubclass(error_class, ConnectorError):
            code = values.get("code")
            return error_class(message, code=None if code is None else str(code))
        return error_class(message)


class OptionError(DataSourceError):
    """Raised when an argument, a setting or an option is unknown, missing or not of its type.

    Nothing has been stored or changed by then.

    Args:
        message: The sentence for people.
        fields: As the attribute.
        part: As the attribute.
    """

    slug = "option-invalid"
    http_status = 422

    def __init__(
        self,
        message: str = "",
        *,
        fields: Mapping[str, str] | None = None,
        part: str = "options",
    ) -> None:
        super().__init__(message)
        self.fields: dict[str, str] = dict(fields or {})
        """The reasons by option of a source: JSON pointers (RFC 6901) into the options, such as
        `/tls/key`. Empty if the error is about something else than single options."""
        self.part = part
        """The part of the source that `fields` points into: `options`, or `queries`, as with
        `/monthly/text`."""

    @property
    def field(self) -> str | None:
        """The JSON pointer of the first option that is wrong; None if no single one is."""
        return next(iter(self.fields), None)

    def to_dict(self) -> dict[str, object]:
        """Return what the base does, and `fields` if there are some, with `part`."""
        fields = {"fields": dict(self.fields), "part": self.part} if self.fields else {}
        return super().to_dict() | fields


class RegistryError(DataSourceError):
    """Base of the errors about source ids; also for workspace sessions and missing abilities."""

    slug = "registry-error"
    http_status = 409


class DataSourceNotFoundError(RegistryError):
    """Raised by every registry call with a source id that is not registered."""

    slug = "source-not-found"
    http_status = 404


class UnsupportedError(RegistryError):
    """Raised when a source's connector does not have the optional ability that a call needs."""

    slug = "not-supported"
    http_status = 501


class DataSourceExistsError(RegistryError):
    """Raised when a source id is registered already; the source that has it is unchanged."""

    slug = "source-exists"
    http_status = 409


class CursorError(OptionError):
    """Raised when a cursor of a listing is forged, expired, or belongs to another listing."""

    slug = "cursor-invalid"
    http_status = 422


class ConflictError(RegistryError):
    """Raised when a source is not of the version that an update expects; nothing was changed."""

    slug = "conflict"
    http_status = 409


class SourcePausedError(RegistryError):
    """Raised by the operations of a source that is paused; its message gives the reason."""

    slug = "source-paused"
    http_status = 409


class PluginError(DataSourceError):
    """Base of the errors of one plugin; other plugins are not affected."""

    slug = "plugin-error"
    http_status = 500


class UnknownConnectorError(PluginError):
    """Raised when no plugin that is installed and enabled offers a source's type."""

    slug = "connector-unknown"
    http_status = 422


class PluginConflictError(PluginError):
    """Raised when several distributions offer a source's type and the host prefers none."""

    slug = "plugin-conflict"
    http_status = 500


class PluginLoadError(PluginError):
    """Raised when importing a plugin fails or takes too long; the cause is chained."""

    slug = "plugin-load-failed"
    http_status = 500


class PluginIncompatibleError(PluginError):
    """Raised when a plugin was written for another `api_version` or another version of core."""

    slug = "plugin-incompatible"
    http_status = 500


class CredentialError(DataSourceError):
    """Base of the errors of encryption keys and of secrets."""

    slug = "credential-error"
    http_status = 500


class MissingKeyError(CredentialError):
    """Raised when an encryption key is missing, malformed, or not the one the store is under."""

    slug = "key-missing"
    http_status = 500


class DecryptionError(CredentialError):
    """Raised when a ciphertext cannot be decrypted: wrong key, damage, or another source's."""

    slug = "decryption-failed"
    http_status = 500


class SecretNotFoundError(CredentialError):
    """Raised at connect when a reference such as `${env:NAME}` cannot be resolved."""

    slug = "secret-not-found"
    http_status = 500


class StoreError(DataSourceError):
    """Raised when the store of configurations cannot be read or written."""

    slug = "store-failed"
    http_status = 503
    retryable = True


class PoolError(DataSourceError):
    """Base of the errors of connection pools; also raised when a pool is misused."""

    slug = "pool-error"
    http_status = 503


class PoolTimeoutError(PoolError):
    """Raised by `acquire` when no connection became free within the timeout."""

    slug = "pool-timeout"
    http_status = 503
    retryable = True


class PoolClosedError(PoolError):
    """Raised by `acquire` on a closed pool, and in calls that wait when the pool is closed."""

    slug = "pool-closed"
    http_status = 503
    retryable = True


class PolicyError(DataSourceError):
    """Raised when a host, network, path, reference or statement is not allowed.

    Nothing outside has been contacted or changed by then.
    """

    slug = "not-allowed"
    http_status = 403

    def __init__(self, message: str, *, rule: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        """The field of `Policy` that does not allow it; None if it is another rule."""


class SecretRequiredError(PolicyError):
    """Raised when an update would send secrets to a destination that they were not given for.

    Nothing was changed. The same update with every secret in it is accepted.
    """

    slug = "secret-required"
    http_status = 409

    def __init__(self, message: str, *, options: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.options = options
        """The names of the options that the update must give again."""


class ConnectorError(DataSourceError):
    """Base of the errors of outside systems, to which connectors map their drivers' errors."""

    slug = "source-failed"
    http_status = 502

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The system's own code, such as an SQLSTATE; `None` if it gave none."""

    def to_dict(self) -> dict[str, object]:
        """Return what that of `DataSourceError` does, and the `code`."""
        return super().to_dict() | {"code": self.code}


class ConnectError(ConnectorError):
    """Raised when the system cannot be reached, or has no such database or container."""

    slug = "source-unreachable"
    http_status = 502
    retryable = True


class AuthenticationError(ConnectorError):
    """Raised when the system refuses the credentials; the same ones will be refused again."""

    slug = "source-login-refused"
    http_status = 502


class PermissionDeniedError(ConnectorError):
    """Raised when the credentials are valid but do not allow the operation."""

    slug = "source-permission-denied"
    http_status = 502


class ItemNotFoundError(ConnectorError):
    """Raised when the source has no item with the identifier."""

    slug = "item-not-found"
    http_status = 404


class DataFetchError(ConnectorError):
    """Raised when a transfer fails; it leaves no file, and an older file of that name as it was."""

    slug = "fetch-failed"
    http_status = 502


class ItemExistsError(DataFetchError):
    """Raised when an upload that may not overwrite finds an item of that name."""

    slug = "item-exists"
    http_status = 409


class LimitExceededError(ConnectorError):
    """Raised when an operation reaches a limit of the host; it leaves no file."""

    slug = "limit-exceeded"
    http_status = 413


def _classes_by_slug() -> dict[str, type[DataSourceError]]:
    """Return the classes that have a slug of their own, those of plugins included."""
    classes: dict[str, type[DataSourceError]] = {}
    pending = [DataSourceError]
    while pending:
        error_class = pending.pop()
        if "slug" in vars(error_class):
            classes.setdefault(error_class.slug, error_class)
        pending += error_class.__subclasses__()
    return classes
