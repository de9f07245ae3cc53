"""Spans and metrics, as OpenTelemetry's own SDK collects them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from datasources import (
    ConnectError,
    DataItem,
    DataSourceConnector,
    DataSourceError,
    DataSourceRegistry,
    FetchReceipt,
    Limits,
    Workspace,
    caller,
)
from datasources.plugins import Plugins
from datasources.registry.observing import observe
from datasources.telemetry import Telemetry
from tests.core.fakes import (
    AbleConnector,
    MemoryConnector,
    blocking_registry_of,
    registry_of,
    source,
)
from tests.core.subprocesses import run_python
from tests.waiting import wait_until


@dataclass
class Collected:
    """What one host's OpenTelemetry has collected."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracers: TracerProvider
    tracer: trace.Tracer
    telemetry: Telemetry

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        spans = self.exporter.get_finished_spans()
        return [span for span in spans if name is None or span.name == name]

    def metric(self, name: str) -> Any:
        data = self.reader.get_metrics_data()
        assert data
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return next(metric for metric in metrics if metric.name == name)

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        points = self.metric(name).data.data_points
        return [(dict(point.attributes), point) for point in points]


@pytest.fixture
def otel() -> Iterator[Collected]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    host = tracers.get_tracer("host")
    yield Collected(exporter, reader, tracers, host, Telemetry(tracers, meters))
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """OpenTelemetry logs what it was used wrongly for, such as detaching a foreign context."""
    yield
    assert [r for r in caplog.records if r.name.startswith("opentelemetry")] == []


def traced(otel: Collected) -> type[AbleConnector]:
    """Return a connector class whose driver makes spans of its own, and counts rows."""

    class Traced(AbleConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            with otel.tracer.start_as_current_span(f"driver {identifier}"):
                await asyncio.sleep(0)
                if identifier == "missing":
                    raise ConnectError("refused: postgresql://u:hunter2@db/x")
                if identifier == "slow":
                    await asyncio.sleep(60)
                with Workspace.of(workspace).create(identifier) as file:
                    file.write(b"x\n1\n2\n")
                    file.rows = 2
                return file.path

    return Traced


async def observing(
    otel: Collected, cls: type[DataSourceConnector] | None = None
) -> DataSourceRegistry:
    registry = registry_of(cls or traced(otel))
    await registry.register_data_source(source())
    registry.plugins.register_plugin(otel.telemetry)
    return registry


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: Any) -> int:
    return int(span.get_span_context().span_id)


async def test_a_fetch_is_a_span_between_the_hosts_and_the_drivers(
    otel: Collected, tmp_path: Path
) -> None:
    async with await observing(otel) as registry:
        with caller(user="ann", request_id="r1"), otel.tracer.start_as_current_span("host") as host:
            await registry.fetch("s", "a.csv", tmp_path)
            assert trace.get_current_span() is host
    driver, fetch, _ = otel.spans()
    assert (fetch.name, fetch.kind, parent_of(fetch)) == (
        "datasources.fetch",
        SpanKind.CLIENT,
        id_of(host),
    )
    assert (driver.name, parent_of(driver)) == ("driver a.csv", id_of(fetch))
    assert fetch.status.status_code is StatusCode.UNSET
    assert dict(fetch.attributes or {}) == {
        "datasources.operation": "fetch",
        "datasources.source.id": "s",
        "datasources.request.id": "r1",
        "enduser.id": "ann",
        "datasources.result.size": 6,
        "datasources.result.rows": 2,
        "datasources.result.truncated": False,
    }
    assert fetch.instrumentation_scope is not None
    assert fetch.instrumentation_scope.name == "datasources"
    assert fetch.instrumentation_scope.version


async def test_identifiers_are_told_only_on_request_and_masked_then(
    otel: Collected,
) -> None:
    query = "select 'ann' -- password=hunter2"
    for telemetry in (otel.telemetry, Telemetry(otel.tracers, identifiers=True)):
        async with registry_of(MemoryConnector) as registry:
            await registry.register_data_source(source())
            registry.plugins.register_plugin(telemetry)
            await registry.list_items("s", query)
    silent, telling = [dict(span.attributes or {}) for span in otel.spans()]
    assert "ann" not in str(silent)
    assert telling["datasources.identifier"] == "select 'ann' -- password=***REDACTED***"


async def test_operations_in_parallel_are_siblings_each_with_its_own_drivers_span(
    otel: Collected, tmp_path: Path
) -> None:
    async with await observing(otel) as registry:
        with otel.tracer.start_as_current_span("host") as host:
            wanted = [("s", f"{n}.csv") for n in range(20)]
            assert all(r.receipt for r in await registry.fetch_many(wanted, tmp_path))
    fetches = otel.spans("datasources.fetch")
    drivers = [span for span in otel.spans() if span.name.startswith("driver")]
    assert {parent_of(span) for span in fetches} == {id_of(host)}
    assert sorted(map(id_of, fetches)) == sorted(parent_of(span) or 0 for span in drivers)
    assert len({id_of(span) for span in fetches}) == 20


