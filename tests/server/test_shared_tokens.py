"""Servers on one PostgreSQL store share their tokens."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from datasources import CredentialManager
from tests.server.client import HOST, Client
from tests.server.served import ServeCommand
from tests.servers import Database
from tests.waiting import wait_until_blocking

# Counts for hours.
SLOW = "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b"


@pytest.fixture
def two(pg_database: Database) -> Iterator[tuple[ServeCommand, ServeCommand]]:
    """Two servers with a store in common and homes of their own, as on two machines."""
    environment = {
        "DATASOURCES_STORE": pg_database.dsn(),
        "DATASOURCE_ENCRYPTION_KEY": CredentialManager.generate_key(),
    }
    local = ("--allow-network", "127.0.0.0/8")
    with (
        ServeCommand(*local, environment=environment) as one,
        ServeCommand(*local, environment=environment) as other,
    ):
        yield one, other


def tokens(client: Client) -> dict[str, Any]:
    return {token["name"]: token for token in client("GET", "/tokens").json["items"]}


def test_first_start_makes_one_administrator_of_all_servers(
    two: tuple[ServeCommand, ServeCommand],
) -> None:
    one, other = two
    assert not (other.home / "admin-token").exists()
    assert not (one.home / "tokens.json").exists()
    there = Client(other.port, one.admin.token)
    assert there("GET", "/me").json == {"id": "admin", "admin": True, "tokens": True}


def test_token_of_one_server_is_good_on_the_other_until_it_is_revoked_there(
    two: tuple[ServeCommand, ServeCommand],
) -> None:
    one, other = two
    ann = one.command("tokens", "add", "ann", "--grant", "lake:read").strip()
    here, there = Client(one.port, ann), Client(other.port, ann)
    wait_until_blocking(lambda: there("GET", "/me").status == 200)
    assert here("GET", "/me").status == 200
    assert Client(other.port, one.admin.token)("DELETE", "/tokens/ann").status == 204
    wait_until_blocking(lambda: here("GET", "/me").status == 401)
    assert there("GET", "/me").status == 401
    assert "ann" not in other.command("tokens", "list")


def test_token_that_another_server_revokes_ends_what_it_has_started(
    two: tuple[ServeCommand, ServeCommand], pg_database: Database
) -> None:
    one, other = two
    options = {"dsn": pg_database.dsn(), "allow_privileged_role": True}
    one.admin.create("shop", "postgresql", **options)
    ann = one.command("tokens", "add", "ann", "--grant", "shop:read,query").strip()
    headers = {"Authorization": f"Bearer {ann}", "Content-Type": "application/json"}

    def running() -> int:
        with psycopg.connect(pg_database.dsn(), autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                " AND query LIKE '%generate_series(1, 100000)%' AND pid <> pg_backend_pid()"
            ).fetchone()
        assert row
        return int(row[0])

    with closing(http.client.HTTPConnection(HOST, one.port, timeout=30)) as connection:
        body = json.dumps({"item": SLOW})
        connection.request("POST", "/v1/sources/shop/content", body, headers)
        wait_until_blocking(lambda: running() == 1)
        other.command("tokens", "revoke", "ann")
        response = connection.getresponse()
        assert response.status == 401
    wait_until_blocking(lambda: running() == 0)


def test_stream_ends_when_nobody_can_tell_if_its_token_was_revoked(
    pg_database: Database, postgres: Any, tmp_path: Path
) -> None:
    config = tmp_path / "datasources.toml"
    config.write_text("[server]\nrecheck_seconds = 1\nconfirm_seconds = 2\nopen_metrics = true\n")
    environment = {
        "DATASOURCES_STORE": pg_database.dsn(),
        "DATASOURCE_ENCRYPTION_KEY": CredentialManager.generate_key(),
    }
    with ServeCommand(config=config, environment=environment) as server:
        data = server.directory / "data"
        with (data / "large.bin").open("wb") as file:
            file.truncate(64 << 20)
        server.admin.create("lake", path=str(data))
        headers = {"Authorization": f"Bearer {server.admin.token}"}
        headers["Content-Type"] = "application/json"
        body = json.dumps({"item": "large.bin"})
        with closing(http.client.HTTPConnection(HOST, server.port, timeout=60)) as connection:
            connection.request("POST", "/v1/sources/lake/content?stream=true", body, headers)
            response = connection.getresponse()  # most of it waits to be read
            assert response.status == 200
            postgres.kill()
            figures = Client(server.port, "")
            ended = 'requests_total{method="POST",route="/sources/{source_id}/content"'
            wait_until_blocking(
                lambda: ended in figures("GET", "/metrics", prefix="").body.decode(), timeout=60
            )
            with pytest.raises(http.client.IncompleteRead):
                response.read()
        postgres.start()


def test_last_use_is_shown_on_both_and_tokens_of_commands_are_in_the_trail(
    two: tuple[ServeCommand, ServeCommand],
) -> None:
    one, other = two
    root = one.admin
    ann = one.command("tokens", "add", "ann", "--grant", "lake:read").strip()
    assert tokens(root)["ann"]["last_used_at"] is None
    wait_until_blocking(lambda: Client(other.port, ann)("GET", "/me").status == 200)
    wait_until_blocking(lambda: tokens(root)["ann"]["last_used_at"])
    used_at = tokens(root)["ann"]["last_used_at"]
    listed = json.loads(one.command("tokens", "list", "--json"))
    assert [token["last_used_at"] for token in listed if token["name"] == "ann"] == [used_at]
    one.command("tokens", "revoke", "ann")
    one.command("tokens", "add", "ann", "--grant", "lake:read")
    assert tokens(root)["ann"]["last_used_at"] is None  # that was another token
    for operation, times in (("token_made", 2), ("token_revoked", 1)):
        entries = root("GET", "/audit", operation=operation).json["items"]
        assert [entry["token"] for entry in entries] == ["ann"] * times
        assert all(entry["user"] for entry in entries)


def test_store_that_goes_away_admits_nobody_and_comes_back(
    two: tuple[ServeCommand, ServeCommand], postgres: Any
) -> None:
    one, _ = two
    root = one.admin
    postgres.kill()
    wait_until_blocking(lambda: root("GET", "/me").status == 503)
    assert root("GET", "/sources").slug == "store-failed"
    postgres.start()
    wait_until_blocking(lambda: root("GET", "/me").status == 200)
