"""Methods that manage sources and their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from datasources_client.models import (
    Caller,
    ConnectionCheck,
    Limits,
    Page,
    Source,
    SourceType,
    TypeDescription,
)
from datasources_client.reading import read_model
from datasources_client.requests import Requests, all_items, member, segment, source_path


class SourceMethods(Requests):
    """The routes below `/types` and `/sources` but those for data, and `/test`."""

    def caller(self) -> Caller:
        """Return who the server takes the caller for."""
        return read_model(Caller, self._json("GET", "/v1/me"))

    def types(self) -> tuple[SourceType, ...]:
        """Return the types that sources can have."""
        return self._list(SourceType, "/v1/types")

    def describe_type(self, type: str) -> TypeDescription:
        """Return the options of a type: JSON Schema, form, template, examples of identifiers."""
        return read_model(TypeDescription, self._json("GET", f"/v1/types/{segment(type)}"))

    def sources(self, *, type: str | None = None, q: str = "") -> Iterator[Source]:
        """Yield the sources that are granted, by id; arguments as for `sources_page`."""
        return all_items(lambda cursor: self.sources_page(cursor, type=type, q=q))

    def sources_page(
        self,
        cursor: str | None = None,
        *,
        limit: int | None = None,
        type: str | None = None,
        q: str = "",
    ) -> Page[Source]:
        """Return one page of the sources.

        Args:
            cursor: Of the page before; None for the first page.
            limit: Sources at most; by default as many as the server sends.
            type: Only sources of this type.
            q: A part of an id or a name, in any case.
        """
        query = {"cursor": cursor, "limit": limit, "type": type, "q": q or None}
        return self._page(Source, "/v1/sources", query)

    def source(self, id: str) -> Source:
        """Return a source."""
        return read_model(Source, self._json("GET", source_path(id)))

    def create_source(
        self,
        id: str,
        type: str,
        options: Mapping[str, Any],
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        test: bool = False,
    ) -> Source:
        """Create a source and return it; with `test`, only if its connection works.

        Raises:
            DataSourceExistsError: The id is taken.
        """
        body = _source_body(type, options, name, metadata, limits)
        query = {"test": test}
        return read_model(
            Source, self._json("PUT", source_path(id), body, query=query, if_none_match="*")
        )

    def replace_source(
        self,
        id: str,
        type: str,
        options: Mapping[str, Any],
        *,
        version: int | None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        test: bool = False,
    ) -> Source:
        """Replace all of a source but its id and type, and return it.

        Args:
            id: Of the source.
            type: Its type, which cannot be changed.
            options: All options, secrets included.
            version: The version that is replaced; None replaces any.
            name: By default the id.
            metadata: By default none.
            limits: By default those of the server's policy.
            test: True to replace it only if the new connection works.

        Raises:
            ConflictError: The source has another version, or there is none.
        """
        body = _source_body(type, options, name, metadata, limits)
        query = {"test": test}
        return read_model(
            Source,
            self._json("PUT", source_path(id), body, query=query, if_match=_match(version)),
        )

    def validate_source(
        self,
        id: str,
        type: str,
        options: Mapping[str, Any],
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Return if `create_source` would accept the arguments; nothing is stored or connected."""
        body = _source_body(type, options, name, metadata, limits)
        self._json("PUT", source_path(id), body, query={"dry_run": True}, if_none_match="*")

    def update_source(
        self, id: str, changes: Mapping[str, Any], *, version: int | None, test: bool = False
    ) -> Source:
        """Change a source and return it; secrets that are left out stay.

        Args:
            id: Of the source.
            changes: A JSON merge patch (RFC 7396) of `name`, `options`, `metadata`, `limits` and
                `queries`; None removes.
            version: The version that is changed; None changes any.
            test: True to change it only if the new connection works.

        Raises:
            ConflictError: The source has another version.
            SecretRequiredError: Secrets would be sent elsewhere and have to be given again.
        """
        return read_model(
            Source,
            self._json(
                "PATCH",
                source_path(id),
                changes,
                query={"test": test},
                if_match=_match(version),
                media_type="application/merge-patch+json",
            ),
        )

    def delete_source(self, id: str, *, version: int | None = None) -> None:
        """Remove a source.

        Args:
            id: Of the source.
            version: The version that is removed; None removes any.

        Raises:
            ConflictError: The source has another version.
        """
        self._json("DELETE", source_path(id), if_match=_match(version))

    def pause_source(self, id: str, reason: str, *, version: int | None = None) -> Source:
        """Have all operations on a source refused until it is resumed, and return the source.

        Args:
            id: Of the source.
            reason: A text for people, with which operations are refused.
            version: The version that is paused; None pauses any.

        Raises:
            ConflictError: The source has another version.
        """
        answer = self._json(
            "POST", f"{source_path(id)}/pause", {"reason": reason}, if_match=_match(version)
        )
        return read_model(Source, answer)

    def resume_source(self, id: str, *, version: int | None = None) -> Source:
        """Serve a source again that was paused, and return it.

        Args:
            id: Of the source.
            version: The version that is resumed; None resumes any.

        Raises:
            ConflictError: The source has another version.
        """
        answer = self._json("POST", f"{source_path(id)}/resume", if_match=_match(version))
        return read_model(Source, answer)

    def check_source(self, id: str, changes: Mapping[str, Any] | None = None) -> ConnectionCheck:
        """Connect to a source; administrators may give changes, with which it is tested then."""
        return read_model(ConnectionCheck, self._json("POST", f"{source_path(id)}/test", changes))

    def check_new_source(self, type: str, options: Mapping[str, Any]) -> ConnectionCheck:
        """Connect to a source that is not stored."""
        body = _source_body(type, options, None, None, None)
        return read_model(ConnectionCheck, self._json("POST", "/v1/test", body))

    def discover(self, type: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return lists of what options of a source that is not stored could be, by option."""
        body = _source_body(type, options, None, None, None)
        return member(self._json("POST", "/v1/discover", body), "choices", dict)


def _match(version: int | None) -> str:
    return "*" if version is None else f'"{version}"'


def _source_body(
    type: str,
    options: Mapping[str, Any],
    name: str | None,
    metadata: Mapping[str, Any] | None,
    limits: Limits | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {"type": type, "options": dict(options)}
    if name is not None:
        body["name"] = name
    if metadata is not None:
        body["metadata"] = dict(metadata)
    if limits is not None:
        body["limits"] = asdict(limits)
    return body
