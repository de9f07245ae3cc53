"""Routes about the types of sources."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi.routing import APIRoute

from datasources import (
    DataSourceConnector,
    DataSourceRegistry,
    PluginError,
    UnknownConnectorError,
    abilities,
    form,
)
from datasources.templates import template
from datasources_server.api_router import ApiRouter
from datasources_server.calls import AnyCall
from datasources_server.documents import CallerDocument, TypeDocument, TypeList
from datasources_server.problems import Problem
from datasources_server.responses import ApiResponse


def type_routes(route_class: type[APIRoute]) -> ApiRouter:
    """Return the routes below `/types`, and `/me`."""
    routes = ApiRouter(tags=["types"], route_class=route_class)
    routes.get("/me", response_model=CallerDocument)(get_principal)
    routes.get("/types", response_model=TypeList)(list_types)
    routes.get("/types/{type_name}", response_model=TypeDocument)(get_type)
    return routes


async def load_connector_class(
    registry: DataSourceRegistry, type_name: str
) -> type[DataSourceConnector]:
    """Return the connector class of a type, imported in a thread if that has to be done.

    Raises:
        PluginError: No usable plugin offers the type.
    """
    if loaded := registry.plugins.loaded(type_name):
        return loaded
    return await asyncio.to_thread(registry.plugins.connector_class, type_name)


async def get_principal(call: AnyCall) -> ApiResponse:
    """Return who the caller is, and whether there are tokens to manage."""
    admin = call.principal.is_admin
    tokens = admin and call.api.tokens is not None
    return ApiResponse({"id": call.principal.id, "admin": admin, "tokens": tokens})


async def list_types(call: AnyCall) -> ApiResponse:
    """List the types that sources can have."""
    items = []
    entries = {entry.name: entry for entry in call.registry.plugins.entries() if entry.is_connector}
    for name in call.registry.plugins.types():
        entry = entries.get(name)
        item: dict[str, Any] = {
            "type": name,
            "distribution": entry and entry.distribution,
            "version": entry and entry.version,
            "abilities": [],
            "state": "ready",
            "reason": None,
        }
        try:
            item["abilities"] = sorted(abilities(await load_connector_class(call.registry, name)))
        except PluginError as exc:
            item["state"] = "unusable"
            if call.principal.is_admin:
                item["reason"] = str(exc)
        items.append(item)
    return ApiResponse({"items": items})


async def get_type(call: AnyCall, type_name: str) -> ApiResponse:
    """Describe the options of a type: JSON Schema, form, template, and examples of identifiers."""
    try:
        connector_class = await load_connector_class(call.registry, type_name)
    except UnknownConnectorError:
        raise Problem(404, "type-not-found", "there is no such type of sources") from None
    options_class = connector_class.options_class
    samples = options_class.sample_identifiers if options_class else ()
    return ApiResponse(
        {
            "type": type_name,
            "abilities": sorted(abilities(connector_class)),
            "schema": options_class.model_json_schema() if options_class else None,
            "form": form(options_class) if options_class else None,
            "template": template(type_name, connector_class),
            "sample_identifiers": [
                {"identifier": identifier, "meaning": meaning} for identifier, meaning in samples
            ],
        }
    )
