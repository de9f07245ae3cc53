"""Routes that manage sources."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

from fastapi import Body, Header, Query, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from datasources import (
    ConnectError,
    ConnectionCheck,
    CredentialError,
    DataSourceConfig,
    DataSourceConnector,
    DataSourceNotFoundError,
    Limits,
    PluginError,
    Store,
    abilities,
)
from datasources.forms import option_fields
from datasources.json_values import to_iso_time
from datasources.principals import RIGHTS
from datasources.redaction import is_secret_name
from datasources.stored_queries import read_queries
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AdminCall, AnyCall, Call, SourceId
from datasources_server.cursors import open_cursor, seal_cursor
from datasources_server.documents import (
    ChoicesDocument,
    SourceDocument,
    SourcePage,
    TestDocument,
    ValidDocument,
)
from datasources_server.page_cache import PageVersion
from datasources_server.problems import Problem, error_dict, invalid
from datasources_server.responses import ApiResponse, encode_json
from datasources_server.source_fields import LimitsFields, QueryFields, QueryPatch
from datasources_server.types import load_connector_class

_ETAG = re.compile(r'\s*"(\d{1,18})"\s*')
_FINGERPRINTS = "fingerprints of secrets"  # purpose of the derived key
_ALL_RIGHTS = frozenset(RIGHTS)
_MAX_CACHED = 10_000  # sources whose secrets' fingerprints are kept
_FINGERPRINT_LENGTH = 16  # hexadecimal digits: tells if a secret has changed, no more


class SourceBody(BaseModel):
    """A source: type, name, options, metadata, limits and stored queries."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    name: str | None = None
    options: dict[str, Any]
    metadata: dict[str, Any] = {}
    limits: LimitsFields | None = None
    queries: dict[str, QueryFields] = {}

    def to_config(self, source_id: str) -> DataSourceConfig:
        """Return the configuration; raises OptionError if a field is malformed."""
        given = self.model_dump(exclude_unset=True)
        limits = given.get("limits")
        return DataSourceConfig(
            source_id,
            self.type,
            source_id if self.name is None else self.name,
            self.options,
            metadata=self.metadata,
            limits=None if limits is None else Limits.from_dict(limits),
            queries=read_queries(given.get("queries", {}), f"source {source_id!r}"),
        )


class SourcePatch(BaseModel):
    """A JSON merge patch (RFC 7396) of a source; `null` removes."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    limits: LimitsFields | None = None
    queries: dict[str, QueryPatch | None] | None = None

    def to_changes(self) -> dict[str, Any]:
        """Return the changes as `DataSourceRegistry.update_data_source` takes them."""
        changes = self.model_dump(exclude_unset=True)
        if "options" in changes:
            changes["config"] = changes.pop("options")
        return changes


class PauseBody(BaseModel):
    """The reason of a pause, for people."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1)]


# The requests that a new source admits, for the OpenAPI document.
_LINKS = {
    name: {"operationId": name, "parameters": {"source_id": "$response.body#/id"}}
    for name in (
        "get_source",
        "patch_source",
        "delete_source",
        "pause_source",
        "resume_source",
        "check_source",
        "list_items",
        "describe_item",
        "preview_item",
        "item_statistics",
        "item_content",
    )
}
Test = Callable[[], Awaitable[ConnectionCheck]]
IfMatch = Annotated[str | None, Header()]


