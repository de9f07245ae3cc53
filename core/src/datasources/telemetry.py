"""The public place of `Telemetry`, which needs OpenTelemetry."""

from datasources.observers import Telemetry

__all__ = ["Telemetry"]
