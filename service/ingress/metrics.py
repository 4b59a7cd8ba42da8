"""What the ingress counts about itself, in a registry of its own; served at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class DoorMetrics:
    """The ingress' figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "amana_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
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
