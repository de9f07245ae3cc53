"""Dataframes that a server reads for the workers, which have no store, no key and no wide token."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from dask.dataframe.dask_expr.io import FromMap
from distributed import Client

from datasources_client import Client as ServerClient, DataSourceError
from datasources_dask import read_source, splits_of
from tests.dask.conftest import Shop, clustered, made_shop, rows_of, take_back_leases
from tests.dask.test_faults import connected_workers, pickles
from tests.dask.test_reading import SIX, pending_leases
from tests.server.served import ServeCommand
from tests.servers import Database
from tests.waiting import wait_until_blocking


class Api(NamedTuple):
    """The address of a server, and the token of a reader."""

    url: str
    token: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCommand]:
    """A server whose sources may have three connections."""
    config = tmp_path_factory.mktemp("served") / "config.toml"
    config.write_text("[pool]\nmax_size = 3\nacquire_timeout = 60\n")
    with ServeCommand("--allow-network", "127.0.0.0/8", config=config) as served:
        yield served


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[Client]:
    """Two processes whose environment says nothing of sources."""
    assert not [name for name in os.environ if name.startswith("DATASOURCE")]
    with clustered({}, 2) as client:
        yield client


@pytest.fixture
def cluster(bare_cluster: Client) -> Iterator[Client]:
    with bare_cluster.as_current():
        yield bare_cluster


@pytest.fixture
def shop(served: ServeCommand, pg_database: Database) -> Iterator[Shop]:
    """A source of the server on a database, whose tables a role of its own reads."""

    def register(source_id: str, options: dict[str, Any]) -> None:
        served.admin.create(source_id, "postgresql", **options)

    with made_shop(pg_database, register) as shop:
        yield shop


@pytest.fixture
def api(served: ServeCommand, shop: Shop, cluster: Client) -> Api:
    """The server, for somebody who may read the source and query it."""
    name = f"reader-{secrets.token_hex(4)}"
    token = served.command("tokens", "add", name, "--grant", f"{shop.id}:read,query").strip()
    return Api(f"http://127.0.0.1:{served.port}", token)


def variables() -> list[str]:
    """Return the variables of a process that could name a store, a key or a token."""
    return [name for name in os.environ if name.startswith("DATASOURCE")]


def test_the_partitions_are_the_table_as_it_was_planned(
    cluster: Client, shop: Shop, api: Api
) -> None:
    rows = shop.fill("t")
    assert not any(cluster.run(variables).values())
    with read_source(shop.id, "t", **SIX, url=api.url, token=api.token) as frame:
        shop.admin.execute("INSERT INTO t SELECT * FROM t; DELETE FROM t WHERE i % 2 = 0")
        assert [split.index for split in splits_of(frame)] == list(range(6))
        assert rows_of(frame.compute()) == rows
        assert len(frame[[]]) == rows.total()


def test_a_query_is_divided_by_its_key(shop: Shop, api: Api) -> None:
    rows = shop.fill("t")
    query = "SELECT * FROM t"
    with read_source(shop.id, query, **SIX, key="i", url=api.url, token=api.token) as frame:
        assert frame.npartitions == 6
        assert rows_of(frame.compute()) == rows


def test_the_token_of_the_environment_is_used(
    shop: Shop, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.fill("t", 3)
    monkeypatch.setenv("DATASOURCES_URL", api.url)
    monkeypatch.setenv("DATASOURCES_TOKEN", api.token)
    with read_source(shop.id, "t", url=api.url) as frame:
        assert len(frame) == 3


def test_the_graph_has_the_token_of_the_plan_and_no_other_secret(
    cluster: Client, served: ServeCommand, shop: Shop, api: Api
) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX, url=api.url, token=api.token) as frame:
        sent = pickles(cluster, frame.groupby("i").amount.sum())
        narrow = tokens_in(frame)
        with ServerClient(api.url, token=narrow) as client:
            for call in (
                client.sources_page,
                lambda: client.preview(shop.id, "t"),
                lambda: client.fetch(shop.id, "t"),
            ):
                with pytest.raises(DataSourceError, match="valid token"):
                    call()
    key = (served.home / "key").read_text().split()[-1]
    options = [shop.password, shop.role, shop.database.name, str(shop.gate.port)]
    for secret in [*options, api.token, served.admin.token or "", key]:
        assert secret.encode() not in sent
    for named in (shop.id, api.url, narrow):
        assert named.encode() in sent


def tokens_in(frame: Any) -> str:
    """Return the token that the readers of a dataframe have."""
    (source,) = frame.optimize(fuse=False).expr.find_operations(FromMap)
    reader = source.operand("args")[1]
    assert reader.token not in repr(reader)
    return str(reader.token)


def test_a_plan_that_has_ended_is_an_error(shop: Shop, api: Api) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX, url=api.url, token=api.token) as frame:
        pass
    # The server notices that the response was left, removes the token, and then ends the plan.
    wait_until_blocking(lambda: shop.transactions() == 0)
    with pytest.raises(DataSourceError, match="the plan of the token has ended"):
        frame.compute()


def test_an_item_that_is_not_granted_is_an_error(shop: Shop, api: Api) -> None:
    refused = pytest.raises(DataSourceError, match="no such source, or it is not granted")
    with refused, read_source("other", "t", url=api.url, token=api.token):
        pass


def test_readers_of_the_cluster_stay_within_the_concurrency_of_the_plan(
    cluster: Client, shop: Shop, api: Api
) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "t", **SIX, url=api.url, token=api.token) as frame:
        shop.gate.close_after(50_000)
        future = cluster.compute(frame)
        # Of four threads, two ask the server, and the others wait for their turn.
        wait_until_blocking(
            lambda: shop.gate.held == 2 and pending_leases(cluster) == 2, timeout=60
        )
        shop.gate.open()
        assert rows_of(future.result()) == rows


def test_another_worker_reads_the_split_of_one_that_was_killed(
    cluster: Client, served: ServeCommand, shop: Shop, api: Api
) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "t", **SIX, url=api.url, token=api.token) as frame:
        shop.gate.close_after(50_000)
        future = cluster.compute(frame)
        wait_until_blocking(lambda: shop.gate.held == 2, timeout=60)
        os.kill(connected_workers(cluster, served.port)[0], signal.SIGKILL)
        take_back_leases(cluster)
        shop.gate.open()
        assert rows_of(future.result()) == rows
    cluster.wait_for_workers(2)
