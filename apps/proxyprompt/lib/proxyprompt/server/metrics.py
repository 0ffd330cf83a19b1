"""Figures of a running server in Prometheus' format. No name of a study or a person is among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """What is counted.

    Args:
        cache: gives the cache's counts, see :meth:`proxyprompt.io.cache.ContentCache.stats`.
        version: of the app.
    """

    def __init__(self, *, cache: Callable[[], Mapping[str, int]], version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self._requests = Counter("proxyprompt_requests", "Requests answered.", labels, registry=self.registry)
        self._seconds = Histogram(
            "proxyprompt_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "proxyprompt_inference_seconds",
            "Where the time of an inference goes.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.running = Gauge("proxyprompt_requests_running", "Requests under way.", registry=self.registry)
        Gauge("proxyprompt_info", "1, with the version.", ("version",), registry=self.registry).labels(version).set(1)
        self.registry.register(_CacheCollector(cache))

    def observe(self, *, method: str, route: str, status: int, seconds: float, stages: Mapping[str, Any]) -> None:
        """Count a request.

        Args:
            method: GET, ...
            route: its pattern, such as "/infer/{model}".
            status: of the answer.
            seconds: that it took.
            stages: seconds of an inference by stage; empty for other requests.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        for stage, taken in stages.items():
            self._stages.labels(stage).observe(float(taken))

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self.registry)


class _CacheCollector(Collector):
    def __init__(self, stats: Callable[[], Mapping[str, int]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks."""
        counts = dict(self._stats())
        held = GaugeMetricFamily("proxyprompt_cache_bytes", "Held now.", labels=["where"])
        for where in ("memory", "disk"):
            held.add_metric([where], counts.pop(f"{where}_bytes", 0))
        yield held
        events = CounterMetricFamily("proxyprompt_cache_events", "Since the start.", labels=["event"])
        for event, count in sorted(counts.items()):
            events.add_metric([event], count)
        yield events