async def test_a_failure_is_an_error_by_class_without_its_text(
    otel: Collected, tmp_path: Path
) -> None:
    async with await observing(otel) as registry:
        with pytest.raises(ConnectError):
            await registry.fetch("s", "missing", tmp_path)
        with pytest.raises(DataSourceError):
            await registry.fetch("s", "slow", tmp_path, limits=Limits(timeout=0.01))
    failed, late = otel.spans("datasources.fetch")
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "ConnectError",
    )
    assert (failed.attributes or {})["error.type"] == "ConnectError"
    assert "refused" not in failed.to_json()
    assert failed.events == ()
    assert (late.attributes or {})["error.type"] == "LimitExceededError"


async def test_figures_that_are_no_numbers_end_their_span(otel: Collected, tmp_path: Path) -> None:
    class Boasting(AbleConnector):
        async def fetch_data(self, identifier: str, workspace: str) -> str:
            with Workspace.of(workspace).create(identifier) as file:
                file.rows = "many"  # type: ignore[assignment]
            return file.path

    async with await observing(otel, Boasting) as registry:
        await registry.fetch("s", "a.csv", tmp_path)
        await registry.list_items("s")
    (fetched,), (listed,) = otel.spans("datasources.fetch"), otel.spans("datasources.list_items")
    assert (fetched.attributes or {})["datasources.result.rows"] == "many"
    assert parent_of(listed) is None


