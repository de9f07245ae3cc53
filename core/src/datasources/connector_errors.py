"""Errors of connectors as hosts get them: a `DataSourceError`, with the source's secrets masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

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
    secrets = _secrets_of(connector)
    mask_error(error, secrets)
    text = _text_of(error)
    masked = mask_secrets(text, secrets)
    return error if masked == text else _named_error(connector.config, error, masked)


def as_connector_error(
    connector: DataSourceConnector, error: Exception | SystemExit
) -> DataSourceError:
    """Mask an error that a connector raised, and return it as one that hosts expect.

    A `DataSourceError` is returned as it is. Another error becomes the cause of a `ConnectorError`
    that names the connector and the source.
    """
    masked = mask_connector_error(connector, error)
    if isinstance(masked, DataSourceError):
        return masked
    wrapped = wrap_error(connector.config, error)
    mask_error(wrapped, _secrets_of(connector))  # of a group, the members that cannot be changed
    return wrapped


def wrap_error(config: DataSourceConfig, error: BaseException) -> ConnectorError:
    """Return a `ConnectorError` that names the connector of a source, with `error` as its cause."""
    wrapped = _named_error(config, error, redact_text(_text_of(error)))
    wrapped.__cause__ = error
    return wrapped


@contextmanager
def connector_errors(connector: DataSourceConnector) -> Iterator[None]:
    """Raise what a connector raises in the block as `as_connector_error` returns it."""
    try:
        yield
    except (Exception, SystemExit) as exc:  # a driver that exits must not end the host
        error = as_connector_error(connector, exc)
        if error is exc:
            raise
        raise error from error.__cause__


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
