"""References need the core alone; the server and its libraries are loaded for the gateway only."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import datasources_agents
import datasources_agents.gateway
from datasources import OptionError
from datasources_server.serving import _parts
from tests.core.subprocesses import run_python


def test_references_are_read_without_the_libraries_of_hosts() -> None:
    modules = run_python(
        "import sys, datasources_agents as agents\n"
        "agents.references_in({}), agents.Fence().wrap('x'), agents.resolve, agents.prepare\n"
        "print(*sys.modules)"
    ).split()
    heavy = {"datasources_server", "fastapi", "httpx", "mcp", "starlette", "uvicorn"}
    assert heavy.isdisjoint(modules)


@pytest.mark.parametrize("package", [datasources_agents, datasources_agents.gateway])
def test_every_public_name_is_documented(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name).__doc__


def test_server_names_the_distribution_that_its_table_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SimpleNamespace(gateway={"url": "http://localhost/v1", "mode": "workspace"})
    monkeypatch.setitem(sys.modules, "datasources_agents.gateway", None)
    context: Any = SimpleNamespace(settings=settings)
    with pytest.raises(OptionError, match=r"pip install 'datasources-agents\[gateway,server\]'"):
        _parts(context)
