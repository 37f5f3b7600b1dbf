"""The queen's parts in one object: what the admin API, the dashboard and the daemon work with."""

import asyncio
import secrets
import time
from collections.abc import Callable

import aiohttp
import structlog

from skep.errors.queen import NodeUnknown
from skep.errors.store import StoreUnavailable
from skep.lifecycle.pool import PoolState
from skep.queen.assign import Assigner
from skep.queen.audit import Audit
from skep.queen.dispatch import Dispatcher
from skep.queen.forward import Forwarder
from skep.queen.gate import Gate, OpenGate
from skep.queen.hosts import HostCheck
from skep.queen.metrics import Metrics
from skep.queen.options import GatewayOptions
from skep.queen.rates import Rates
from skep.queen.registry import Node, Registry
from skep.queen.request import Shared
from skep.queen.routes import Route, Routes
from skep.queen.service import Listener, Service
from skep.queen.state import State
from skep.queen.upstream import Upstreams
from skep.store.base import Store
from skep.wire.node import HEARTBEAT_INTERVAL_S, Heartbeat, RegisterRequest

log = structlog.get_logger(__name__)

HEARTBEAT_MS_MIN, HEARTBEAT_MS_PER_NODE = 1_000, 10


class Core:
    """Wires registry, routes, dispatcher and gateway service to each other. Make it inside the event loop."""

    def __init__(
        self,
        options: GatewayOptions,
        *,
        gate: Gate | None = None,
        hosts: HostCheck | None = None,
        wake: Callable[[Route], None] = lambda _: None,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.instance = secrets.token_hex(8)
        self.started_s = time.time()
        self.registry = Registry()
        self.routes = Routes(self.registry)
        self.dispatcher = Dispatcher(self.routes, options, clock=time.monotonic, wake=wake)
        self.upstreams = Upstreams(
            loop,
            idle_max=options.idle_connections_max,
            idle_s_max=options.idle_connection_s_max,
            connect_s_max=options.connect_s_max,
        )
        self.metrics = Metrics()
        self.rates = Rates()
        shared = Shared(time.monotonic, options, self.dispatcher, self.upstreams)
        self.service = Service(
            shared,
            self.routes,
            gate or OpenGate(),
            hosts=hosts or HostCheck(),
            listeners=(self.metrics, self.rates, *listeners),
        )
        self.metrics.watch(self.registry, self.dispatcher, self.service)
        self.registry.listen(self.dispatcher.pump_all)
        self.state: State | None = None
        self.forwarder: Forwarder | None = None
        self.assigner: Assigner | None = None
        self.audit: Audit | None = None
        self.client: aiohttp.ClientSession | None = None
        self.watchers = 0
        self.gateway_url = self.proofs = ""
        self.is_tls = False
        self.internal_token = secrets.token_urlsafe(32)

    def now_s(self) -> float:
        """Return the gateway's clock."""
        return self.service.now_s()

    def waiting(self) -> dict[str, int]:
        """Return how many wait for each model."""
        return {model: count for model in self.routes.models() if (count := self.dispatcher.queued(model))}

    async def sweep_for_ever(self, every_s: float = 0.5) -> None:
        """Judge leases."""
        while True:
            await asyncio.sleep(every_s)
            self.registry.sweep()

    @property
    def store(self) -> Store:
        """The store. Raises: StoreUnavailable when the queen runs without one."""
        if self.state is None:
            raise StoreUnavailable("this queen runs without a store")
        return self.state.store

    # The nodes.

    @property
    def heartbeat_ms(self) -> int:
        """When a node's next heartbeat is wanted: the fewer nodes, the sooner, so that load is fresh at no cost."""
        wanted = len(self.registry.nodes) * HEARTBEAT_MS_PER_NODE
        return min(max(wanted, HEARTBEAT_MS_MIN), int(HEARTBEAT_INTERVAL_S * 1000))

    def register(self, request: RegisterRequest, *, is_forwarded: bool = False) -> Node:
        """Take a node in."""
        node = self.registry.register(request)
        if self.state is not None and self.state.is_cordoned(node.node_id) and node.is_alive:
            self.registry.cordon(node.node_id, is_cordoned=True)
        log.info("node_registered", node_id=node.node_id, address=request.address, version=request.version)
        self._spread(node.node_id, is_changed=True, is_forwarded=is_forwarded)
        return node

    def heartbeat(self, node_id: str, beat: Heartbeat, *, is_forwarded: bool = False) -> tuple[str, ...]:
        """Take a heartbeat; return the node's pools that somebody waits for. Raises: NodeUnknown."""
        before = self.registry.nodes.get(node_id)
        served = _served(before) if before else None
        node = self.registry.heartbeat(node_id, beat)
        self._spread(node_id, is_changed=served != _served(node), is_forwarded=is_forwarded)
        return tuple(
            pool.pool_id
            for pool in node.pools.values()
            if pool.state == PoolState.IDLE.value and self.dispatcher.queued(pool.model)
        )

    def leave(self, node_id: str, *, is_forwarded: bool = False) -> None:
        """Forget a node. Raises: NodeUnknown."""
        self.registry.leave(node_id)
        self._spread(node_id, is_changed=True, is_forwarded=is_forwarded)

    async def cordon(self, node_id: str, *, is_cordoned: bool) -> Node:
        """Stop or allow new work on a node, at every queen. Raises: NodeUnknown, StoreUnavailable."""
        if node_id not in self.registry.nodes:
            raise NodeUnknown(f"no node {node_id} is registered", node_id=node_id)
        if self.state is not None:
            await self.state.cordon(node_id, is_cordoned=is_cordoned)
        return self.registry.cordon(node_id, is_cordoned=is_cordoned)

    def count_unknown(self, fields: int) -> None:
        """Count the fields of messages that this version does not know."""
        self.metrics.unknown_fields(fields)

    def _spread(self, node_id: str, *, is_changed: bool, is_forwarded: bool) -> None:
        """Tell the other queens, and have it written down."""
        if is_forwarded:
            return
        if self.forwarder is not None:
            self.forwarder.tell(node_id)
        if is_changed and self.state is not None:
            self.state.node_changed(node_id)

    # What /health says.

    def status(self) -> str:
        """Return one word; degraded still serves, on what was known last."""
        if self.service.is_stopping:
            return "stopping"
        return "degraded" if self.state is not None and self.state.away_s is not None else "ok"

    def health_facts(self) -> dict[str, object]:
        """Return what else /health tells."""
        facts: dict[str, object] = {
            "uptime_s": round(time.time() - self.started_s, 1),
            "nodes": len(self.registry.nodes),
        }
        if self.state is not None:
            away_s = self.state.away_s
            facts["leader"] = self.state.membership.is_leader
            facts["store"] = (
                "ok" if away_s is None else f"away for {away_s:.0f} s; running on last-known state"
            )
        return facts


def _served(node: Node) -> frozenset[tuple[str, str, tuple[str, ...]]]:
    """Return what of a node's pools is written down."""
    return frozenset((pool.pool_id, pool.model, pool.aliases) for pool in node.pools.values())
