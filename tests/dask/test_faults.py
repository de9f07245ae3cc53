"""Faults between plan and result: the right rows or a clear error, and no secret in either."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from typing import Any

import cloudpickle
import psutil
import pytest
from distributed import Client
from psycopg import sql

from datasources import AuthenticationError, ConflictError, ConnectorError, DataSourceError
from datasources.blocking import DataSourceRegistry
from datasources_dask import read_source
from tests.dask.conftest import Environment, Shop, clustered, rows_of, take_back_leases
from tests.dask.test_reading import SIX
from tests.servers import PostgresServer
from tests.waiting import wait_until_blocking

pytestmark = pytest.mark.usefixtures("cluster")


def connected_workers(client: Client, port: int) -> list[int]:
    """Return the process ids of the workers that are connected to a port."""
    return [
        pid
        for pid in client.run(os.getpid).values()
        if any(
            connection.raddr[1:] == (port,)
            for connection in psutil.Process(pid).net_connections("tcp4")
        )
    ]


def test_another_worker_reads_the_split_of_one_that_was_killed(cluster: Client, shop: Shop) -> None:
    rows = shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        shop.gate.close_after(50_000)
        future = cluster.compute(frame)
        wait_until_blocking(lambda: shop.gate.held == 2, timeout=60)
        os.kill(connected_workers(cluster, shop.gate.port)[0], signal.SIGKILL)
        take_back_leases(cluster)
        shop.gate.open()
        assert rows_of(future.result()) == rows
    cluster.wait_for_workers(2)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_killed_workers_never_give_wrong_rows(
    environment: Environment, shop: Shop, workers: int
) -> None:
    rows = shop.fill("t")
    with clustered(environment, workers) as client:
        for size in range(20_000, 160_000, 20_000):
            with read_source(shop.id, "t", **SIX, client=client) as frame:
                shop.gate.close_after(size)
                future = client.compute(frame)
                wait_until_blocking(lambda: shop.gate.held, timeout=60)
                os.kill(connected_workers(client, shop.gate.port)[0], signal.SIGKILL)
                take_back_leases(client)
                shop.gate.open()
                assert rows_of(future.result()) == rows
            client.wait_for_workers(workers)


def test_a_plan_that_has_ended_is_an_error(shop: Shop) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        pass
    with pytest.raises(ConnectorError, match="plan of the split has ended"):
        frame.compute()
    wait_until_blocking(lambda: shop.connections() == 0)


def test_a_source_that_was_restarted_is_an_error(shop: Shop, postgres: PostgresServer) -> None:
    shop.fill("t")
    # The restart may be reported by a reader, or at the end of the plan.
    with pytest.raises(ConnectorError), read_source(shop.id, "t", **SIX) as frame:  # noqa: PT012
        postgres.restart()
        frame.compute()


def test_a_source_that_was_configured_anew_is_an_error(
    registry: DataSourceRegistry, shop: Shop
) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        registry.update_data_source(shop.id, {"config": {"statement_timeout": 77}})
        with pytest.raises(ConflictError, match="as it is configured now"):
            frame.compute()


def test_columns_that_have_changed_are_an_error(shop: Shop) -> None:
    shop.admin.execute("CREATE TABLE t AS SELECT 1 AS i; CREATE VIEW v AS SELECT * FROM t")
    with read_source(shop.id, "v") as frame:  # undivided: no lock keeps the view as it is
        shop.admin.execute("DROP VIEW v; CREATE VIEW v AS SELECT i::text FROM t")
        shop.admin.execute(sql.SQL("GRANT SELECT ON v TO {}").format(sql.Identifier(shop.role)))
        with pytest.raises(DataSourceError, match="has other columns since; plan again"):
            frame.compute()


def pickles(client: Client, frame: Any) -> bytes:
    """Return what is sent of a dataframe: its expression, its optimized one, and its tasks."""
    optimized = frame.optimize()
    sent = [frame, frame.expr, optimized, optimized.expr, dict(optimized.__dask_graph__())]
    return b"".join(cloudpickle.dumps(part) for part in sent)


def test_the_graph_has_no_option_and_no_key(
    cluster: Client, shop: Shop, environment: Environment
) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        sent = pickles(cluster, frame.groupby("i").amount.sum())
    assert shop.id.encode() in sent
    options = [shop.password, shop.role, shop.database.name, str(shop.gate.port)]
    for secret in [*options, *environment.values()]:
        assert secret.encode() not in sent


def test_the_error_of_a_worker_has_no_secret(cluster: Client, shop: Shop) -> None:
    shop.fill("t")
    with read_source(shop.id, "t", **SIX) as frame:
        role = sql.Identifier(shop.role)
        shop.admin.execute(sql.SQL("ALTER ROLE {} PASSWORD 'other'").format(role))
        with pytest.raises(AuthenticationError) as caught:
            frame.compute()
    shown = "".join(traceback.format_exception(caught.value)).encode()
    assert shop.password.encode() not in shown + pickle.dumps(caught.value)
