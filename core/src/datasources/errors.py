"""The exceptions of this project, in one tree.

```
DataSourceError
  OptionError
  RegistryError          DataSourceNotFoundError, DataSourceExistsError, ConflictError,
                         SourcePausedError
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


class DataSourceError(Exception):
    """Base of every exception that core and connectors raise on purpose."""


class OptionError(DataSourceError):
    """Raised when an argument, a setting or an option is unknown, missing or not of its type.

    Nothing has been stored or changed by then.
    """


class RegistryError(DataSourceError):
    """Base of the errors about source ids; also for workspace sessions and missing abilities."""


class DataSourceNotFoundError(RegistryError):
    """Raised by every registry call with a source id that is not registered."""


class DataSourceExistsError(RegistryError):
    """Raised when a source id is registered already; the source that has it is unchanged."""


class ConflictError(RegistryError):
    """Raised when a source is not of the version that an update expects; nothing was changed."""


class SourcePausedError(RegistryError):
    """Raised by the operations of a source that is paused; its message gives the reason."""


class PluginError(DataSourceError):
    """Base of the errors of one plugin; other plugins are not affected."""


class UnknownConnectorError(PluginError):
    """Raised when no plugin that is installed and enabled offers a source's type."""


class PluginConflictError(PluginError):
    """Raised when several distributions offer a source's type and the host prefers none."""


class PluginLoadError(PluginError):
    """Raised when importing a plugin fails or takes too long; the cause is chained."""


class PluginIncompatibleError(PluginError):
    """Raised when a plugin was written for another `api_version` or another version of core."""


class CredentialError(DataSourceError):
    """Base of the errors of encryption keys and of secrets."""


class MissingKeyError(CredentialError):
    """Raised when an encryption key is missing, malformed, or not the one the store is under."""


class DecryptionError(CredentialError):
    """Raised when a ciphertext cannot be decrypted: wrong key, damage, or another source's."""


class SecretNotFoundError(CredentialError):
    """Raised at connect when a reference such as `${env:NAME}` cannot be resolved."""


class StoreError(DataSourceError):
    """Raised when the store of configurations cannot be read or written."""


class PoolError(DataSourceError):
    """Base of the errors of connection pools; also raised when a pool is misused."""


class PoolTimeoutError(PoolError):
    """Raised by `acquire` when no connection became free within the timeout."""


class PoolClosedError(PoolError):
    """Raised by `acquire` on a closed pool, and in calls that wait when the pool is closed."""


class PolicyError(DataSourceError):
    """Raised when a host, network, path, reference or statement is not allowed.

    Nothing outside has been contacted or changed by then.
    """


class SecretRequiredError(PolicyError):
    """Raised when an update would send secrets to a destination that they were not given for.

    Nothing was changed. The same update with every secret in it is accepted.
    """

    def __init__(self, message: str, *, options: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.options = options
        """The names of the options that the update must give again."""


class ConnectorError(DataSourceError):
    """Base of the errors of outside systems, to which connectors map their drivers' errors."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The system's own code, such as an SQLSTATE; `None` if it gave none."""


class ConnectError(ConnectorError):
    """Raised when the system cannot be reached, or has no such database or container."""


class AuthenticationError(ConnectorError):
    """Raised when the system refuses the credentials; the same ones will be refused again."""


class PermissionDeniedError(ConnectorError):
    """Raised when the credentials are valid but do not allow the operation."""


class ItemNotFoundError(ConnectorError):
    """Raised when the source has no item with the identifier."""


class DataFetchError(ConnectorError):
    """Raised when a transfer fails; it leaves no file, and an older file of that name as it was."""


class LimitExceededError(ConnectorError):
    """Raised when an operation reaches a limit of the host; it leaves no file."""
