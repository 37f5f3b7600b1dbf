"""A trace played into an embedded cluster: each event at its second, life cycles as lifetimes of pods."""

from collections.abc import Callable
from typing import Any

from skep.arena.embedded import EmbeddedCluster
from skep.arena.trace.event import kind_key, name_key
from skep.arena.trace.trace import Trace
from skep.errors.arena import ObjectNotFound


class Replay:
    """One trace on one cluster, as far as time has passed. The first event is second 0."""

    def __init__(self, cluster: EmbeddedCluster, trace: Trace) -> None:
        self.cluster = cluster
        self._trace = trace
        self._next = 0
        self._event: dict[str, Any] | None = trace.event(0) if trace.events else None
        self._start_ts = self._event["ts"] if self._event is not None else 0
        self._lifetimes = lifetimes_of(trace)

    def run_until(self, at_s: float, check: Callable[[], None] | None = None) -> None:
        """Let virtual time pass to `at_s`, with every event that is due by then; `check` may raise in between."""
        while self._next < len(self._trace.events):
            if self._event is None:
                self._event = self._trace.event(self._next)
            due_s = float(self._event["ts"] - self._start_ts)
            if due_s > at_s:
                break
            if check is not None:
                check()
            self.cluster.run_until(due_s)
            self._play(self._event)
            self._next, self._event = self._next + 1, None
        self.cluster.run_until(at_s)

    def _play(self, event: dict[str, Any]) -> None:
        for manifest in event["applied_objs"]:
            lifetimes = (
                self._lifetimes.get((kind_key(manifest), name_key(manifest)), ()) if self._lifetimes else ()
            )
            self.cluster.apply(manifest, lifetimes_s=lifetimes)
        for manifest in event["deleted_objs"]:
            try:
                self.cluster.delete(manifest)
            except ObjectNotFound:
                # A trace that was cut out of a longer one deletes what it never applied, as SimKube allows.
                continue


def lifetimes_of(trace: Trace) -> dict[tuple[str, str], tuple[float, ...]]:
    """Return how long the pods of each workload ran, by (kind, namespace/name), in the order of the trace."""
    found = trace.section("pod_lifecycles") or {}
    return {
        owner: lengths
        for owner, hashes in found.items()
        if (
            lengths := tuple(
                float(state["Finished"][1] - state["Finished"][0])
                for states in hashes.values()
                for state in states
                if isinstance(state, dict) and "Finished" in state
            )
        )
    }
