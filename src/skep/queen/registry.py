"""Who is registered, judged by leases: nodes, their pools, their replicas. In memory; the last word is the hives'.

Three judgements stay apart. Is the node's lease alive? That is here, and it only decides about new work. Is the
replica healthy? Its hive says so, in `state`. Should it get work right now? The gateway's own experience: `Replica`.
"""

import time
from collections.abc import Callable, Iterable

import structlog

from skep.errors.queen import NodeUnknown
from skep.lifecycle import node as life
from skep.lifecycle.node import NodeEvent, NodeState
from skep.lifecycle.replica import ReplicaState
from skep.queen.replica import Replica
from skep.wire.node import OFFLINE_AFTER_S, Heartbeat, PoolReport, RegisterRequest

log = structlog.get_logger(__name__)

SERVING = frozenset({ReplicaState.READY.value})
"""A suspect replica gets no new work: the hive is about to say whether it lives."""

STALL_S = 5.0
"""A pause between two sweeps that is longer was ours (suspended, starved): nobody loses a lease for it."""


class Node:
    """A registered hive. `pools` is what it last said; `replicas` are the gateway's handles, kept over heartbeats."""

    def __init__(self, request: RegisterRequest, now_s: float) -> None:
        self.node_id = request.node_id
        self.state = NodeState.JOINING
        self.request = request
        self.devices = request.capabilities.devices
        self.pools: dict[str, PoolReport] = {}
        self.replicas: dict[str, Replica] = {}
        self.seen_s = now_s
        self.sequence = -1
        self.ram_available_bytes = 0
        self._served_s: dict[str, float] = {}

    def served_within(self, pool_id: str, limit_s: float) -> bool:
        """True when the pool had a ready replica so short a time before the node was last heard of."""
        return self.seen_s - self._served_s.get(pool_id, -limit_s) < limit_s

    @property
    def is_heard(self) -> bool:
        """True once it has spoken to a queen since this one started; before, it is only known from the store."""
        return self.state is not NodeState.JOINING

    @property
    def is_alive(self) -> bool:
        """True when it may get new work."""
        return self.state is NodeState.ALIVE

    def take_pools(self, pools: Iterable[PoolReport]) -> None:
        """Replace what is known of its pools; a replica with another instance is a new one."""
        self.pools = {pool.pool_id: pool for pool in pools}
        known, self.replicas = self.replicas, {}
        for pool in self.pools.values():
            for report in pool.replicas:
                key = f"{pool.pool_id}/{report.replica_id}"
                handle = known.get(key)
                if handle is None or not handle.is_same(report):
                    handle = Replica(self.node_id, pool.pool_id, report, priority=pool.priority)
                else:
                    handle.update(report, priority=pool.priority)
                self.replicas[key] = handle
                if report.state in SERVING:
                    self._served_s[pool.pool_id] = self.seen_s
        self._served_s = {key: at_s for key, at_s in self._served_s.items() if key in self.pools}


class Registry:
    """The nodes. Every change that may matter to somebody who waits calls the listeners."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, offline_after_s: float = OFFLINE_AFTER_S
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self._clock = clock
        self._offline_after_s = offline_after_s
        self._swept_s = clock()
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def register(self, request: RegisterRequest) -> Node:
        """Take a node in; doing it again is fine and refreshes it. A cordoned node stays cordoned."""
        now = self._clock()
        node = self.nodes.get(request.node_id)
        if node is None:
            node = self.nodes[request.node_id] = Node(request, now)
            self._advance(node, NodeEvent.REGISTERED)
        elif node.state is NodeState.JOINING:
            self._advance(node, NodeEvent.REGISTERED)
        elif node.state is NodeState.LOST:
            self._advance(node, NodeEvent.LEASE_RENEWED)
        node.request = request
        node.devices = request.capabilities.devices or node.devices
        node.seen_s, node.sequence = now, -1
        node.take_pools(request.pools)
        self._changed()
        return node

    def expect(self, request: RegisterRequest) -> None:
        """Know a node from the store until it speaks for itself; after a lease's time it is forgotten."""
        if request.node_id not in self.nodes:
            node = self.nodes[request.node_id] = Node(request, self._clock())
            node.take_pools(request.pools)
            self._changed()

    def heartbeat(self, node_id: str, beat: Heartbeat) -> Node:
        """Take a node's present state; one that is older than the last is only a sign of life.

        Raises: NodeUnknown (it has to register again: unknown, left, only expected, or another instance of the hive).
        """
        node = self.nodes.get(node_id)
        if node is None or not node.is_heard or node.request.instance != beat.instance:
            raise NodeUnknown(f"node {node_id} is not registered here: register again", node_id=node_id)
        node.seen_s = self._clock()
        if node.state is NodeState.LOST:
            self._advance(node, NodeEvent.LEASE_RENEWED)
        if beat.sequence > node.sequence:
            node.sequence = beat.sequence
            node.devices = beat.devices or node.devices
            node.ram_available_bytes = beat.ram_available_bytes
            node.take_pools(beat.pools)
        self._changed()
        return node

    def leave(self, node_id: str) -> None:
        """Forget a node that leaves. Raises: NodeUnknown."""
        node = self._known(node_id)
        self._advance(node, NodeEvent.LEAVE)
        del self.nodes[node_id]
        self._changed()

    def cordon(self, node_id: str, *, is_cordoned: bool) -> Node:
        """Stop or allow new work on a node; doing it again is fine. Raises: NodeUnknown."""
        node = self._known(node_id)
        if is_cordoned and node.state is not NodeState.CORDONED:
            self._advance(node, NodeEvent.CORDON)
        elif not is_cordoned and node.state is NodeState.CORDONED:
            self._advance(node, NodeEvent.UNCORDON)
        self._changed()
        return node

    def sweep(self) -> None:
        """Judge the leases; call it every second or so."""
        now = self._clock()
        pause_s, self._swept_s = now - self._swept_s, now
        if pause_s > STALL_S:
            log.warning("registry_stalled", pause_s=round(pause_s, 1))
            for node in self.nodes.values():
                node.seen_s += pause_s
        lost = [
            node
            for node in self.nodes.values()
            if node.is_alive and now - node.seen_s > self._offline_after_s
        ]
        for node in lost:
            self._advance(node, NodeEvent.LEASE_LOST)
        silent = [
            node
            for node in self.nodes.values()
            if not node.is_heard and now - node.seen_s > self._offline_after_s
        ]
        for node in silent:
            self._advance(node, NodeEvent.LEAVE)
            del self.nodes[node.node_id]
        if lost or silent:
            self._changed()

    def age_s(self, node: Node) -> float:
        """Return how long ago a node was last heard of."""
        return self._clock() - node.seen_s

    def _known(self, node_id: str) -> Node:
        try:
            return self.nodes[node_id]
        except KeyError:
            raise NodeUnknown(f"no node {node_id} is registered", node_id=node_id) from None

    def _advance(self, node: Node, event: NodeEvent) -> None:
        before, node.state = node.state, life.advance(node.state, event)
        log.info(
            "node_state", node_id=node.node_id, cause=event.value, before=before.value, after=node.state.value
        )

    def _changed(self) -> None:
        for listener in list(self._listeners):
            listener()
