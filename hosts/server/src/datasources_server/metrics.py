"""Figures of this process in the text format of Prometheus, and the route that returns them.

https://prometheus.io/docs/instrumenting/exposition_formats/

Labels have templates of routes, ids of sources and slugs of errors, never an option or an item.
Each process has figures of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from datasources import DataSourceError, Operation, Outcome, hookimpl
from datasources.locks import ForkSafeLock

if TYPE_CHECKING:
    from datasources_server.calls import Api

_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAUGES = ("total", "in_use", "waiting", "opening", "max_size")
_COUNTERS = ("acquires", "waits", "timeouts", "connects", "connect_failures")


class Metrics:
    """Counts requests, operations, jobs and refusals; an observer of the registry.

    Methods are called from any thread.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)  # by route
        self._operations: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._jobs: Counter[str] = Counter()

    def count_request(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a request.

        Args:
            method: Of HTTP.
            route: The template of its path.
            status: Of the response; `left` if the client has left before it.
            seconds: Until the end of the response.
        """
        with self._lock:
            self._requests[method, route, status] += 1
            self._seconds[route] += seconds

    def count_refusal(self, slug: str) -> None:
        """Count a request that was refused for who has made it, or from where."""
        with self._lock:
            self._refusals[slug] += 1

    def count_job(self, state: str) -> None:
        """Count a job of this process that has ended in a state."""
        with self._lock:
            self._jobs[state] += 1

    @hookimpl
    def datasources_operation_finished(
        self,
        operation: Operation,
        duration: float,  # noqa: ARG002  (the hook's)
        error: BaseException | None,
        outcome: Outcome,
    ) -> None:
        with self._lock:
            self._operations[operation.name, _outcome_of(error)] += 1
            self._bytes[operation.name] += outcome.size or 0

    def describe(self, api: Api) -> str:
        """Return all figures; called on the event loop that serves the requests."""
        return "".join(f"{line}\n" for line in self._lines(api))

    def _lines(self, api: Api) -> Iterator[str]:
        with self._lock:
            requests, seconds = dict(self._requests), dict(self._seconds)
            operations, sizes = dict(self._operations), dict(self._bytes)
            refusals, jobs = dict(self._refusals), dict(self._jobs)
        yield from _family("requests_total", "counter", ("method", "route", "status"), requests)
        yield from _family("request_seconds_total", "counter", ("route",), seconds)
        yield from _family("refusals_total", "counter", ("reason",), refusals)
        yield from _family("operations_total", "counter", ("operation", "outcome"), operations)
        yield from _family("operation_bytes_total", "counter", ("operation",), sizes)
        yield from _family("jobs_ended_total", "counter", ("state",), jobs)
        running = 0 if api.runner is None else api.runner.running
        yield from _family("jobs_running", "gauge", (), {(): running})
        pools = api.registry.pool_statistics()
        for kind, fields in (("gauge", _GAUGES), ("counter", _COUNTERS)):
            for field in fields:
                name = f"pool_{field}" if kind == "gauge" else f"pool_{field}_total"
                values = {source: getattr(figures, field) for source, figures in pools.items()}
                yield from _family(name, kind, ("source",), values)


def metrics_routes(api: Api, route_class: type[APIRoute]) -> APIRouter:
    """Return the route `/metrics`, for administrators unless the settings admit everybody."""
    routes = APIRouter(tags=["health"], route_class=route_class)
    described: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @routes.get("/metrics", response_class=Response, responses=described)
    async def get_metrics(request: Request) -> Response:
        """Return the figures of this process in the text format of Prometheus."""
        if not api.settings.open_metrics:
            request.scope["datasources.call"].require_admin()
        return Response(api.metrics.describe(api), media_type=_MEDIA_TYPE)

    return routes


def _outcome_of(error: BaseException | None) -> str:
    if error is None or isinstance(error, GeneratorExit):
        return "ok"
    return error.slug if isinstance(error, DataSourceError) else "failed"


def _family(
    name: str, kind: str, labels: tuple[str, ...], values: Mapping[Any, float]
) -> Iterator[str]:
    """Yield the lines of a family of samples.

    Args:
        name: Of the family, without its prefix.
        kind: `counter` or `gauge`.
        labels: Their names.
        values: By the value of the only label, or by the values of all.
    """
    yield f"# TYPE datasources_{name} {kind}"
    for key, value in sorted(values.items()):
        texts = (key,) if isinstance(key, str) else key
        described = ",".join(
            f'{label}="{_escape(text)}"' for label, text in zip(labels, texts, strict=True)
        )
        yield f"datasources_{name}{{{described}}} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
