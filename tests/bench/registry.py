"""The registry and the command line's start, beside floors and peers, in one run.

The registry is measured beside the least that the same has to do: a coroutine that returns a
value of a dictionary, copies of as many plain configurations, SQLite's own insertion of as many
rows.  The start is that of a new environment, nothing in it editable, with 300 more distributions.
Time is that of the processes themselves: whatever else runs on the machine does not count.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasources import (
    ConnectError,
    CredentialManager,
    DataSourceConfig,
    DataSourceRegistry,
    PoolConfig,
    SQLiteStore,
)
from tests.core.fakes import MemoryConnector, fresh, registry_of, source

pytestmark = pytest.mark.bench

ROUNDS = 15
SOURCES = 10_000
CALLS = 20_000
DISTRIBUTIONS = 300


def median(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    return statistics.median(measure() for _ in range(rounds))


def spent(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def show(what: str, seconds: float, floor: float, unit: str = "ms") -> None:
    scale = {"us": 1e6, "ms": 1e3, "s": 1}[unit]
    print(
        f"{what:46}{seconds * scale:9.2f} {unit:3}floor {floor * scale:8.2f} {unit:3}"
        f"ratio {seconds / floor:7.2f}"
    )


def configs() -> list[DataSourceConfig]:
    return [
        source(f"s{number:05}", host="db.example", port=number, password="secret")
        for number in range(SOURCES)
    ]


def registry_at(path: Path) -> DataSourceRegistry:
    key = CredentialManager(CredentialManager.generate_key())
    return registry_of(fresh(), store=SQLiteStore(path), credential_manager=key)


class Heart:
    """Beats every 5 ms and keeps the longest that it had to wait besides."""

    async def __aenter__(self) -> Heart:
        gc.collect()
        gc.freeze()  # what the test runner has loaded is not searched for garbage meanwhile
        self.longest = 0.0
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0.02)
        self.longest = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.01)
        self._task.cancel()
        gc.unfreeze()

    async def _beat(self) -> None:
        while True:
            asleep = time.monotonic()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.monotonic() - asleep - 0.005)


async def test_registering_many_into_sqlite(tmp_path: Path):
    def inserted() -> float:
        connection = sqlite3.connect(tmp_path / f"floor-{time.monotonic_ns()}.db")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE s (a PRIMARY KEY, b, c, d, e, f, g, h, i) WITHOUT ROWID")
        with connection:
            return spent(
                lambda: connection.executemany(f"INSERT INTO s VALUES ({'?,' * 8}?)", rows)
            )

    took, stalls = [], []
    for number in range(3):
        sources = configs()
        async with registry_at(tmp_path / f"{number}.db") as registry, Heart() as heart:
            started = time.process_time()
            await registry.register_data_sources(sources)
            took.append(time.process_time() - started)
        stalls.append(heart.longest)
        store = SQLiteStore(tmp_path / f"{number}.db")
        rows = [record.to_row() for record in store.list()]
        store.close()
    # The least of the rounds: in the others something else may have had the processors.
    print(f"\nlongest stall of the event loop meanwhile{min(stalls) * 1e3:12.1f} ms")
    show(f"register {SOURCES:,} sources", statistics.median(took), median(inserted, 3), "s")
    assert len(rows) == SOURCES
    assert statistics.median(took) <= 2
    assert min(stalls) <= 0.05


async def test_listing_many(tmp_path: Path):
    async with registry_at(tmp_path / "s.db") as registry:
        await registry.register_data_sources(configs())
        listed_configs = registry.list_data_sources()
        listed = median(lambda: spent(registry.list_data_sources))
        copied = median(lambda: spent(lambda: [copy.copy(config) for config in listed_configs]))
        print()
        show(f"list {SOURCES:,} sources", listed, copied)
        assert len(listed_configs) == SOURCES
        assert listed <= 0.030


async def test_fetching_a_small_file(tmp_path: Path):
    """Fetch 5 bytes, beside copying them into a new file that then takes the name."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.csv").write_bytes(b"x\n1\n\n")
    config = DataSourceConfig("s", "local_file", "S", {"path": str(tmp_path / "files")})

    def copy_whole() -> None:
        part = tmp_path / "part"
        part.write_bytes((tmp_path / "files" / "a.csv").read_bytes())
        part.replace(tmp_path / "a.csv")

    async def fetch(registry: DataSourceRegistry, number: int) -> float:
        started = time.process_time()
        await registry.fetch("s", "a.csv", tmp_path / f"into-{number}")
        return time.process_time() - started

    cold, warm = [], []
    for number in range(ROUNDS):
        async with DataSourceRegistry() as registry:
            await registry.register_data_source(config)
            cold.append(await fetch(registry, number))
            warm += [await fetch(registry, number) for _ in range(20)]
    floor = median(lambda: spent(copy_whole), 200)
    print()
    show("fetch a small file, first of a registry", statistics.median(cold), floor)
    show("fetch a small file", statistics.median(warm), floor)
    assert statistics.median(cold) <= 4e-3
    assert statistics.median(warm) <= 1.5e-3