def source_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes that manage sources, and test connections."""
    routes = ApiRouter(tags=["sources"], route_class=route_class)
    routes.get("/sources", response_model=SourcePage)(list_sources)
    routes.get("/sources/{source_id}", response_model=SourceDocument)(get_source)
    created: dict[int | str, dict[str, Any]] = {201: {"model": SourceDocument, "links": _LINKS}}
    routes.put(
        "/sources/{source_id}", response_model=SourceDocument | ValidDocument, responses=created
    )(put_source)
    routes.patch("/sources/{source_id}", response_model=SourceDocument)(patch_source)
    routes.delete("/sources/{source_id}", status_code=204)(delete_source)
    routes.post("/sources/{source_id}/pause", response_model=SourceDocument)(pause_source)
    routes.post("/sources/{source_id}/resume", response_model=SourceDocument)(resume_source)
    routes.post("/sources/{source_id}/test", response_model=TestDocument)(check_source)
    routes.post("/test", response_model=TestDocument)(check_new_source)
    routes.post("/discover", response_model=ChoicesDocument)(discover_options)
    return routes


async def list_sources(
    call: AnyCall,
    cursor: Annotated[str | None, Query(min_length=1)] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
    type: str | None = None,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """List the sources that are granted, by id, one page at a time.

    `q` is a part of an id or a name, in any case.
    """
    size = call.page_size(limit)
    pages, key = call.api.source_pages, (call.principal.id, cursor, size, type, q)
    version = PageVersion(call.principal, call.registry.store, _revision(call.registry.store))
    content = pages.get(key, version)
    if content is None:
        page = await _read_page(call, cursor, size, type, q)
        content = encode_json(page)
        if all(item["state"] != "unusable" for item in page["items"]):  # which a key can mend
            pages.put(key, version, content)
    return Response(content, media_type=ApiResponse.media_type)


def _revision(store: Store) -> int | None:
    # A store that was written for an older version may not inherit the method.
    read_revision = getattr(store, "revision", None)
    return None if read_revision is None else read_revision()


async def _read_page(
    call: Call, cursor: str | None, size: int, type: str | None, q: str
) -> dict[str, Any]:
    binding = [call.principal.id, type, q]
    after = "" if cursor is None else open_cursor(call, "sources", binding, cursor)
    # One more than the page, to know if there is a following page.
    matches = await call.access.list_sources(after=after, limit=size + 1, type=type, q=q)
    page, items = matches[:size], []
    for config in page:
        with suppress(DataSourceNotFoundError):  # removed since it was listed
            items.append(await describe_source(call, config))
    following = seal_cursor(call, "sources", binding, page[-1].id) if len(matches) > size else None
    return {"items": items, "next_cursor": following}


def _rights(call: Call, source_id: str) -> frozenset[str]:
    if call.principal.is_admin:
        return _ALL_RIGHTS
    rights = [grant.rights for grant in call.principal.grants_for(source_id)]
    return frozenset(rights[0] if len(rights) == 1 else chain.from_iterable(rights))


async def get_source(call: AnyCall, source_id: SourceId) -> ApiResponse:
    """Describe a source; its secrets are never shown."""
    return await _source_response(call, source_id)


async def put_source(
    call: AdminCall,
    source_id: SourceId,
    body: SourceBody,
    test: bool = False,
    dry_run: bool = False,
    if_match: IfMatch = None,
    if_none_match: IfMatch = None,
) -> ApiResponse:
    """Create a source (`If-None-Match: *`) or replace one (`If-Match: "version"`).

    With `test`, a connection is made first; with `dry_run`, the source is only validated.
    """
    if if_none_match is None and if_match is None:
        raise Problem(
            428,
            "precondition-required",
            'give `If-None-Match: *` to create a source, or `If-Match: "VERSION"` to replace it',
        )
    if if_none_match not in (None, "*"):
        raise invalid("If-None-Match", "must be `*`")
    config = body.to_config(source_id)
    await call.registry.validate_config(config)
    if if_none_match is None:
        return await _replace(call, config, if_match, test=test, dry_run=dry_run)
    if await asyncio.to_thread(call.registry.exists, source_id):
        raise Problem(412, "source-exists", "a source of this id exists already")
    if dry_run:
        return ApiResponse({"valid": True})
    if test:
        await _require_connection(call, lambda: call.registry.check_config(config))
    await call.registry.register_data_source(config)
    return await _source_response(call, source_id, status=201)


async def _replace(
    call: Call, config: DataSourceConfig, if_match: str | None, *, test: bool, dry_run: bool
) -> ApiResponse:
    try:
        old = await asyncio.to_thread(
            call.registry.get_config, config.id, decrypt=True, sanitize=False
        )
    except DataSourceNotFoundError:
        raise Problem(412, "conflict", "there is no such source any more") from None
    expected = _expected_version(old, if_match)
    if config.type != old.type:
        raise invalid("#/type", "cannot be changed; remove the source first")
    changes = {
        "name": config.name,
        "config": _replacement_patch(old.config, config.config),
        "metadata": _replacement_patch(old.metadata, config.metadata),
        "limits": None if config.limits is None else config.limits.to_dict(),
        "queries": _replacement_patch(_tables(old), _tables(config)),
    }
    del old
    if dry_run:
        return ApiResponse({"valid": True})
    if test:
        await _require_connection(call, lambda: call.registry.check_update(config.id, changes))
    await call.registry.update_data_source(config.id, changes, expected=expected)
    return await _source_response(call, config.id)


async def patch_source(
    call: AdminCall,
    source_id: SourceId,
    body: Annotated[SourcePatch, Body(media_type="application/merge-patch+json")],
    test: bool = False,
    if_match: IfMatch = None,
) -> ApiResponse:
    """Change a source by a JSON merge patch (RFC 7396); what is left out stays, secrets too.

    A change of the destination has to give every secret again: 409 `secret-required`.
    """
    if if_match is None:
        raise Problem(428, "precondition-required", 'give `If-Match: "VERSION"`')
    changes = body.to_changes()
    expected = await _version_to_find(call, source_id, if_match)
    if test:
        await _require_connection(call, lambda: call.registry.check_update(source_id, changes))
    await call.registry.update_data_source(source_id, changes, expected=expected)
    return await _source_response(call, source_id)


async def delete_source(call: AdminCall, source_id: SourceId, if_match: IfMatch = None) -> Response:
    """Remove a source and close its connections; with `If-Match`, only this version of it."""
    expected = await _version_to_find(call, source_id, if_match)
    await call.registry.unregister_data_source(source_id, expected=expected)
    return Response(status_code=204)


async def pause_source(
    call: AdminCall, source_id: SourceId, body: PauseBody, if_match: IfMatch = None
) -> ApiResponse:
    """Have all operations on a source refused, with a reason, until it is resumed.

    With `If-Match`, only this version of it.
    """
    expected = await _version_to_find(call, source_id, if_match)
    await call.registry.pause(source_id, body.reason, expected=expected)
    return await _source_response(call, source_id)


async def resume_source(
    call: AdminCall, source_id: SourceId, if_match: IfMatch = None
) -> ApiResponse:
    """Serve a source again that was paused; with `If-Match`, only this version of it."""
    expected = await _version_to_find(call, source_id, if_match)
    await call.registry.resume(source_id, expected=expected)
    return await _source_response(call, source_id)


async def check_source(
    call: AnyCall, source_id: SourceId, body: SourcePatch | None = None
) -> ApiResponse:
    """Connect to a source; administrators may give changes, with which it is tested then."""
    await call.access.get_source(source_id)  # raises if it is not granted
    if body is None:
        return await _test(call, lambda: call.registry.check_connection(source_id))
    call.require_admin()
    return await _test(call, lambda: call.registry.check_update(source_id, body.to_changes()))


async def check_new_source(call: AdminCall, body: SourceBody) -> ApiResponse:
    """Connect to a source that is not stored."""
    return await _test(call, lambda: call.registry.check_config(body.to_config("new-source")))


async def discover_options(call: AdminCall, body: SourceBody) -> ApiResponse:
    """List what options of a source that is not stored could be, such as the databases of a server.

    Counted and limited in time as a test of a connection.
    """
    call.api.count_test(call.principal.id)
    seconds = call.settings.test_timeout
    try:
        async with asyncio.timeout(seconds):
            choices = await call.registry.discover(body.type, body.options)
    except TimeoutError:
        detail = f"the source did not answer within {seconds:g} seconds"
        raise Problem(504, "too-slow", detail, retryable=True) from None
    return ApiResponse({"choices": choices})


async def describe_source(call: Call, config: DataSourceConfig) -> dict[str, Any]:
    """Return a source as clients see it; options are for administrators."""
    described: dict[str, Any] = {
        "id": config.id,
        "type": config.type,
        "name": config.name,
        "abilities": [],
        "state": "ready" if config.paused is None else "paused",
        "reason": config.paused,
        "version": config.version,
        "rights": sorted(_rights(call, config.id)),
    }
    secrets: dict[str, Any] = {}
    try:
        connector_class = await load_connector_class(call.registry, config.type)
        described["abilities"] = _abilities_of(connector_class)
        if call.principal.is_admin:
            secrets = await _secret_states(call, config, connector_class.options_class)
    except (PluginError, CredentialError) as exc:
        described["state"] = "unusable"
        described["reason"] = str(exc) if call.principal.is_admin else None
    if call.principal.is_admin:
        described |= {
            "options": config.config,
            "secrets": secrets,
            "metadata": config.metadata,
            "limits": config.limits,
            "queries": _tables(config),
            "created_at": to_iso_time(config.created_at),
        }
    return described


@lru_cache(maxsize=256)  # a list has many sources of few types
def _abilities_of(connector_class: type[DataSourceConnector]) -> list[str]:
    return sorted(abilities(connector_class))


def _tables(config: DataSourceConfig) -> dict[str, Any]:
    """Return the stored queries of a source as JSON."""
    return {name: query.to_dict() for name, query in config.queries.items()}


async def _secret_states(
    call: Call, config: DataSourceConfig, options_class: Any
) -> dict[str, Any]:
    """Return for each secret option if it is set, and a fingerprint that shows if it changes."""
    # A version is never used again, so the states of one never change.
    cache, key = call.api.secret_states, (config.id, config.version)
    if key not in cache:
        states = {}
        if options_class is None or any(f.secret for f in option_fields(options_class)):
            states = await asyncio.to_thread(_read_secret_states, call, config, options_class)
        if len(cache) >= _MAX_CACHED:
            cache.clear()
        cache[key] = states
    return cache[key]


def _read_secret_states(call: Call, config: DataSourceConfig, options_class: Any) -> dict[str, Any]:
    options = call.registry.get_config(config.id, decrypt=True, sanitize=False).config
    names: dict[str, tuple[str, ...]]
    if options_class is None:
        names = {name: (name,) for name in options if is_secret_name(name)}
    else:
        names = {field.name: field.names for field in option_fields(options_class) if field.secret}
    states: dict[str, Any] = {}
    for name, aliases in names.items():
        value = next((options[a] for a in aliases if options.get(a) is not None), None)
        content = json.dumps([config.id, name, value], sort_keys=True).encode()
        digest = call.registry.credentials.digest(_FINGERPRINTS, content)
        states[name] = {
            "set": value is not None,
            "fingerprint": None if value is None else digest[:_FINGERPRINT_LENGTH],
        }
    return states


async def _source_response(call: Call, source_id: str, status: int = 200) -> ApiResponse:
    config = await call.access.get_source(source_id)
    headers = {"ETag": f'"{config.version}"'}
    return ApiResponse(await describe_source(call, config), status, headers)


def _expected_version(config: DataSourceConfig, if_match: str | None) -> int | None:
    """Return the version that an update has to find, None for any.

    Raises:
        Problem: 412, the header `If-Match` names other versions only.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_ETAG.fullmatch(tag) for tag in if_match.split(",")]
    versions = [int(tag[1]) for tag in tags if tag is not None]
    if len(versions) == 1:
        return versions[0]
    if config.version not in versions:
        raise Problem(412, "conflict", f"the source has version {config.version}; read it again")
    return config.version


