"""Raise the errors of a registry as the exceptions that users of file systems expect."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from datasources import (
    AuthenticationError,
    ConnectError,
    DataSourceError,
    DataSourceNotFoundError,
    ItemExistsError,
    ItemNotFoundError,
    OptionError,
    PermissionDeniedError,
    PolicyError,
    PoolTimeoutError,
    UnsupportedError,
)

P = ParamSpec("P")
T = TypeVar("T")

_CLASSES: list[tuple[tuple[type[DataSourceError], ...], type[Exception]]] = [
    ((DataSourceNotFoundError, ItemNotFoundError), FileNotFoundError),
    ((ItemExistsError,), FileExistsError),
    ((AuthenticationError, PermissionDeniedError, PolicyError), PermissionError),
    ((ConnectError, PoolTimeoutError), ConnectionError),
    ((UnsupportedError,), io.UnsupportedOperation),
    ((OptionError,), ValueError),
    ((DataSourceError,), OSError),
]


def as_os_errors(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return a coroutine function that raises `OSError` and its subclasses; the sentence stays.

    A wrong argument is a `ValueError`, and the error of the registry is the cause.
    """

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except DataSourceError as exc:
            new = next(new for classes, new in _CLASSES if isinstance(exc, classes))
            raise new(str(exc)) from exc

    return call