async def test_getting_what_is_connected():
    async def floor(source_id: str) -> Any:
        return connectors[source_id]

    async def calls(get: Callable[[str], Any]) -> float:
        started = time.process_time()
        for _ in range(CALLS):
            await get("s")
        return (time.process_time() - started) / CALLS

    async with registry_of(fresh()) as registry:
        await registry.register_data_source(source())
        connectors = {"s": await registry.get_connector("s")}
        got = statistics.median([await calls(registry.get_connector) for _ in range(ROUNDS)])
        least = statistics.median([await calls(floor) for _ in range(ROUNDS)])
        print()
        show("get_connector of a connected source", got, least, "us")
        assert got <= 3e-6


async def test_a_hanging_source_delays_nobody_else():
    class Uneven(MemoryConnector):
        async def connect(self) -> bool:
            if self.options.host == "hanging":
                await asyncio.Event().wait()
            if self.options.host == "slow":
                await asyncio.sleep(1)
            return await super().connect()

    hosts = {0: "hanging", 1: "slow", 2: "unreachable"}
    sources = [source(f"s{i}", host=hosts.get(i, "ok")) for i in range(1_000)]
    waits: dict[str, float] = {}

    async def timed(registry: DataSourceRegistry, source_id: str) -> None:
        started = time.monotonic()
        try:
            await registry.get_connector(source_id)
        except ConnectError:
            pass
        finally:
            waits[source_id] = time.monotonic() - started

    config = PoolConfig(connect_attempts=1)
    async with registry_of(fresh(Uneven), pool_config=config) as registry:
        await registry.register_data_sources(sources)
        stuck = [asyncio.create_task(timed(registry, f"s{i}")) for i in range(3)]
        async with Heart() as heart:
            for reachable in sources[3:]:
                await timed(registry, reachable.id)
        others = [waits[reachable.id] for reachable in sources[3:]]
        stuck[0].cancel()
        await asyncio.wait(stuck)
    print()
    show("get_connector, cold, one hangs: longest", max(others), statistics.median(others))
    print(f"longest stall of the event loop meanwhile{heart.longest * 1e3:12.1f} ms")
    assert max(others) <= 0.05


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the core, pytest and 300 distributions more."""
    where = tmp_path_factory.mktemp("start") / "environment"
    core = Path(__file__).parents[2] / "core"
    subprocess.run([sys.executable, "-m", "venv", where], check=True)
    python = str(where / "bin" / "python")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{core}[cli]", "pytest"], check=True, capture_output=True)
    (packages,) = where.glob("lib/python*/site-packages")
    for number in range(DISTRIBUTIONS):
        info = packages / f"tiny_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-{number}\nVersion: 1\n")
        if number % 3 == 0:
            (info / "entry_points.txt").write_text(f"[console_scripts]\ntiny-{number} = tiny:x\n")
    return where / "bin"


def cpu_of(*command: object) -> float:
    """Return the CPU seconds of a process, read where no configuration of ours is."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PY", "COV"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        list(map(str, command)), env=environment, cwd="/", check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_start(programs: Path):
    python = programs / "python"
    commands: dict[str, tuple[object, ...]] = {
        "python -c pass": (python, "-c", "pass"),
        "import pluggy": (python, "-c", "import pluggy"),
        "import datasources": (python, "-c", "import datasources"),
        "datasources plugins": (programs / "datasources", "plugins"),
        "pytest --version": (programs / "pytest", "--version"),
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(ROUNDS + 1):
        for name, command in commands.items():
            seconds = cpu_of(*command)
            if round_:  # the first writes the bytecode
                took[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    print()
    for name, seconds in medians.items():
        ratio = seconds / medians["pytest --version"]
        print(f"{name:24}{seconds:8.4f} s  {ratio:5.2f} x pytest --version")
    bare = medians["python -c pass"]
    added = (medians["import datasources"] - bare) / (medians["import pluggy"] - bare)
    print(f"import datasources adds {added:.2f} x what import pluggy adds")
    assert medians["datasources plugins"] <= 0.8 * medians["pytest --version"]
    assert added <= 1.5
