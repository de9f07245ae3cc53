"""Observers that a host may register: the audit log and OpenTelemetry."""

from __future__ import annotations

from datasources import lazy_exports

TYPE_CHECKING = False

if TYPE_CHECKING:
    from datasources.observers.audit import AuditLog as AuditLog, AuditObserver as AuditObserver
    from datasources.observers.telemetry import Telemetry as Telemetry

__getattr__ = lazy_exports(
    __name__, {"AuditLog": "audit", "AuditObserver": "audit", "Telemetry": "telemetry"}
)
