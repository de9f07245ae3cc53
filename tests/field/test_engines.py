"""Ray and Spark read the splits of a plan by the functions that docs/dask.md shows."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from datasources.blocking import DataSourceRegistry, SplitPlan
from datasources_dask import open_registry
from tests.conftest import IN_CI
from tests.dask.conftest import Environment, Rows, Shop
from tests.docs.blocks import DOCS, blocks
from tests.servers.debian import JAVA, require
from tests.servers.process import HOST, ServerError, kill_tree
from tests.waiting import wait_until_blocking

SIX: dict[str, Any] = {"target_bytes": 1, "max_splits": 6}
CORES = 3  # one more than the readers that the pool of the environment admits


class Engine(ABC):
    """An engine with `CORES` worker processes, which are descendants of this process."""

    def __init__(self, name: str) -> None:
        self.read_on = functions(name)[f"read_on_{name}"]

    @abstractmethod
    def stop(self) -> None:
        """End the engine and wait for the processes that this one has started."""

    @abstractmethod
    def read(self, plan: SplitPlan) -> list[dict[str, Any]]:
        """Return the rows of a plan, as the page reads them."""

    @abstractmethod
    def use_free_core(self) -> None:
        """Run a task after those that wait for a core."""

    @abstractmethod
    def sent(self, plan: SplitPlan) -> bytes:
        """Return what workers are sent to read a plan."""


class Ray(Engine):
    """A node of Ray.

    Args:
        directory: For its files; its name is short, as sockets are among them.
    """

    def __init__(self, directory: str) -> None:
        super().__init__("ray")
        self._ray = importlib.import_module("ray")
        self._worker = importlib.import_module("ray._private.worker")
        self._ray.init(
            num_cpus=CORES,
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address=HOST,
            _temp_dir=directory,
        )

    def stop(self) -> None:
        started = self._worker._global_node.all_processes.values()
        self._ray.shutdown()  # waits a second for each
        for info in [info for infos in started for info in infos]:
            info.process.wait(60)

    def read(self, plan: SplitPlan) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.read_on(plan)
        return rows

    def use_free_core(self) -> None:
        self._ray.get(self._ray.remote(lambda: None).remote())

    def sent(self, plan: SplitPlan) -> bytes:
        self.read(plan)
        worker = self._worker.global_worker
        keys = worker.gcs_client.internal_kv_keys(b"", b"fun")
        functions = [worker.gcs_client.internal_kv_get(key, b"fun") for key in keys]
        arguments = [self._ray.cloudpickle.dumps(split.to_dict()) for split in plan.splits]
        job = worker.core_worker.get_job_config().SerializeToString()
        return b"".join([*functions, *arguments, job])


class Spark(Engine):
    """Spark in local mode, which tries each task twice.

    Args:
        directory: For its files.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__("spark")
        builder = importlib.import_module("pyspark.sql").SparkSession.builder
        settings = {
            "spark.driver.bindAddress": HOST,
            "spark.driver.host": HOST,
            "spark.local.dir": str(directory),
            "spark.log.level": "OFF",
            "spark.ui.enabled": "false",
        }
        self._session = builder.master(f"local[{CORES}, 2]").config(map=settings).getOrCreate()

    def stop(self) -> None:
        context = importlib.import_module("pyspark").SparkContext
        gateway = context._gateway
        self._session.stop()
        gateway.shutdown()
        context._gateway = context._jvm = None
        gateway.proc.stdin.close()  # ends it
        gateway.proc.wait(60)

    def read(self, plan: SplitPlan) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.read_on(self._session, plan).collect()
        return rows

    def use_free_core(self) -> None:
        assert self._session.sparkContext.parallelize([1], 1).map(lambda _: 2).collect() == [2]

    def sent(self, plan: SplitPlan) -> bytes:
        java = self._session.sparkContext._jvm.java.io
        tasks = self.read_on(self._session, plan)._jrdd.rdd()
        buffer = java.ByteArrayOutputStream()
        stream = java.ObjectOutputStream(buffer)
        for part in (tasks, *tasks.partitions()):
            stream.writeObject(part)
        return bytes(buffer.toByteArray())


def functions(engine: str) -> dict[str, Any]:
    """Return what the page defines for an engine, as in a program: workers cannot import it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(DOCS / "dask.md"):
        if block.text.startswith("def read(") or f"def read_on_{engine}(" in block.text:
            exec(compile(block.text, str(block), "exec"), names)
    return names


@contextmanager
def started(
    start: Callable[[], Engine], own: Mapping[str, str], shared: Mapping[str, str]
) -> Iterator[Engine]:
    """Start an engine for a block, with variables of its own and those that all share.

    At the end this process is as before, and processes that the engine has left are killed by id.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    prefixes = ("RAY_", "SPARK_", "PYSPARK_")
    before = {name: os.environ[name] for name in os.environ if name.startswith(prefixes)}
    others = set(psutil.Process().children())
    os.environ.update(own)
    with mock.patch.dict(os.environ, shared):
        engine = start()
        variables = {name: os.environ[name] for name in os.environ if name.startswith(prefixes)}
    os.environ.update(variables)  # those that the engine has set, too
    roots = set(psutil.Process().children()) - others
    try:
        yield engine
    finally:
        members = [*roots, *(child for root in roots for child in root.children(recursive=True))]
        engine.stop()
        for member in members:
            kill_tree(member)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def require_module(name: str) -> None:
    if find_spec(name) is None:
        unavailable(f"{name} is missing; pip install {name}")


