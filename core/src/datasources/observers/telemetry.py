"""OpenTelemetry spans and metrics of operations; needs the extra `otel`.

```python
registry.plugins.register_plugin(Telemetry())
```

Each operation has a span `datasources.<operation>`: a child of the host's current span, and the
parent of those of drivers. Texts have 1,000 characters at most, with secrets masked.

| attribute | |
|---|---|
| `datasources.operation` | the registry method, such as `fetch` |
| `datasources.source.id` | |
| `datasources.request.id`, `enduser.id` | as `datasources.caller` named them |
| `datasources.identifier` | the identifier, path or pattern; only with `identifiers=True` |
| `datasources.result.size`, `.rows`, `.items`, `.truncated` | of the result; size in bytes |
| `error.type` | class of the error |

| metric | |
|---|---|
| `datasources.operation.duration` | seconds, by operation, source and `error.type` |
| `datasources.fetch.size` | bytes of each fetched file, by source |
| `datasources.fetch.rows` | fetched rows, by source |
"""

from __future__ import annotations

from collections.abc import Mapping

from datasources import __version__
from datasources.errors import DataSourceNotFoundError
from datasources.models import Operation, Outcome
from datasources.plugins import hookimpl
from datasources.registry import operation_target, redacted_excerpt

try:
    from opentelemetry import context, metrics, trace
except ImportError as exc:
    reason = 'datasources.telemetry needs OpenTelemetry: pip install "datasources[otel]"'
    raise ImportError(reason) from exc

# Boundaries of histograms: the default ones suit milliseconds.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BYTES = tuple(10**power for power in range(3, 12))


class Telemetry:
    """Observer that makes OpenTelemetry spans and metrics of operations.

    Args:
        tracer_provider: The global one by default.
        meter_provider: The global one by default.
        identifiers: True to have identifiers, paths and patterns in spans. An identifier can be a
            query, which may hold personal data.
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
            description="Size of fetched files.",
            explicit_bucket_boundaries_advisory=_BYTES,
        )
        self._rows = meter.create_counter(
            "datasources.fetch.rows", unit="{row}", description="Fetched rows."
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
        # Between its items an iteration runs in its reader's context, and it may end in another
        # one: so its span does not become the current one.
        if operation.name != "iter_items":
            around = context.get_current()
            context.attach(trace.set_span_in_context(span))
        self._running[id(operation)] = (span, around)

    @hookimpl
    def datasources_operation_finished(
        self, operation: Operation, duration: float, error: BaseException | None, outcome: Outcome
    ) -> None:
        nothing = (trace.INVALID_SPAN, None)  # the operation began before this was registered
        span, around = self._running.pop(id(operation), nothing)
        failed = error is not None and not isinstance(error, GeneratorExit)
        error_type = type(error).__name__ if failed else None
        try:
            self._measure(operation, duration, error, error_type, outcome)
        finally:  # recording raises if a connector's figures are no numbers
            span.set_attributes(_result(outcome, error_type))
            if error_type:
                span.set_status(trace.StatusCode.ERROR, error_type)
            span.end()
            # Not by `detach`: a coroutine that is closed from outside ends in another context,
            # where the token of `attach` is invalid.
            if around is not None and trace.get_current_span() is span:
                context.attach(around)

    def _attributes(self, operation: Operation) -> dict[str, str]:
        texts = {
            "datasources.source.id": operation.source_id,
            "datasources.request.id": operation.request_id,
            "enduser.id": operation.user,
        }
        attributes = {key: redacted_excerpt(text) for key, text in texts.items() if text}
        attributes["datasources.operation"] = operation.name
        if self._identifiers and (asked := operation_target(operation)):
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
        # Without ids of sources that do not exist: callers can invent any number of them, and
        # each would be a time series.
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