async def test_a_cancelled_operation_ends_its_span(otel: Collected, tmp_path: Path) -> None:
    async with await observing(otel) as registry:
        task = asyncio.create_task(registry.fetch("s", "slow", tmp_path))
        await wait_until(lambda: registry.get_pool_stats("s")["in_use"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (span,) = otel.spans("datasources.fetch")
    assert span.status.description == "CancelledError"
    assert not trace.get_current_span().is_recording()


async def test_iterations_leave_the_readers_context_alone_wherever_they_end(
    otel: Collected,
) -> None:
    async with await observing(otel) as registry:
        with otel.tracer.start_as_current_span("host") as host:
            first, second = registry.iter_items("s"), registry.iter_items("s")
            await anext(first)
            await anext(second)
            assert trace.get_current_span() is host
            await first.aclose()  # type: ignore[attr-defined]
            # As a generator that its reader forgets is closed: in a task of the loop's.
            del second
            gc.collect()
            await wait_until(lambda: len(otel.spans("datasources.iter_items")) == 2)
            assert trace.get_current_span() is host
            assert len([item async for item in registry.iter_items("s")]) == 2
            assert trace.get_current_span() is host
    spans = otel.spans("datasources.iter_items")
    assert {parent_of(span) for span in spans} == {id_of(host)}
    assert [(span.attributes or {})["datasources.result.items"] for span in spans] == [1, 1, 2]
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


def test_an_operation_closed_in_another_context_disturbs_neither(otel: Collected) -> None:
    plugins = Plugins(index=[])
    plugins.register_plugin(otel.telemetry)

    async def work() -> None:
        with observe(plugins, "fetch", "s"):
            await asyncio.sleep(0)

    elsewhere = contextvars.copy_context()
    with otel.tracer.start_as_current_span("host") as host:
        coroutine = work()
        elsewhere.run(coroutine.send, None)
        coroutine.close()
        assert trace.get_current_span() is host
    assert len(otel.spans("datasources.fetch")) == 1


async def test_an_operation_begun_before_is_measured_all_the_same(otel: Collected) -> None:
    registry = registry_of(MemoryConnector)
    with observe(registry.plugins, "fetch", "s"):
        registry.plugins.register_plugin(otel.telemetry)
    assert otel.spans() == []
    ((_, point),) = otel.points("datasources.operation.duration")
    assert point.count == 1


def test_operations_of_the_blocking_registry_are_children_of_the_calling_threads_span(
    otel: Collected, tmp_path: Path
) -> None:
    with blocking_registry_of(traced(otel)) as registry:
        registry.register_data_source(source())
        registry._asynchronous.plugins.register_plugin(otel.telemetry)
        with otel.tracer.start_as_current_span("host") as host:
            registry.fetch("s", "a.csv", tmp_path)
    (fetch,) = otel.spans("datasources.fetch")
    (driver,) = otel.spans("driver a.csv")
    assert (parent_of(fetch), parent_of(driver)) == (id_of(host), id_of(fetch))


async def test_shared_loads_of_metadata_are_one_span_and_leave_every_caller_its_own(
    otel: Collected,
) -> None:
    async with await observing(otel) as registry:

        async def ask(n: int) -> None:
            with otel.tracer.start_as_current_span(f"caller {n}") as mine:
                await registry.get_metadata("s", "a.csv")
                assert trace.get_current_span() is mine

        await asyncio.gather(*map(ask, range(5)))
    assert len(otel.spans("datasources.get_metadata")) == 1


async def test_durations_sizes_and_rows_are_measured(otel: Collected, tmp_path: Path) -> None:
    async with await observing(otel) as registry:
        for identifier in ("a.csv", "b.csv", "missing"):
            await registry.fetch_many([("s", identifier)], tmp_path)
        await registry.list_items("s")
    fetch = {"datasources.operation": "fetch", "datasources.source.id": "s"}
    listing = {"datasources.operation": "list_items", "datasources.source.id": "s"}
    counts = {
        frozenset(attributes.items()): point.count
        for attributes, point in otel.points("datasources.operation.duration")
    }
    assert counts == {
        frozenset(fetch.items()): 2,
        frozenset((fetch | {"error.type": "ConnectError"}).items()): 1,
        frozenset(listing.items()): 1,
    }
    ((of, size),) = otel.points("datasources.fetch.size")
    assert (of, size.count, size.sum) == ({"datasources.source.id": "s"}, 2, 12)
    ((of, rows),) = otel.points("datasources.fetch.rows")
    assert (of, rows.value) == ({"datasources.source.id": "s"}, 4)
    duration, brought = (
        otel.metric(name) for name in ("datasources.operation.duration", "datasources.fetch.size")
    )
    assert (duration.unit, brought.unit) == ("s", "By")
    # In seconds and bytes, not the default ones.
    assert 0.1 in duration.data.data_points[0].explicit_bounds
    assert 10**9 in brought.data.data_points[0].explicit_bounds


async def test_ids_that_do_not_exist_make_no_time_series_of_their_own(otel: Collected) -> None:
    async with await observing(otel) as registry:
        for n in range(10):
            with pytest.raises(DataSourceError):
                await registry.list_items(f"nobody-{n}")
            with pytest.raises(DataSourceError):
                await registry.register_data_source(source(f"nothing-{n}", colour="blue"))
    points = [attributes for attributes, _ in otel.points("datasources.operation.duration")]
    assert len(points) == 2
    assert not any("datasources.source.id" in attributes for attributes in points)


def test_what_was_in_the_workspace_already_is_not_counted_as_brought(otel: Collected) -> None:
    plugins = Plugins(index=[])
    plugins.register_plugin(otel.telemetry)
    for unchanged in (False, True, True):
        with observe(plugins, "fetch", "s") as outcome:
            now = datetime.now(UTC)
            outcome.record(
                FetchReceipt("s", "a", "/w/a", 7, "", 3, False, "v", now, 0.1, unchanged=unchanged)
            )
    ((_, size),) = otel.points("datasources.fetch.size")
    ((_, rows),) = otel.points("datasources.fetch.rows")
    assert (size.sum, rows.value) == (7, 3)


async def test_without_an_sdk_nothing_is_collected_and_everything_works(tmp_path: Path) -> None:
    async with registry_of(AbleConnector) as registry:
        registry.plugins.register_plugin(Telemetry())
        await registry.register_data_source(source())
        assert (await registry.fetch("s", "a.csv", tmp_path)).size == 8
        items: list[DataItem] = [item async for item in registry.iter_items("s")]
        assert len(items) == 2


async def test_secrets_in_names_stay_out_of_spans_and_metrics(otel: Collected) -> None:
    leak = "password=hunter2"
    async with await observing(otel) as registry:
        with caller(user=leak, request_id=leak), pytest.raises(DataSourceError):
            await registry.list_items(leak, leak)
    (span,) = otel.spans()
    assert "hunter2" not in span.to_json()
    assert "hunter2" not in str(otel.reader.get_metrics_data())


WITHOUT = "import sys; sys.modules['opentelemetry'] = None\n"


def test_without_the_extra_only_telemetry_is_missing_and_says_what_to_install() -> None:
    program = """
from datasources import *
AuditLog, DataSourceRegistry
try:
    import datasources.telemetry
except ImportError as exc:
    print(exc)
"""
    needed = 'datasources.telemetry needs OpenTelemetry: pip install "datasources[otel]"\n'
    assert run_python(WITHOUT + program) == needed


def test_an_audit_log_needs_no_telemetry_and_neither_comes_uncalled(tmp_path: Path) -> None:
    program = """
import datasources
datasources.DataSourceRegistry
print(*[m for m in sys.modules if m.startswith(("datasources.observers", "datasources.telemetry"))])
"""
    assert run_python(WITHOUT + program) == "\n"
