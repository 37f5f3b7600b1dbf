"""The queen's metrics: OpenTelemetry's GenAI names and buckets, and what a gateway alone knows.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ ; dots become underscores and the unit goes last, as
Prometheus' exporters of OpenTelemetry write them.
"""

from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skep.lifecycle.node import NodeState
from skep.queen.dispatch import Dispatcher
from skep.queen.outcome import Outcome
from skep.queen.registry import Registry
from skep.queen.request import Request
from skep.queen.service import Service
from skep.telemetry.metrics import (
    DURATION_S_BUCKETS,
    FIRST_TOKEN_S_BUCKETS,
    PER_TOKEN_S_BUCKETS,
    new_registry,
    render,
)

TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
CHILDREN_MAX = 10_000

_LABELS = ("gen_ai_request_model", "pool_id", "node_id")
_OPERATIONS = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "text_completion",
    b"/v1/embeddings": "embeddings",
}


class Metrics:
    """The registry, and the listener that fills it."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From a whole request to the end of its answer.",
            (*_LABELS, "gen_ai_operation_name", "error_type"),
            buckets=DURATION_S_BUCKETS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a whole request to the first token of its stream.",
            _LABELS,
            buckets=FIRST_TOKEN_S_BUCKETS,
            registry=self.registry,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time between tokens after the first.",
            _LABELS,
            buckets=PER_TOKEN_S_BUCKETS,
            registry=self.registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a request, as its engine counted them.",
            (*_LABELS, "gen_ai_token_type"),
            buckets=TOKENS,
            registry=self.registry,
        )
        self._requests = Counter(
            "skep_gateway_requests",
            "Requests by how they ended.",
            ("model", "outcome"),
            registry=self.registry,
        )
        self._events = Counter("skep_gateway_events", "Streamed events forwarded.", registry=self.registry)
        self._unknown = Counter(
            "skep_unknown_fields", "Fields of nodes' messages that were ignored.", registry=self.registry
        )
        self._queue_s = Histogram(
            "skep_gateway_queue_seconds",
            "Time that a request waited for a replica.",
            ("model",),
            buckets=FIRST_TOKEN_S_BUCKETS,
            registry=self.registry,
        )

    def ended(self, request: Request, outcome: Outcome) -> None:
        """Count a request that has ended."""
        served = outcome.model if outcome.replica else ""
        self._of(self._requests, served, outcome.kind).inc()
        if not outcome.replica:
            return
        labels = (served, outcome.pool_id, outcome.node_id)
        operation = _OPERATIONS.get(request.target, "other")
        self._of(self._duration, *labels, operation, _error_type(outcome)).observe(outcome.duration_s)
        self._of(self._queue_s, served).observe(outcome.queued_s)
        if outcome.events:
            self._events.inc(outcome.events)
        if outcome.first_token_s is not None:
            self._of(self._first_token, *labels).observe(outcome.first_token_s - outcome.started_s)
            tokens = outcome.tokens_out or outcome.events
            if tokens > 1 and outcome.last_event_s is not None:
                between_s = (outcome.last_event_s - outcome.first_token_s) / (tokens - 1)
                self._of(self._per_token, *labels).observe(between_s)
        if outcome.tokens_in:
            self._of(self._tokens, *labels, "input").observe(outcome.tokens_in)
        if outcome.tokens_out:
            self._of(self._tokens, *labels, "output").observe(outcome.tokens_out)

    def _of(self, metric: Any, *labels: str) -> Any:
        """Return a metric's child; looking it up in the library costs a lock and a check of every label."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            if len(self._children) >= CHILDREN_MAX:
                self._children.clear()
            child = self._children[key] = metric.labels(*labels)
        return child

    def unknown_fields(self, count: int) -> None:
        """Count fields that this version does not know."""
        if count:
            self._unknown.inc(count)

    def watch(self, registry: Registry, dispatcher: Dispatcher, service: Service) -> None:
        """Also show what the registry and the gateway hold at the moment of a scrape."""
        self.registry.register(_Present(registry, dispatcher, service))

    def text(self) -> bytes:
        """Return the exposition."""
        return render(self.registry)


class _Present(Collector):
    """What is true at the moment of a scrape."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, service: Service) -> None:
        self._registry, self._dispatcher, self._service = registry, dispatcher, service

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges."""
        dispatcher, service = self._dispatcher, self._service
        figures = (
            ("skep_gateway_waiting", "Requests that wait for a replica.", dispatcher.waiting),
            ("skep_gateway_running", "Requests under way.", len(service.running)),
            ("skep_gateway_connections", "Client connections.", len(service.connections)),
            ("skep_gateway_retries", "Attempts beyond the first, since the start.", dispatcher.retries),
            (
                "skep_gateway_ejections",
                "Times that a replica was ejected, since the start.",
                dispatcher.ejections,
            ),
        )
        for name, text, value in figures:
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric((), value)
            yield gauge
        nodes = GaugeMetricFamily("skep_nodes", "Nodes by state.", labels=("state",))
        for state in NodeState:
            nodes.add_metric(
                (state.value,), sum(node.state is state for node in self._registry.nodes.values())
            )
        yield nodes
        slots = GaugeMetricFamily(
            "skep_replica_in_flight",
            "This gateway's requests at a replica.",
            labels=("node_id", "pool_id", "replica_id"),
        )
        for node in self._registry.nodes.values():
            for replica in node.replicas.values():
                slots.add_metric((node.node_id, replica.pool_id, replica.replica_id), replica.in_flight)
        yield slots


def _error_type(outcome: Outcome) -> str:
    """Return OpenTelemetry's error.type: "" when all went well."""
    if outcome.kind == "done":
        return ""
    return outcome.error_code or (outcome.kind if outcome.kind != "error" else str(outcome.status))
