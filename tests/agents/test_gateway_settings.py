"""Settings that would send a key or data in clear, or that are wrong, are refused."""

from __future__ import annotations

from typing import Any

import pytest

from datasources import OptionError, SecretNotFoundError
from datasources_agents.gateway import GatewaySettings, gateway_routes
from datasources_agents.gateway.upstream import KeyMask

TABLE = {"url": "https://models.example.com/v1", "mode": "file_ids", "key": "${env:MODEL_KEY}"}


def test_key_is_a_reference_that_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", "sk-1")
    settings = GatewaySettings.from_table(TABLE, "/srv/gateway")
    assert (settings.key, settings.root) == ("sk-1", "/srv/gateway")
    assert "sk-1" not in repr(settings)


def test_reference_without_a_secret_is_an_error() -> None:
    with pytest.raises(SecretNotFoundError, match="MODEL_KEY"):
        GatewaySettings.from_table(TABLE, "/srv/gateway")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "sk-canary"}, "must be a reference such as"),
        ({"key": 1}, "must be a reference such as"),
        ({"url": "http://models.example.com/v1"}, "set 'insecure'"),
        ({"url": "http://10.0.0.1/v1"}, "set 'insecure'"),
        ({"url": "https://user:canary@models.example.com/v1"}, "may hold no password"),
        ({"url": "https://models.example.com/v1?key=canary"}, "must be a URL"),
        ({"url": "ftp://models.example.com"}, "must be a URL"),
        ({"url": "canary"}, "must be a URL"),
        ({"url": "https://["}, "must be a URL"),
        ({"url": 1}, "must be a text"),
        ({"url": None}, "must be a text"),
        ({"mode": "canary"}, "must be one of file_ids, file_parts, workspace"),
        ({"mode": ["file_ids"]}, "must be a text"),
        ({"root": "canary"}, "must be an absolute path"),
        ({"timeout": 0}, "must be a number of more than 0"),
        ({"quota": True}, "must be a number of more than 0"),
        ({"in_text": "canary"}, "must be true or false"),
        ({"canary": 1}, "canary"),
    ],
    ids=range(18),
)
def test_wrong_setting_is_refused_and_not_repeated(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        GatewaySettings.from_table({**TABLE, "key": None, **changes}, "/srv/gateway")
    assert str(caught.value).startswith("[gateway]")
    if "canary" not in changes:
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["url", "mode"])
def test_missing_setting_is_named(name: str) -> None:
    table = {key: value for key, value in TABLE.items() if key not in (name, "key")}
    with pytest.raises(OptionError, match=name):
        GatewaySettings.from_table(table, "/srv/gateway")


@pytest.mark.parametrize("key", ["", "a\nb", "schlüssel"])
def test_key_that_no_header_can_have_is_refused(key: str) -> None:
    with pytest.raises(OptionError, match="'key' of the gateway"):
        GatewaySettings("https://models.example.com/v1", "file_ids", key)


def test_local_server_needs_no_tls_and_others_may_be_allowed() -> None:
    for host in ("localhost", "127.0.0.1", "[::1]"):
        GatewaySettings(f"http://{host}:8000/v1", "workspace")
    GatewaySettings("http://models.internal/v1", "workspace", insecure=True)


def test_gateway_needs_a_directory() -> None:
    with pytest.raises(OptionError, match="needs 'root'"):
        gateway_routes(GatewaySettings("http://localhost/v1", "workspace"))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_key_in_a_stream_is_masked_wherever_it_is_cut(size: int) -> None:
    content = b"a sk-key b sk-sk-key c sk-k"
    mask = KeyMask(b"sk-key")
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    assert b"".join(map(mask.feed, chunks)) + mask.end() == b"a *** b sk-*** c sk-k"


def test_bytes_that_cannot_begin_the_key_are_not_held_back() -> None:
    assert KeyMask(b"sk-key").feed(b"data: x\n\n") == b"data: x\n\n"
    assert KeyMask(None).feed(b"sk-key") == b"sk-key"
