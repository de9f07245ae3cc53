"""A gateway in front of a model's server that knows nothing of sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_agents.gateway.routes import gateway_routes as gateway_routes
    from datasources_agents.gateway.settings import GatewaySettings as GatewaySettings

__all__ = ["GatewaySettings", "gateway_routes"]

__getattr__ = lazy_exports(__name__, {"GatewaySettings": "settings", "gateway_routes": "routes"})
