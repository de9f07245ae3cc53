r"""Write values in the forms that JSON can hold.

Models and the command line's `--json` have the same ones:

- None, booleans, whole numbers, finite floats and texts stay as they are
- infinity and NaN are the texts `inf`, `-inf` and `nan`
- bytes are hexadecimal digits after `\x`, as in CSV files
- dates and times are ISO 8601, a `Decimal` and values of other types are `str(value)`
- lists, tuples and sets are arrays; mappings are objects, with `str(key)` as names
- an error is the object of `DataSourceError.to_dict`; of an unexpected one only its class is named
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from datasources.errors import DataSourceError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

_PLAIN = frozenset({str, int, bool, type(None)})


def to_json_value(value: Any) -> Any:
    """Return a value in the form that JSON can hold."""
    exact = type(value)  # most values are of these types, which are told apart fastest so
    if exact in _PLAIN:
        return value
    if exact is dict:
        return {str(key): to_json_value(item) for key, item in value.items()}
    if exact is list:
        return [to_json_value(item) for item in value]
    return _other_to_json_value(value)


def _other_to_json_value(value: Any) -> Any:
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseException):
        return error_to_dict(value)
    if callable(to_dict := getattr(value, "to_dict", None)):
        return to_json_value(to_dict())
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json_value(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return format_bytes(value)
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if callable(isoformat) else str(value)


def format_bytes(value: bytes | bytearray | memoryview) -> str:
    r"""Return bytes as hexadecimal digits after `\x`, as PostgreSQL writes them."""
    return rf"\x{bytes(value).hex()}"


def error_to_dict(error: BaseException) -> dict[str, object]:
    """Return an error as an object, an unexpected one without its text, which may hold a secret."""
    if isinstance(error, DataSourceError):
        return error.to_dict()
    unexpected = DataSourceError(f"unexpected {type(error).__name__}")
    unexpected.slug = "unexpected-error"
    return unexpected.to_dict()


def to_iso_time(seconds: float | None) -> str | float | None:
    """Return Unix seconds as an ISO 8601 time in UTC, to the microsecond; None stays None.

    A number beyond the years that `datetime` can hold stays a number.
    """
    from datetime import UTC, datetime  # the command line prints most results without

    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return to_json_value(seconds)  # type: ignore[no-any-return]  # a number, or its text
