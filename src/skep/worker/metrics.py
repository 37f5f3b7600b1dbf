"""What a worker tells Prometheus, under vLLM's names, so that dashboards and schedulers made for vLLM work.

Gauges and token counters are read from the engine when somebody scrapes, so that they cost nothing between scrapes.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skep.errors.runtime import Cancelled
from skep.runtime.request import EngineStats, Event, Failed, Finished, Token
from skep.telemetry.metrics import (
    DURATION_S_BUCKETS,
    FIRST_TOKEN_S_BUCKETS,
    PER_TOKEN_S_BUCKETS,
    new_registry,
    render,
)
from skep.worker.chunks import FINISH_REASONS

_LABEL = ["model_name"]


class WorkerMetrics:
    """The registry of one worker."""

    def __init__(self, model_name: str) -> None:
        self._registry = registry = new_registry()
        self._model_name = model_name
        self._success = Counter(
            "vllm:request_success",
            "Requests that ended, by reason.",
            [*_LABEL, "finished_reason"],
            registry=registry,
        )
        self.first_token_s = Histogram(
            "vllm:time_to_first_token_seconds", "From arrival to the first token.", _LABEL,
            buckets=FIRST_TOKEN_S_BUCKETS, registry=registry,
        ).labels(model_name)  # fmt: skip
        self.per_token_s = Histogram(
            "vllm:time_per_output_token_seconds", "Between tokens of one request.", _LABEL,
            buckets=PER_TOKEN_S_BUCKETS, registry=registry,
        ).labels(model_name)  # fmt: skip
        self.request_s = Histogram(
            "vllm:e2e_request_latency_seconds", "From arrival to the end.", _LABEL,
            buckets=DURATION_S_BUCKETS, registry=registry,
        ).labels(model_name)  # fmt: skip
        self._unknown = Counter(
            "skep_unknown_fields",
            "Request fields that this version does not know.",
            _LABEL,
            registry=registry,
        ).labels(model_name)
        self._refused = Counter(
            "skep_requests_refused",
            "Requests that were answered with an error.",
            [*_LABEL, "code"],
            registry=registry,
        )
        for reason in ("stop", "length", "abort", "error"):
            self._success.labels(model_name, reason)

    def watch(self, stats: Callable[[], EngineStats], memory: Callable[[], tuple[int, int]]) -> None:
        """Tell the engine's figures from now on; `memory` gives (host, device) bytes."""
        self._registry.register(_EngineCollector(self._model_name, stats, memory))

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return render(self._registry)

    def ended(self, reason: str) -> None:
        """Count the end of a request: stop, length, abort or error."""
        self._success.labels(self._model_name, reason).inc()

    def refused(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self._refused.labels(self._model_name, code).inc()

    def unknown_fields(self, count: int) -> None:
        """Count fields that were ignored."""
        self._unknown.inc(count)


class JobMeter:
    """Times one job as its events pass by."""

    __slots__ = ("_at_s", "_begun_s", "_metrics")

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._begun_s = time.perf_counter()
        self._at_s = 0.0

    def batch(self, events: Sequence[Event]) -> None:
        """See the events of one reading."""
        if not events:
            return
        tokens = 0
        for event in events:
            if type(event) is Token:
                tokens += event.tokens
        if tokens:
            self._tokens(tokens, time.perf_counter())
        last = events[-1]
        if isinstance(last, Finished):
            self._end(FINISH_REASONS[last.stop_reason])
        elif isinstance(last, Failed):
            self._end("abort" if isinstance(last.error, Cancelled) else "error")

    def _tokens(self, count: int, now_s: float) -> None:
        if not self._at_s:
            self._metrics.first_token_s.observe(now_s - self._begun_s)
            count -= 1
        else:
            self._metrics.per_token_s.observe((now_s - self._at_s) / count)
        self._at_s = now_s

    def _end(self, reason: str) -> None:
        self._metrics.ended(reason)
        self._metrics.request_s.observe(time.perf_counter() - self._begun_s)


class _EngineCollector(Collector):
    """The engine's figures, read at scrape time."""

    def __init__(
        self, model_name: str, stats: Callable[[], EngineStats], memory: Callable[[], tuple[int, int]]
    ) -> None:
        self._model_name, self._stats, self._memory = model_name, stats, memory

    def describe(self) -> list[Metric]:
        """Return nothing: names are known only when collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield gauges and counters."""
        stats = self._stats()
        host_bytes, device_bytes = self._memory()
        gauges = {
            "vllm:num_requests_running": ("Requests that are being computed.", stats.running),
            "vllm:num_requests_waiting": ("Requests that wait for a slot.", stats.waiting),
            "vllm:kv_cache_usage_perc": ("Share of the cache in use, 1 is all of it.", stats.kv_used),
            "skep_worker_slots_total": ("Slots.", stats.slots_total),
            "skep_worker_slots_free": ("Slots that are free.", stats.slots_free),
            "skep_worker_requests_paused": ("Requests whose reader is behind.", stats.paused),
            "skep_worker_host_memory_bytes": ("Resident memory of this process.", host_bytes),
            "skep_worker_device_memory_bytes": ("Device memory of this process.", device_bytes),
        }
        counters = {
            "vllm:prefix_cache_queries": (
                "Prompt tokens that were looked up in cached prefixes.",
                stats.prefix_queries_total,
            ),
            "vllm:prefix_cache_hits": ("Prompt tokens that a cached prefix gave.", stats.prefix_hits_total),
            "vllm:prompt_tokens": ("Prompt tokens.", stats.prompt_tokens_total),
            "vllm:generation_tokens": ("Generated tokens.", stats.generated_tokens_total),
            "vllm:num_preemptions": (
                "Requests that lost their cache room and were queued again.",
                stats.preempted_total,
            ),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=_LABEL)
            gauge.add_metric([self._model_name], value)
            yield gauge
        for name, (text, count) in counters.items():
            counter = CounterMetricFamily(name, text, labels=_LABEL)
            counter.add_metric([self._model_name], count)
            yield counter
