"""The URI of an item: one parser and one writer for every host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from datasources.errors import OptionError
from datasources.names import check_id

_SCHEME = "datasource://"
_FORMAT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_RAW = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls and lone surrogates
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class SourceURI:
    """An item of a source, written `datasource://SOURCE/ITEM[?format=F]`.

    ITEM is the identifier that `fetch` takes, percent-encoded as UTF-8; `/` may stand as it is. A
    query is an ITEM as well. The end of an ITEM, such as `.csv`, says nothing about the format.

    Raises:
        OptionError: The source is no id, the item is empty or has lone surrogates, or the format
            is no name of one.
    """

    source: str
    """The id of the source."""
    item: str
    """The identifier, not encoded."""
    format: str | None = None
    """The format to fetch in, such as `parquet`; None leaves it to the connector."""

    def __post_init__(self) -> None:
        check_id(self.source, "source")
        if not self.item:
            raise OptionError(f"a URI of source {self.source!r} names no item")
        if _SURROGATE.search(self.item):
            raise OptionError("an item with lone surrogates has no URI, which is UTF-8")
        if self.format is not None and not _FORMAT.fullmatch(self.format):
            raise OptionError(
                f"{self.format!r} is no format; one is letters, digits, '.', '_' and '-'"
            )

    @classmethod
    def parse(cls, text: str) -> SourceURI:
        """Return what a URI names.

        Raises:
            OptionError: It has another scheme, no source or item, a fragment, a `%` that encodes no
                byte, bytes that are not UTF-8, control characters or lone surrogates that are not
                encoded, a parameter other than `format`, or that twice.
        """
        if not text.startswith(_SCHEME):
            raise OptionError(f"a URI of an item starts with {_SCHEME!r}")
        if _NOT_RAW.search(text):
            raise OptionError("a URI holds no control characters and no lone surrogates")
        if "#" in text:
            raise OptionError("a URI of an item has no fragment; '#' in an item is '%23'")
        source, slash, rest = text.removeprefix(_SCHEME).partition("/")
        item, question, query = rest.partition("?")
        if not slash or not item:
            raise OptionError("a URI of an item is 'datasource://SOURCE/ITEM'")
        return cls(source, _decode(item), _format(query) if question else None)

    def __str__(self) -> str:
        # Programs that normalise URLs resolve dot segments and merge slashes, but no encoded ones.
        ambiguous = not {"", ".", ".."}.isdisjoint(self.item.split("/"))
        item = quote(self.item, safe="" if ambiguous else "/")
        query = f"?format={self.format}" if self.format else ""
        return f"{_SCHEME}{self.source}/{item}{query}"


def _decode(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise OptionError(
            "a '%' in a URI stands before two hexadecimal digits; itself, it is '%25'"
        )
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise OptionError("the percent-encoded bytes of a URI must be UTF-8") from None


def _format(query: str) -> str:
    """Return the format that the query of a URI gives."""
    parameters = [parameter.partition("=") for parameter in query.split("&")]
    if any(name != "format" for name, _, _ in parameters):
        raise OptionError(
            "a URI of an item takes the parameter 'format' only; '?' in an item is '%3F'"
        )
    if len(parameters) > 1:
        raise OptionError("the parameter 'format' of a URI is given twice")
    return _decode(parameters[0][2])
