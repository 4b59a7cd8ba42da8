"""What the ingress counts about itself, in a registry of its own; served at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class DoorMetrics:
    """The ingress' figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "amana_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "amana_request_seconds",
            "Time from the parsed request to its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.limiter_away = Counter(
            "amana_limiter_away",
            "Requests let pass unasked because Redis was away.",
            registry=self.registry,
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
