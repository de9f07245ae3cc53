"""People whom a proxy has logged in, as docs/deploy.md shows it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.docs.blocks import DOCS, python_blocks


@pytest.fixture
def shown() -> dict[str, Any]:
    """The names that the program of the page defines."""
    names: dict[str, Any] = {}
    (program,) = python_blocks(DOCS / "deploy.md")
    exec(program, names)
    return names


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-Forwarded-User": "root@example.com"}, 401),
        ({"X-Forwarded-User": "root@example.com", "X-Proxy-Secret": "guessed"}, 401),
        ({"X-Forwarded-User": "root@example.com", "X-Proxy-Secret": "\xe9"}, 401),
        ({"X-Forwarded-User": "bob@example.com", "X-Proxy-Secret": ...}, 401),
        ({"X-Proxy-Secret": ...}, 401),
        ({"X-Forwarded-User": "ann@example.com", "X-Proxy-Secret": ...}, 200),
        ({"X-Forwarded-User": "root@example.com", "X-Proxy-Secret": ...}, 200),
    ],
)
async def test_only_the_proxy_says_who_calls(
    shown: dict[str, Any], headers: dict[str, Any], status: int
) -> None:
    sent = {
        name: (shown["PROXY_SECRET"] if value is ... else value).encode("latin-1")
        for name, value in headers.items()
    }
    async with shown["registry"]:
        transport = httpx2.ASGITransport(shown["app"])
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/v1/sources", headers=sent)
            assert answer.status_code == status
            admin = await client.post("/v1/test", headers=sent, json={})
            is_admin = b"root@" in sent.get("X-Forwarded-User", b"")
            assert admin.status_code == (status if status == 401 else 422 if is_admin else 403)
