"""Gives numbers to Ray, which exports them: each node's agent answers Prometheus, and needs no dashboard for it.

A number costs its process microseconds: Ray's own code keeps it, and sends it off every ten seconds. Without a Ray
session, or where its export is off, nothing happens.
"""

from __future__ import annotations

from typing import Any, Protocol

from system.monitoring.series import SERIES


class Sink(Protocol):
    """Where numbers go."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def add(self, name: str, amount: float, **labels: str) -> None:
        """Raise a counter."""
        ...


class Exporter:
    """A process's series.

    Args:
        labels: that all of them have.
    """

    def __init__(self, **labels: str) -> None:
        self._labels = labels
        self._made: dict[str, Any] = {}

    def _metric(self, name: str) -> Any:
        """Return Ray's metric of a series that is declared.

        Raises:
            KeyError: if it is not.
        """
        if name not in self._made:
            from ray.util.metrics import Counter, Gauge  # noqa: PLC0415  whoever exports runs on Ray

            series = SERIES[name]
            kind = Counter if series.kind == "counter" else Gauge
            self._made[name] = kind(name, description=series.help, tag_keys=series.labels)
        return self._made[name]

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._metric(name).set(value, {**self._labels, **labels})

    def add(self, name: str, amount: float, **labels: str) -> None:
        """Raise a counter; nothing for an amount that is not above zero."""
        if amount > 0:
            self._metric(name).inc(amount, {**self._labels, **labels})
