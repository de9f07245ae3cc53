"""An HTTP API on a registry of sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasources import lazy_exports

if TYPE_CHECKING:
    from datasources_server.app import create_app as create_app, router as router
    from datasources_server.endpoint import (
        WorkspaceEndpoint as WorkspaceEndpoint,
        serve_workspace as serve_workspace,
    )
    from datasources_server.problems import Problem as Problem
    from datasources_server.settings import (
        ServerSettings as ServerSettings,
        strict_policy as strict_policy,
    )
    from datasources_server.shared_tokens import SharedTokens as SharedTokens
    from datasources_server.token_file import Tokens as Tokens
    from datasources_server.tokens import Token as Token, TokenStore as TokenStore

__all__ = [
    "Problem",
    "ServerSettings",
    "SharedTokens",
    "Token",
    "TokenStore",
    "Tokens",
    "WorkspaceEndpoint",
    "create_app",
    "router",
    "serve_workspace",
    "strict_policy",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Problem": "problems",
        "ServerSettings": "settings",
        "SharedTokens": "shared_tokens",
        "Token": "tokens",
        "TokenStore": "tokens",
        "Tokens": "token_file",
        "WorkspaceEndpoint": "endpoint",
        "create_app": "app",
        "router": "app",
        "serve_workspace": "endpoint",
        "strict_policy": "settings",
    },
)