async def _version_to_find(call: Call, source_id: str, if_match: str | None) -> int | None:
    """Return the version of a stored source that the header `If-Match` asks for, None for any."""
    if if_match is None:
        return None
    return _expected_version(await call.access.get_source(source_id), if_match)


def _replacement_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `new` of `old`."""
    patch: dict[str, Any] = dict.fromkeys(old)
    for name, value in new.items():
        before = old.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        patch[name] = _replacement_patch(before, value) if both else value  # type: ignore[arg-type]
    return patch


async def _check(call: Call, test: Test) -> ConnectionCheck:
    """Return the result of a test of a connection within the limits of tests."""
    call.api.count_test(call.principal.id)
    try:
        async with asyncio.timeout(call.settings.test_timeout):
            return await test()
    except TimeoutError:
        seconds = call.settings.test_timeout
        error = ConnectError(f"the source did not answer within {seconds:g} seconds")
        return ConnectionCheck(False, seconds, error)


async def _test(call: Call, test: Test) -> ApiResponse:
    check = await _check(call, test)
    error = error_dict(check.error, is_admin=call.principal.is_admin)
    return ApiResponse({"ok": check.ok, "seconds": check.duration, "error": error})


async def _require_connection(call: Call, test: Test) -> None:
    """Raise the error of a test that fails."""
    check = await _check(call, test)
    if check.error is not None:
        raise check.error
