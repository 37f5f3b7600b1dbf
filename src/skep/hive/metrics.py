"""Every series that a hive emits, each labelled with its node."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from skep.lifecycle.pool import PoolState
from skep.policy.breaker import BreakerState
from skep.policy.health import Answer
from skep.policy.restart import CrashReason
from skep.spec.device import Device
from skep.telemetry.metrics import new_registry, render

_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_BREAKER = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class HiveMetrics:
    """The registry and its series. Counters exist from the start, at zero, for the labels that are known."""

    def __init__(self, node_id: str) -> None:
        self._node = node_id
        self.registry = new_registry()
        self.pool_ready = self._gauge("skep_pool_ready", "1 while the pool serves.", "pool_id")
        self.pool_state = self._gauge(
            "skep_pool_state", "1 for the state that the pool is in.", "pool_id", "state"
        )
        self.slots_total = self._gauge("skep_pool_slots_total", "Slots of serving replicas.", "pool_id")
        self.slots_free = self._gauge("skep_pool_slots_free", "Free slots of serving replicas.", "pool_id")
        self.device_total = self._gauge("skep_device_memory_total_bytes", "Memory of a device.", "device_id")
        self.device_used = self._gauge("skep_device_memory_used_bytes", "Memory in use.", "device_id")
        self.device_free = self._gauge("skep_device_memory_free_bytes", "Memory that is free.", "device_id")
        self.device_heat = self._gauge("skep_device_temperature_celsius", "Temperature.", "device_id")
        self.host_total = self._gauge("skep_host_memory_total_bytes", "The machine's memory.")
        self.host_available = self._gauge("skep_host_memory_available_bytes", "What of it is available.")
        self.preloads = self._counter("skep_preload", "Preloads, by how they ended.", "pool_id", "outcome")
        self.preload_s = self._histogram("skep_preload_seconds", "From wish to ready.", "pool_id")
        self.restarts = self._counter("skep_restart", "Replicas lost, by why.", "pool_id", "reason")
        self.driver_resets = self._counter(
            "skep_driver_reset",
            "Errors of a driver or device, however many replicas one took out.",
            "pool_id",
        )
        self.backoff = self._gauge("skep_backoff_seconds", "The delay before the next start.", "pool_id")
        self.breaker = self._gauge("skep_breaker_state", "0 closed, 1 half-open, 2 open.", "pool_id")
        self.storms = self._counter("skep_storm", "Restart storms.", "pool_id")
        self.handoffs = self._counter(
            "skep_handoff", "Handoff files written or removed, or found and left alone.", "outcome"
        )
        self.probes = self._counter("skep_health_check", "Probes, by what came back.", "pool_id", "outcome")
        self.drain_s = self._histogram("skep_drain_seconds", "How long drains took.", "pool_id")
        self.reloads = self._counter("skep_reload", "Reloads, by how they ended.", "pool_id", "outcome")
        self.registrations = self._counter("skep_queen_exchange", "Talks with the queen.", "outcome")
        for outcome in ("written", "removed", "failed", "malformed", "foreign"):
            self.handoffs.labels(self._node, outcome)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return render(self.registry)

    def count(self, counter: Counter, *labels: str) -> None:
        """Raise a counter by one; the node's label is added."""
        counter.labels(self._node, *labels).inc()

    def observe(self, histogram: Histogram, seconds: float, *labels: str) -> None:
        """Add a duration."""
        histogram.labels(self._node, *labels).observe(seconds)

    def show(self, gauge: Gauge, value: float, *labels: str) -> None:
        """Set a gauge."""
        gauge.labels(self._node, *labels).set(value)

    def show_state(self, pool_id: str, state: PoolState) -> None:
        """Set the pool's state: one series a state, 1 for the present one."""
        for one in PoolState:
            self.show(self.pool_state, one is state, pool_id, one.value)
        self.show(self.pool_ready, state in (PoolState.READY, PoolState.RELOADING), pool_id)

    def show_breaker(self, pool_id: str, state: BreakerState) -> None:
        """Set the breaker's state."""
        self.show(self.breaker, _BREAKER[state], pool_id)

    def show_devices(self, devices: Iterable[Device]) -> None:
        """Set every device's figures; devices that are gone lose their series."""
        for gauge in (self.device_total, self.device_used, self.device_free, self.device_heat):
            gauge.clear()
        for one in devices:
            self.show(self.device_total, one.memory_total_bytes, one.id)
            self.show(self.device_used, one.memory_used_bytes, one.id)
            self.show(self.device_free, one.memory_free_bytes, one.id)
            if one.temperature_c is not None:
                self.show(self.device_heat, one.temperature_c, one.id)

    def introduce(self, pool_id: str) -> None:
        """Start every counter of a pool at zero, so that its first move can be seen as a rate."""
        for outcome in ("ready", "failed", "does_not_fit", "cancelled"):
            self.preloads.labels(self._node, pool_id, outcome)
        for reason in CrashReason:
            self.restarts.labels(self._node, pool_id, reason.value)
        for answer in Answer:
            self.probes.labels(self._node, pool_id, answer.value)
        for outcome in ("reloaded", "rolled_back", "failed"):
            self.reloads.labels(self._node, pool_id, outcome)
        for counter in (self.driver_resets, self.storms):
            counter.labels(self._node, pool_id)
        for histogram in (self.preload_s, self.drain_s):
            histogram.labels(self._node, pool_id)
        self.show(self.backoff, 0, pool_id)
        self.show_breaker(pool_id, BreakerState.CLOSED)
        for gauge in (self.slots_total, self.slots_free):
            self.show(gauge, 0, pool_id)

    def forget(self, pool_id: str) -> None:
        """Remove every series of a pool that is gone."""
        for series in vars(self).values():
            if isinstance(series, Counter | Gauge | Histogram) and "pool_id" in series._labelnames:  # noqa: SLF001 - the library has no other way
                series.remove_by_labels({"node_id": self._node, "pool_id": pool_id})

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, ["node_id", *labels], registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ["node_id", *labels], registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, ["node_id", *labels], registry=self.registry, buckets=_SECONDS)
