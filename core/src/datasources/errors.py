"""Every error this project raises, in one tree.

```
DataSourceError
  OptionError
  RegistryError          DataSourceNotFoundError, DataSourceExistsError
  PluginError            UnknownConnectorError, PluginConflictError, PluginLoadError,
                         PluginIncompatibleError
  CredentialError        MissingKeyError, DecryptionError, SecretNotFoundError
  StoreError
  PoolError              PoolTimeoutError, PoolClosedError
  PolicyError
  ConnectorError         ConnectError, AuthenticationError, PermissionDeniedError,
                         ItemNotFoundError, DataFetchError, LimitExceededError
```

A message is one sentence: what is wrong, with which thing, and what is possible.  It never
carries a secret.
"""


class DataSourceError(Exception):
    """The root: catch it to catch everything raised on purpose by core and connectors."""


class OptionError(DataSourceError):
    """Raised by validation, before anything is stored: an unknown, missing or ill-typed value."""


class RegistryError(DataSourceError):
    """The registry cannot do what was asked with this source id."""


class DataSourceNotFoundError(RegistryError):
    """Raised by every registry call that takes a source id which is not registered."""


class DataSourceExistsError(RegistryError):
    """Raised on registering an id that is taken; what was registered stays as it was."""


class PluginError(DataSourceError):
    """A plugin cannot serve; other plugins are not affected."""


class UnknownConnectorError(PluginError):
    """Raised when no installed, enabled plugin offers the type asked for."""


class PluginConflictError(PluginError):
    """Raised when several distributions claim the type asked for and the host prefers none."""


class PluginLoadError(PluginError):
    """Raised when importing the plugin asked for fails; the cause is chained."""


class PluginIncompatibleError(PluginError):
    """Raised when the plugin was written for another `api_version`, or another version of core."""


class CredentialError(DataSourceError):
    """Keys or secrets cannot be used."""


class MissingKeyError(CredentialError):
    """Raised when an encryption key is needed and none was given, or the one given is malformed."""


class DecryptionError(CredentialError):
    """Raised when a ciphertext does not open: wrong key, damage, or a record of another source."""


class SecretNotFoundError(CredentialError):
    """Raised at connect when a reference such as `${env:NAME}` leads nowhere."""


class StoreError(DataSourceError):
    """Raised when the store of configurations cannot be read or written."""


class PoolError(DataSourceError):
    """A connection pool was used against its rules."""


class PoolTimeoutError(PoolError):
    """Raised by `acquire` when no connection came free within the timeout."""


class PoolClosedError(PoolError):
    """Raised by `acquire`, and to waiters, once the pool is closed."""


class PolicyError(DataSourceError):
    """Raised before any effect when a host, network, path or statement is not allowed."""


class ConnectorError(DataSourceError):
    """The outside system, or the way to it, failed; connectors map driver errors to these."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """The outside system's own code (SQLSTATE, service error code), where it gave one."""


class ConnectError(ConnectorError):
    """Raised when the system cannot be reached or has no such database or container."""


class AuthenticationError(ConnectorError):
    """Raised when the system refuses the credentials; retrying with the same ones is useless."""


class PermissionDeniedError(ConnectorError):
    """Raised when the credentials are good but do not allow this operation."""


class ItemNotFoundError(ConnectorError):
    """Raised when the source has no item of that identifier."""


class DataFetchError(ConnectorError):
    """Raised when the transfer itself failed; no file was left, an older one is untouched."""


class LimitExceededError(ConnectorError):
    """Raised when a limit of the host ended the operation; no file was left."""
