"""What the ingress counts about itself, in a registry of its own; served at /metrics.

Processes that share a port share a folder too (`shared`): each counts in files there, and any of
them adds up all, those that have died included. prometheus-client must then find the folder in its
own variable, PROMETHEUS_MULTIPROC_DIR, when it is imported.
"""

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class DoorMetrics:
    """The ingress' figures; `registry` gives them, added up over the processes if `shared`."""

    def __init__(self, shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        # Of several processes none's memory or start would say anything, nor would their sum.
        own = self.registry if shared is None else None
        if shared is None:
            ProcessCollector(registry=self.registry)
        else:
            MultiProcessCollector(self.registry, str(shared))  # type: ignore[no-untyped-call] # theirs
        self._requests = Counter(
            "amana_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=own,
        )
        self._seconds = Histogram(
            "amana_request_seconds",
            "Time from the parsed request to its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=own,
        )
        self.limiter_away = Counter(
            "amana_limiter_away",
            "Requests let pass unasked because Redis was away.",
            registry=own,
        )
        self.bells_lost = Counter(
            "amana_bells_lost",
            "Bells that were not rung because Redis was away.",
            registry=own,
        )
        # Finding a labelled child costs more than counting; routes and statuses are few.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer. `route` is a pattern of the table, never a raw path."""
        key = (method, route, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(method, route, status),
                self._seconds.labels(method, route),
            )
        children[0].inc()
        children[1].observe(seconds)
