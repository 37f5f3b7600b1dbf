"""The queen's parts in one object: what the admin API, the dashboard and the daemon work with."""

import asyncio
import secrets
import time
from collections.abc import Callable

import structlog

from skep.lifecycle.pool import PoolState
from skep.queen.dispatch import Dispatcher
from skep.queen.exchange import Shared
from skep.queen.gate import Gate, OpenGate
from skep.queen.hosts import HostCheck
from skep.queen.metrics import Metrics
from skep.queen.options import GatewayOptions
from skep.queen.registry import Node, Registry
from skep.queen.routes import Route, Routes
from skep.queen.service import Listener, Service
from skep.queen.upstream import Upstreams
from skep.wire.node import HEARTBEAT_INTERVAL_S, Heartbeat, RegisterRequest

log = structlog.get_logger(__name__)


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
        self.registry = Registry(clock=loop.time)
        self.routes = Routes(self.registry)
        self.dispatcher = Dispatcher(self.routes, options, clock=loop.time, wake=wake)
        self.upstreams = Upstreams(
            loop,
            idle_max=options.idle_connections_max,
            idle_s_max=options.idle_connection_s_max,
            connect_s_max=options.connect_s_max,
        )
        self.metrics = Metrics()
        shared = Shared(loop, options, self.dispatcher, self.upstreams)
        self.service = Service(
            shared,
            self.routes,
            gate or OpenGate(),
            hosts=hosts or HostCheck(),
            listeners=(self.metrics, *listeners),
        )
        self.metrics.watch(self.registry, self.dispatcher, self.service)
        self.registry.listen(self.dispatcher.pump_all)

    def now_s(self) -> float:
        """Return the event loop's time."""
        return self.service.now_s()

    def waiting(self) -> dict[str, int]:
        """Return how many wait for each model."""
        return {model: count for model in self.routes.models() if (count := self.dispatcher.queued(model))}

    async def sweep_for_ever(self, every_s: float = 0.5) -> None:
        """Judge leases."""
        while True:
            await asyncio.sleep(every_s)
            self.registry.sweep()

    # The nodes.

    @property
    def heartbeat_ms(self) -> int:
        """When a node's next heartbeat is wanted."""
        return int(HEARTBEAT_INTERVAL_S * 1000)

    def register(self, request: RegisterRequest) -> Node:
        """Take a node in."""
        node = self.registry.register(request)
        log.info("node_registered", node_id=node.node_id, address=request.address, version=request.version)
        return node

    def heartbeat(self, node_id: str, beat: Heartbeat) -> tuple[str, ...]:
        """Take a heartbeat; return the node's pools that somebody waits for. Raises: NodeUnknown."""
        node = self.registry.heartbeat(node_id, beat)
        return tuple(
            pool.pool_id
            for pool in node.pools.values()
            if pool.state == PoolState.IDLE.value and self.dispatcher.queued(pool.model)
        )

    def leave(self, node_id: str) -> None:
        """Forget a node. Raises: NodeUnknown."""
        self.registry.leave(node_id)

    def count_unknown(self, fields: int) -> None:
        """Count the fields of messages that this version does not know."""
        self.metrics.unknown_fields(fields)

    # What /health says.

    def status(self) -> str:
        """Return one word."""
        return "stopping" if self.service.is_stopping else "ok"

    def health_facts(self) -> dict[str, object]:
        """Return what else /health tells."""
        return {"uptime_s": round(time.time() - self.started_s, 1), "nodes": len(self.registry.nodes)}
