"""OpenTelemetry spans and metrics of operations; needs the extra `otel`.

```python
registry.plugins.register_plugin(Telemetry())
```

A span `datasources.<operation>` for each, a child of the host's; those of drivers are its children.
Texts are cut to 1,000 characters, their secrets masked.

| attribute | |
|---|---|
| `datasources.operation` | the registry method, such as `fetch` |
| `datasources.source.id` | |
| `datasources.request.id`, `enduser.id` | as `datasources.caller` named them |
| `datasources.identifier` | the identifier, path or pattern, if asked for: it may be a query |
| `datasources.result.size`, `.rows`, `.items`, `.truncated` | size in bytes |
| `error.type` | the error's class |

| metric | |
|---|---|
| `datasources.operation.duration` | seconds, by operation, source and `error.type` |
| `datasources.fetch.size` | bytes of each file brought, by source |
| `datasources.fetch.rows` | rows brought, by source |
"""

from __future__ import annotations

from collections.abc import Mapping

from datasources import __version__
from datasources.errors import DataSourceNotFoundError
from datasources.hookspecs import hookimpl
from datasources.models import Operation
from datasources.operations import Outcome, asked_for, excerpt

try:
    from opentelemetry import context, metrics, trace
except ImportError as exc:
    reason = 'datasources.telemetry needs OpenTelemetry: pip install "datasources[otel]"'
    raise ImportError(reason) from exc

# The default ones are made for milliseconds.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BYTES = tuple(10**power for power in range(3, 12))


class Telemetry:
    """Tells OpenTelemetry of every operation.

    Args:
        tracer_provider: By default the global one.
        meter_provider: By default the global one.
        identifiers: Put identifiers, paths and patterns into spans; a query may hold personal data.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        *,
        identifiers: bool = False,
    ) -> None:
        scope = ("datasources", __version__)
        self._tracer = trace.get_tracer(*scope, tracer_provider)
        meter = metrics.get_meter(*scope, meter_provider)
        self._duration = meter.create_histogram(
            "datasources.operation.duration",
            unit="s",
            description="Duration of operations.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._size = meter.create_histogram(
            "datasources.fetch.size",
            unit="By",
            description="Size of the files brought.",
            explicit_bucket_boundaries_advisory=_BYTES,
        )
        self._rows = meter.create_counter(
            "datasources.fetch.rows", unit="{row}", description="Rows brought."
        )
        self._identifiers = identifiers
        self._running: dict[int, tuple[trace.Span, context.Context | None]] = {}

    @hookimpl
    def datasources_operation_started(self, operation: Operation) -> None:
        span = self._tracer.start_span(
            f"datasources.{operation.name}",
            kind=trace.SpanKind.CLIENT,
            attributes=self._attributes(operation),
        )
        around: context.Context | None = None
        # Between its items an iteration shares its reader's context, and may end in another's.
        if operation.name != "iter_items":
            around = context.get_current()
            context.attach(trace.set_span_in_context(span))
        self._running[id(operation)] = (span, around)

    @hookimpl
    def datasources_operation_finished(
        self, operation: Operation, duration: float, error: BaseException | None, outcome: Outcome
    ) -> None:
        nothing = (trace.INVALID_SPAN, None)  # for one that began before this was registered
        span, around = self._running.pop(id(operation), nothing)
        failed = error is not None and not isinstance(error, GeneratorExit)
        error_type = type(error).__name__ if failed else None
        try:
            self._measure(operation, duration, error, error_type, outcome)
        finally:  # a connector's figures may be no numbers
            span.set_attributes(_result(outcome, error_type))
            if error_type:
                span.set_status(trace.StatusCode.ERROR, error_type)
            span.end()
            # Attached, not detached by a token: a coroutine that is closed from outside ends in a
            # context where the token means nothing.
            if around is not None and trace.get_current_span() is span:
                context.attach(around)

    def _attributes(self, operation: Operation) -> dict[str, str]:
        texts = {
            "datasources.source.id": operation.source_id,
            "datasources.request.id": operation.request_id,
            "enduser.id": operation.user,
        }
        attributes = {key: excerpt(text) for key, text in texts.items() if text}
        attributes["datasources.operation"] = operation.name
        if self._identifiers and (asked := asked_for(operation)):
            attributes["datasources.identifier"] = asked
        return attributes

    def _measure(
        self,
        operation: Operation,
        duration: float,
        error: BaseException | None,
        error_type: str | None,
        outcome: Outcome,
    ) -> None:
        # Ids of sources that do not exist are anybody's: a time series for each has no bound.
        unknown = isinstance(error, DataSourceNotFoundError) or operation.name == "register"
        source = {} if unknown else {"datasources.source.id": operation.source_id}
        failure = {"error.type": error_type} if error_type else {}
        name = {"datasources.operation": operation.name}
        self._duration.record(duration, {**name, **source, **failure})
        receipt = outcome.receipt
        if receipt and not receipt.unchanged:
            self._size.record(receipt.size, source)
            if receipt.rows is not None:
                self._rows.add(receipt.rows, source)


def _result(outcome: Outcome, error_type: str | None) -> Mapping[str, str | int | bool]:
    receipt = outcome.receipt
    values = {
        "error.type": error_type,
        "datasources.result.size": outcome.size,
        "datasources.result.rows": outcome.rows,
        "datasources.result.items": outcome.items,
        "datasources.result.truncated": receipt.truncated if receipt else None,
    }
    return {key: value for key, value in values.items() if value is not None}
