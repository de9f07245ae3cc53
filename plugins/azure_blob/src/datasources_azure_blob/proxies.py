"""Send the SDK's requests through the proxy that reads go through.

Reads and the requests of azure-storage-blob and azure-identity share one aiohttp session. aiohttp
can look up the proxy itself (`trust_env`), but does so in a thread for each request, and
`AioHttpTransport` of azure-core switches that on only for a session of its own. So the proxy is
looked up by `proxy_for`, for all three.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from datasources.objects import proxy_for
from datasources_azure_blob.errors import Subject


def sdk_transport(session: aiohttp.ClientSession, subject: Subject) -> Any:
    """Return a transport of azure-core on `session`, which stays the caller's to close."""
    from azure.core.pipeline.transport import AioHttpTransport

    class Transport(AioHttpTransport):  # type: ignore[misc]  # azure-core exports it untyped
        async def send(self, request: Any, **config: Any) -> Any:
            config.setdefault("proxy", proxy_for(request.url, subject))
            return await super().send(request, **config)

    return Transport(session=session, session_owner=False)
