"""Tokens are kept as hashes, expire, are revoked, and are managed over HTTP and by commands."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Request

from datasources import CredentialError, DataSourceRegistry, Grant, OptionError, Principal
from datasources.stores import SQLiteStore
from datasources_server import SharedTokens, Tokens, TokenStore, create_app, token_file


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture(params=["a file", "a store"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TokenStore]:
    """Tokens, wherever they are kept."""
    if request.param == "a file":
        yield Tokens(tmp_path / "tokens.json")
        return
    with closing(SQLiteStore(str(tmp_path / "sources.db"))) as store:
        yield SharedTokens(store.records())


def authenticate(tokens: TokenStore, header: str) -> Principal | None:
    headers = [(b"authorization", header.encode())]
    return tokens.authenticate(Request({"type": "http", "headers": headers}))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "datasources.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_token_gives_its_principal(tokens: Tokens) -> None:
    grants = [Grant("shop", {"read", "query"}), Grant("lake", {"read"}, ["public/*"])]
    token = tokens.add("ann", grants=grants, seconds=60)
    assert authenticate(tokens, f"Bearer {token}") == Principal("ann", {"user"}, grants)
    assert authenticate(tokens, f"bearer {token}") == Principal("ann", {"user"}, grants)
    other = Tokens(tokens.path)
    assert authenticate(other, f"Bearer {token}") == Principal("ann", {"user"}, grants)
    admin = authenticate(tokens, f"Bearer {tokens.add('root', admin=True)}")
    assert admin
    assert admin.is_admin


@pytest.mark.parametrize(
    "change", ["{}x", "x{}", "Bearer {}x", "Basic {}", "Bearer  {}", "Bearer "]
)
def test_other_headers_give_none(either: TokenStore, change: str) -> None:
    token = either.add("ann", admin=True)
    assert authenticate(either, change.format(token)) is None


def test_tokens_are_listed_by_name_and_revoked_once(either: TokenStore) -> None:
    grants = [Grant("shop", {"read", "query"}), Grant("lake", {"read"}, ["public/*"])]
    bob, ann = either.add("bob", admin=True), either.add("ann", grants=grants, seconds=60)
    assert [token.name for token in either.list()] == ["ann", "bob"]
    assert authenticate(either, f"Bearer {ann}") == Principal("ann", {"user"}, grants)
    assert either.find_principal("ann") == Principal("ann", {"user"}, grants)
    assert either.revoke("bob")
    assert not either.revoke("bob")
    assert authenticate(either, f"Bearer {bob}") is None
    assert either.find_principal("bob") is None


def test_file_holds_hashes_and_is_its_owners(tokens: Tokens) -> None:
    token = tokens.add("ann", admin=True)
    path = Path(tokens.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token not in path.read_text("utf-8")
    assert [name.name for name in path.parent.iterdir() if name.suffix == ".tmp"] == []


def test_revoked_and_expired_tokens_are_none(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, short = tokens.add("ann", admin=True), tokens.add("bob", admin=True, seconds=60)
    other = Tokens(tokens.path)
    assert authenticate(other, f"Bearer {token}")
    assert tokens.revoke("ann")
    assert not tokens.revoke("ann")
    assert authenticate(other, f"Bearer {token}") is None
    assert authenticate(other, f"Bearer {short}")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert authenticate(other, f"Bearer {short}") is None


def test_new_token_is_known_to_a_thread_while_another_one_reads_the_file(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tokens.list() == []
    token = Tokens(tokens.path).add("ann", admin=True)
    make_stamp = token_file._stamp

    def read_in_another_thread(status: os.stat_result) -> Any:
        monkeypatch.setattr(token_file, "_stamp", make_stamp)
        with ThreadPoolExecutor() as pool:
            pool.submit(tokens.list).result()
        return make_stamp(status)

    monkeypatch.setattr(token_file, "_stamp", read_in_another_thread)
    assert authenticate(tokens, f"Bearer {token}")


def test_new_token_is_known_though_a_thread_reads_the_store_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SQLiteStore(str(tmp_path / "sources.db"))) as store, ThreadPoolExecutor() as pool:
        records = store.records()
        tokens = SharedTokens(records)
        added: list[Future[str]] = []
        list_records = records.list

        def list_before_a_token_is_added(*args: Any, **options: Any) -> Any:
            listed = list_records(*args, **options)
            if not added:
                added.append(pool.submit(tokens.add, "ann", admin=True))
                wait(added, timeout=0.1)
            return listed

        monkeypatch.setattr(records, "list", list_before_a_token_is_added)
        assert tokens.list() == []
        assert authenticate(tokens, f"Bearer {added[0].result()}")


def test_name_is_taken_once_and_well_formed(either: TokenStore) -> None:
    either.add("ann", admin=True)
    with pytest.raises(OptionError, match="there is a token 'ann' already"):
        either.add("ann")
    with pytest.raises(OptionError, match="'a b' is not a token id"):
        either.add("a b")
    with pytest.raises(OptionError, match="more than 0"):
        either.add("bob", seconds=0)


@pytest.mark.parametrize("content", ["", "[]", '{"ann": 5}', '{"ann": {"sha256": "x"}}'])
def test_damaged_file_admits_nobody(tokens: Tokens, content: str) -> None:
    token = tokens.add("ann", admin=True)
    path = Path(tokens.path)
    path.write_text(content, "utf-8")
    with pytest.raises(CredentialError, match="cannot be read"):
        authenticate(tokens, f"Bearer {token}")


def test_file_that_others_may_use_is_refused(tokens: Tokens) -> None:
    token = tokens.add("ann", admin=True)
    os.chmod(tokens.path, 0o640)
    with pytest.raises(CredentialError, match="mode to 0600"):
        authenticate(Tokens(tokens.path), f"Bearer {token}")


async def test_tokens_are_managed_over_http(tokens: Tokens) -> None:
    root = {"authorization": f"Bearer {tokens.add('root', admin=True)}"}
    async with DataSourceRegistry() as registry:
        transport = httpx2.ASGITransport(create_app(registry, tokens=tokens))
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost/v1"
        ) as client:
            body: dict[str, Any] = {
                "name": "ann",
                "grants": [{"source": "shop", "rights": ["read"]}],
                "expires_days": 30,
            }
            added = await client.post("/tokens", json=body, headers=root)
            assert added.status_code == 201
            ann = {"authorization": f"Bearer {added.json()['token']}"}
            assert (await client.get("/sources", headers=ann)).status_code == 200
            for method, path in (("GET", "/tokens"), ("DELETE", "/tokens/root")):
                assert (await client.request(method, path, headers=ann)).status_code == 403
            assert (await client.post("/tokens", json=body, headers=ann)).status_code == 403
            listed = (await client.get("/tokens", headers=root)).json()["items"]
            assert [item["name"] for item in listed] == ["ann", "root"]
            assert listed[0]["grants"] == [{"source": "shop", "rights": ["read"], "items": None}]
            assert "sha256" not in listed[0]
            wrong = await client.post(
                "/tokens",
                json=body | {"name": "x", "grants": [{"source": "s", "rights": ["all"]}]},
                headers=root,
            )
            assert wrong.status_code == 422
            assert "read, query, write" in wrong.json()["detail"]
            assert (await client.delete("/tokens/ann", headers=root)).status_code == 204
            assert (await client.get("/sources", headers=ann)).status_code == 401
            assert (await client.delete("/tokens/ann", headers=root)).status_code == 404


async def test_server_without_authentication_is_refused() -> None:
    async with DataSourceRegistry() as registry:
        with pytest.raises(OptionError, match="'authenticate' or 'tokens'"):
            create_app(registry)


def test_commands_make_list_and_revoke_tokens() -> None:
    added = run("tokens", "add", "ann", "--grant", "shop:read,query", "--grant", "lake:read:a/*")
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout.startswith("ds_")
    listed = json.loads(run("tokens", "list", "--json").stdout)
    assert [grant["source"] for grant in listed[0]["grants"]] == ["shop", "lake"]
    assert "shop:query,read lake:read:a/*" in run("tokens", "list").stdout
    assert listed[0]["last_used_at"] is None
    assert run("tokens", "revoke", "ann").returncode == 0
    assert "there is no token 'ann'" in run("tokens", "revoke", "ann").stderr
    assert json.loads(run("tokens", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ann"], "give --grant SOURCE:RIGHTS, or --admin"),
        (["ann", "--grant", "shop"], "a grant is SOURCE:RIGHTS"),
        (["ann", "--grant", "shop:all"], "read, query, write"),
        (["ann", "--admin", "--expires", "90"], "a number and a unit"),
        (["ann", "--admin", "--expires", "0d"], "more than 0"),
        (["a b", "--admin"], "not a token id"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(arguments: list[str], message: str) -> None:
    done = run("tokens", "add", *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
