"""Read references to data in the body of a chat request.

The body is that of OpenAI's `POST /v1/chat/completions`, as JSON gives it. Whatever is not a
reference is the business of the model's server: it is neither checked nor changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datasources import DataSourceError, OptionError, SourceURI

MAX_REFERENCES = 10
"""References of one request, by default."""
_SCHEME = "datasource:"
_FIELD = "data_sources"
_KEYS = {"source", "item", "format"}
_IN_TEXT = re.compile(r"""datasource://[^\s<>"'`()\[\]{}|\\^]+""")
_PUNCTUATION = ".,;:!?"
_URI = (
    "must be 'datasource://SOURCE/ITEM', with '?format=FORMAT' if wanted; in an ITEM, '%', '?' and "
    "'#' are written '%25', '%3F' and '%23'"
)
_ENTRY = (
    "must be an object of 'source', the id of one, 'item', a text that is not empty, and, if wanted, "
    "'format', a name such as 'csv'"
)
_REMOVED = {"type": "text", "text": "(a file)"}  # in place of the only part of a message


@dataclass(frozen=True, slots=True)
class Reference:
    """An item that a request refers to."""

    source: str
    """The id of the source."""
    item: str
    """The identifier, which may be a query."""
    format: str | None = None
    """The format to fetch in; None leaves it to the connector."""
    pointer: str = ""
    """The place in the body that names it, as a JSON pointer such as `#/data_sources/0`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why one reference cannot be had."""

    pointer: str
    """The place in the body, as `Reference.pointer`."""
    status: int
    """422 for what is malformed, unknown or not granted and for a format that is not possible, 413 for
    what is too large, else 424."""
    slug: str
    """The name of the error for programs."""
    detail: str
    """One sentence for people."""


class ReferencesError(DataSourceError):
    """Raised when references of a request cannot be had; nothing may reach the model then.

    Its `http_status` is 422 if a failure has that one, or else 413, or else 424. The `openai` client
    tries none of them again.

    Args:
        failures: All failures, one at least.
    """

    def __init__(self, failures: Iterable[Failure]) -> None:
        self.slug = "references-failed"  # not of the class, which `from_dict` could not make
        self.failures = tuple(failures)
        """All failures, in the order of the references."""
        super().__init__("; ".join(f"{each.pointer}: {each.detail}" for each in self.failures))
        statuses = {failure.status for failure in self.failures}
        self.http_status = next(status for status in (422, 413, 424) if status in statuses)

    def to_dict(self) -> dict[str, object]:
        """Return what the base does, and `failures`, a list of objects."""
        return super().to_dict() | {"failures": self.failure_dicts()}

    def failure_dicts(self) -> list[dict[str, object]]:
        """Return the failures as objects with `pointer`, `status`, `slug` and `detail`."""
        return [
            {"pointer": f.pointer, "status": f.status, "slug": f.slug, "detail": f.detail}
            for f in self.failures
        ]

    def to_openai(self) -> dict[str, Any]:
        """Return the body of a response, as clients of OpenAI's API read errors."""
        error = {
            "message": str(self),
            "type": "invalid_request_error",
            "param": self.failures[0].pointer,
            "code": self.failures[0].slug,
            "failures": self.failure_dicts(),
        }
        return {"error": error}


def references_in(
    body: Mapping[str, Any], *, in_text: bool = False, maximum: int = MAX_REFERENCES
) -> list[Reference]:
    """Return the items that a chat request refers to, each once.

    References are the entries of the field `data_sources`, objects with `source`, `item` and, if
    wanted, `format`; and, in the last message of the user alone, parts such as
    `{"type": "file", "file": {"file_id": "datasource://lake/orders.csv"}}`. What older messages,
    answers and results of tools name is never a reference.

    Args:
        body: The body of the request, which is not changed.
        in_text: True to take URIs in the text of the last message of the user for references, too.
            Whoever can put text in front of the user can then make data be fetched.
        maximum: References of one request.

    Raises:
        ReferencesError: 422; references are malformed, or there are too many. It has all failures.
    """
    references: dict[SourceURI, Reference] = {}
    failures = []
    for pointer, value in _places(body, in_text=in_text):
        try:
            uri = _uri_of(value)
        except OptionError:  # its text would repeat the request
            failures.append(invalid(pointer, _URI if isinstance(value, str) else _ENTRY))
            continue
        references.setdefault(uri, Reference(uri.source, uri.item, uri.format, pointer))
    if len(references) + len(failures) > maximum:
        failures = failures[:maximum]
        failures.append(invalid("#", f"a request may have {maximum} references"))
    if failures:
        raise ReferencesError(failures)
    return list(references.values())


def without_references(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat request without references, for the model; the given one is not changed.

    The field `data_sources` and all parts that refer to data are left out, those of older messages
    as well. Text stays as it is.
    """
    new = {name: value for name, value in body.items() if name != _FIELD}
    if isinstance(new.get("messages"), list):
        new["messages"] = [_without_parts(message) for message in new["messages"]]
    return new


def last_user_message(body: Mapping[str, Any]) -> int | None:
    """Return the index of the last message of the user; None if there is none."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return None
    for index in reversed(range(len(messages))):
        if isinstance(messages[index], dict) and messages[index].get("role") == "user":
            return index
    return None


def invalid(pointer: str, detail: str) -> Failure:
    """Return the failure of a reference that is malformed, unknown or not granted."""
    return Failure(pointer, 422, "reference-invalid", detail)


def _places(body: Mapping[str, Any], *, in_text: bool) -> Iterator[tuple[str, Any]]:
    """Yield the place of each reference, and its value: a text, or an entry of the field."""
    entries = body.get(_FIELD)
    if entries is not None and not isinstance(entries, list):
        yield f"#/{_FIELD}", entries
        entries = None
    for number, entry in enumerate(entries or ()):
        yield f"#/{_FIELD}/{number}", entry
    index = last_user_message(body)
    if index is None:
        return
    content = body["messages"][index].get("content")
    pointer = f"#/messages/{index}/content"
    if isinstance(content, str) and in_text:
        yield from _in_text(pointer, content)
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if _is_reference(part):
            yield f"{pointer}/{number}/file/file_id", part["file"]["file_id"]
        elif in_text and isinstance(part, dict) and isinstance(part.get("text"), str):
            yield from _in_text(f"{pointer}/{number}/text", part["text"])


def _in_text(pointer: str, text: str) -> Iterator[tuple[str, str]]:
    for match in _IN_TEXT.finditer(text):
        yield pointer, match[0].rstrip(_PUNCTUATION)


def _is_reference(part: object) -> bool:
    """Return True for a part of a message that names a file by a URI of our scheme."""
    if not isinstance(part, dict) or not isinstance(part.get("file"), dict):
        return False
    file_id = part["file"].get("file_id")
    return isinstance(file_id, str) and file_id.strip().lower().startswith(_SCHEME)


def _uri_of(value: object) -> SourceURI:
    """Return the URI of a reference.

    Raises:
        OptionError: It is malformed.
    """
    if isinstance(value, str):
        return SourceURI.parse(value)
    if not isinstance(value, dict) or not {"source", "item"} <= value.keys() <= _KEYS:
        raise OptionError(_ENTRY)
    item, file_format = value["item"], value.get("format")
    if not isinstance(item, str) or not isinstance(file_format, str | None):
        raise OptionError(_ENTRY)
    return SourceURI(value["source"], item, file_format)


def _without_parts(message: Any) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    content = [part for part in message["content"] if not _is_reference(part)]
    if len(content) == len(message["content"]):
        return message
    return message | {"content": content or [_REMOVED]}
