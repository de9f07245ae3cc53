"""Errors of connectors as hosts get them: a `DataSourceError`, with the source's secrets masked."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import NoReturn, TypeVar

from datasources.connector import DataSourceConnector
from datasources.errors import ConnectorError, DataSourceError
from datasources.masking import mask_error, mask_secrets
from datasources.models import DataSourceConfig
from datasources.nested import leaves
from datasources.redaction import is_secret_name, redact_text

E = TypeVar("E", bound=BaseException)


def mask_connector_error(connector: DataSourceConnector, error: E) -> E | ConnectorError:
    """Mask the secrets of a connector's options in an error that it raised, and in its causes.

    Without an options class, those are the values of options whose names are those of secrets.

    Returns:
        The error; or another one with its masked text, if it keeps the text where it cannot be
        changed, as an `ExceptionGroup` does.
    """
    return mask_source_error(connector.config, error, _secrets_of(connector))


def mask_source_error(
    config: DataSourceConfig, error: E, secrets: Iterable[str]
) -> E | ConnectorError:
    """Mask given secrets in an error about a source, as `mask_connector_error` does."""
    secrets = tuple(secrets)
    replacement = mask_error(error, secrets)
    if replacement is error:
        return error
    named = _named_error(config, error, mask_secrets(_text_of(error), secrets))
    named.__cause__ = replacement
    return named


def as_connector_error(
    connector: DataSourceConnector, error: Exception | SystemExit
) -> DataSourceError:
    """Mask an error that a connector raised, and return it as one that hosts expect.

    A `DataSourceError` is returned as it is. Another error becomes the cause of a `ConnectorError`
    that names the connector and the source.
    """
    return as_source_error(connector.config, error, _secrets_of(connector))


def as_source_error(
    config: DataSourceConfig, error: Exception | SystemExit, secrets: Iterable[str]
) -> DataSourceError:
    """Mask given secrets in an error about a source, and return it as `as_connector_error` does."""
    secrets = tuple(secrets)
    masked = mask_source_error(config, error, secrets)
    if isinstance(masked, DataSourceError):
        return masked
    wrapped = wrap_error(config, error)
    mask_error(wrapped, secrets)  # of a group, the members that cannot be changed
    return wrapped


def wrap_error(config: DataSourceConfig, error: BaseException) -> ConnectorError:
    """Return a `ConnectorError` that names the connector of a source, with `error` as its cause."""
    wrapped = _named_error(config, error, redact_text(_text_of(error)))
    wrapped.__cause__ = error
    return wrapped


def raise_masked(error: BaseException) -> NoReturn:
    """Raise an error that stands for another one, without a trace of that one.

    Python makes the error that is handled at the moment the context of each that is raised. Here
    that is the one with the secrets: no text shows it, but tools that report errors may follow it.
    """
    try:
        raise error from error.__cause__
    finally:
        error.__context__ = None


class ConnectorErrors:
    """A `with` block that raises what a connector raises in it as `as_connector_error` returns it."""

    __slots__ = ("_connector",)

    def __init__(self, connector: DataSourceConnector) -> None:
        self._connector = connector

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, (Exception, SystemExit)):  # a driver that exits must not end the host
            masked = as_connector_error(self._connector, error)
            if masked is not error:
                del error  # tools that report errors show the local variables of frames
                raise_masked(masked)


def _secrets_of(connector: DataSourceConnector) -> list[str]:
    if connector.options is not None:
        secrets = connector.options.secret_values()
    else:
        secrets = [
            leaf
            for name, value in connector.config.config.items()
            if is_secret_name(name)
            for leaf in leaves(value)
            if isinstance(leaf, str)
        ]
    return [*secrets, *getattr(connector, "_late_secrets", ())]


def _named_error(config: DataSourceConfig, error: BaseException, text: str) -> ConnectorError:
    text = " ".join(text.split())
    return ConnectorError(
        f"the connector {config.type.value!r} of source {config.id!r} raised "
        f"{type(error).__name__}" + (f": {text}" if text else "")
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (a driver's exception may be broken itself)
        return ""
