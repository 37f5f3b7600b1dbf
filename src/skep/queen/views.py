"""What the admin API shows of nodes, pools and models: frozen copies, without tokens."""

import msgspec

from skep.queen.registry import Node, Registry
from skep.queen.routes import Routes
from skep.wire.node import DeviceReport


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, with the gateway's own judgement of it."""

    replica_id: str
    url: str
    state: str
    slots_total: int
    slots_free: int
    queue_depth: int
    kv_used: float
    in_flight: int
    is_ejected: bool


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """One pool on one node."""

    pool_id: str
    node_id: str
    model: str
    aliases: tuple[str, ...]
    engine: str
    state: str
    ready: bool
    progress: float | None
    last_error: str | None
    context: int
    priority: int
    generation: int
    waiting: int
    replicas: tuple[ReplicaView, ...]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node, as its lease and its last heartbeat show it."""

    node_id: str
    state: str
    address: str
    version: str
    seen_s_ago: float
    cpu_cores: int
    ram_total_bytes: int
    ram_available_bytes: int
    devices: tuple[DeviceReport, ...]
    pools: tuple[str, ...]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One model's name, and what serves it."""

    name: str
    hope: str
    slots_total: int
    waiting: int
    pools: tuple[str, ...]


def node_view(registry: Registry, node: Node) -> NodeView:
    """Return a node's view."""
    return NodeView(
        node_id=node.node_id,
        state=node.state.value,
        address=node.request.address,
        version=node.request.version,
        seen_s_ago=round(registry.age_s(node), 3),
        cpu_cores=node.request.capabilities.cpu_cores,
        ram_total_bytes=node.request.capabilities.ram_total_bytes,
        ram_available_bytes=node.ram_available_bytes,
        devices=node.devices,
        pools=tuple(node.pools),
    )


def pool_views(registry: Registry, *, now_s: float, waiting: dict[str, int]) -> list[PoolView]:
    """Return every pool's view, ordered by pool and node."""
    found = []
    for node in registry.nodes.values():
        for pool in node.pools.values():
            handles = [(one, node.replicas[f"{pool.pool_id}/{one.replica_id}"]) for one in pool.replicas]
            replicas = tuple(
                ReplicaView(
                    replica_id=report.replica_id,
                    url=report.url,
                    state=report.state,
                    slots_total=report.slots_total,
                    slots_free=report.slots_free,
                    queue_depth=report.queue_depth,
                    kv_used=report.kv_used,
                    in_flight=handle.in_flight,
                    is_ejected=not handle.is_trusted(now_s),
                )
                for report, handle in handles
            )
            found.append(
                PoolView(
                    pool_id=pool.pool_id,
                    node_id=node.node_id,
                    model=pool.model,
                    aliases=pool.aliases,
                    engine=pool.engine,
                    state=pool.state,
                    ready=node.is_alive and pool.state == "ready",
                    progress=pool.progress,
                    last_error=pool.last_error,
                    context=pool.context,
                    priority=pool.priority,
                    generation=pool.generation,
                    waiting=waiting.get(pool.model, 0),
                    replicas=replicas,
                )
            )
    return sorted(found, key=lambda view: (view.pool_id, view.node_id))


def model_views(routes: Routes, waiting: dict[str, int]) -> list[ModelView]:
    """Return every model's view."""
    found = []
    for name in routes.models():
        route = routes.table[name]
        found.append(
            ModelView(
                name=name,
                hope=route.hope.value,
                slots_total=route.slots_total,
                waiting=waiting.get(name, 0),
                pools=tuple(f"{one.node.node_id}/{one.pool.pool_id}" for one in route.pools),
            )
        )
    return found