def unavailable(message: str) -> None:
    pytest.fail(message) if IN_CI else pytest.skip(message)


@pytest.fixture(scope="module")
def ray(environment: Environment) -> Iterator[Engine]:
    """A node of Ray, started with the variables of the store."""
    require_module("ray")
    variables = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the addresses of a node that stays alone
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of tasks that a plan with an error does not wait for
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as directory,
        started(lambda: Ray(directory), variables, {**environment, "HOME": directory}) as engine,
    ):
        yield engine


@pytest.fixture(scope="module")
def spark(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Spark, started with the variables of the store."""
    require_module("pyspark")
    try:
        if shutil.which("java") is None:
            require(JAVA)
    except ServerError as exc:
        unavailable(str(exc))
    variables = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": HOST}
    directory = tmp_path_factory.mktemp("spark")
    with started(lambda: Spark(directory), variables, environment) as engine:
        yield engine


@pytest.fixture(params=["ray", "spark"])
def engine(request: pytest.FixtureRequest, registry: DataSourceRegistry) -> Engine:
    """Each engine; this process has the variables of the store as well."""
    found: Engine = request.getfixturevalue(request.param)
    return found


@contextmanager
def planned(source_id: str, item: str) -> Iterator[SplitPlan]:
    with open_registry() as registry, registry.plan(source_id, item, **SIX) as plan:
        assert len(plan.splits) == 6
        yield plan


def rows_of(read: list[dict[str, Any]]) -> Rows:
    return Counter(tuple(row.values()) for row in read)


@contextmanager
def held(
    engine: Engine, shop: Shop, plan: SplitPlan
) -> Iterator[tuple[Future[list[dict[str, Any]]], ThreadPoolExecutor]]:
    """Read a plan in a thread, for a block in which readers get the beginning of their rows only.

    The block begins when two of them wait. It has a second thread.
    """
    shop.gate.close_after(50_000)
    with ThreadPoolExecutor(2) as threads:
        future = threads.submit(engine.read, plan)
        try:
            wait_until_blocking(lambda: shop.gate.held >= 2 or future.done(), timeout=120)
            yield future, threads
        finally:
            shop.gate.open()


def test_the_rows_are_the_table_as_it_was_planned(engine: Engine, shop: Shop) -> None:
    rows = shop.fill("t")
    with planned(shop.id, "t") as plan:
        shop.admin.execute("INSERT INTO t SELECT * FROM t; DELETE FROM t WHERE i % 2 = 0")
        assert rows_of(engine.read(plan)) == rows


def test_files_are_read(engine: Engine, lake: tuple[str, Path]) -> None:
    source_id, folder = lake
    lines = [f"{i},{i / 4}\n" for i in range(3000)]
    (folder / "t.csv").write_text("i,amount\n" + "".join(lines))
    with planned(source_id, "t.csv") as plan:
        assert plan.concurrency is None
        assert rows_of(engine.read(plan)) == Counter((i, i / 4) for i in range(3000))


def test_readers_are_as_many_as_the_plan_admits(engine: Engine, shop: Shop) -> None:
    rows = shop.fill("t")
    with planned(shop.id, "t") as plan:
        assert plan.concurrency == CORES - 1
        with held(engine, shop, plan) as (future, threads):
            # A third reader would have the core.
            threads.submit(engine.use_free_core).result(timeout=60)
            assert shop.connections() == 3
        assert rows_of(future.result()) == rows


def test_another_worker_reads_the_splits_of_one_that_was_killed(engine: Engine, shop: Shop) -> None:
    rows = shop.fill("t")
    with planned(shop.id, "t") as plan:
        with held(engine, shop, plan) as (future, _):
            os.kill(reading_workers(shop)[0], signal.SIGKILL)
        assert rows_of(future.result()) == rows


def reading_workers(shop: Shop) -> list[int]:
    """Return the ids of the processes below this one that are connected to the source."""
    return [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        for connection in process.net_connections("tcp4")
        if connection.raddr[1:] == (shop.gate.port,)
    ]


def test_a_plan_that_has_ended_is_an_error_without_secrets(
    engine: Engine, shop: Shop, environment: Environment
) -> None:
    shop.fill("t")
    with planned(shop.id, "t") as plan:
        pass
    with pytest.raises(Exception, match="plan of the split has ended") as caught:
        engine.read(plan)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in [shop.password, *environment.values()]:
        assert secret not in shown


def test_workers_are_sent_no_option_and_no_key(
    engine: Engine, shop: Shop, lake: tuple[str, Path], environment: Environment
) -> None:
    shop.fill("t")
    (lake[1] / "t.csv").write_text("i\n" + "1\n" * 100)
    with planned(shop.id, "t") as table, planned(lake[0], "t.csv") as file:
        sent = engine.sent(table) + engine.sent(file)
    for name in (shop.id, lake[0], "read_split"):
        assert name.encode() in sent
    options = [shop.password, shop.role, shop.database.name, str(shop.gate.port), str(lake[1])]
    for secret in [*options, *environment.values()]:
        assert secret.encode() not in sent


@pytest.mark.usefixtures("engine")
def test_nothing_listens_for_other_machines() -> None:
    addresses = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses <= {HOST, f"::ffff:{HOST}", "::1"}
