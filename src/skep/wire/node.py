"""What a hive tells a queen: registration, heartbeats, and the replies.

    POST   /v2/nodes/register        RegisterRequest  -> RegisterReply   idempotent
    POST   /v2/nodes/{id}/heartbeat  Heartbeat        -> HeartbeatReply  404 = register again
    DELETE /v2/nodes/{id}                                                the node leaves

Decode with `skep.wire.tolerant.decode`: unknown fields are ignored and counted, so that versions may differ.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from skep.spec.ids import Id

HEARTBEAT_INTERVAL_S = 10.0
OFFLINE_AFTER_S = 30.0
POOLS_MAX = 1_000
REPLICAS_MAX = 1_000

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the queen needs it for placement by fit. Memory in bytes, temperature in °C."""

    id: str
    kind: str
    index: int
    name: str
    memory_total_bytes: Count
    memory_free_bytes: Count
    temperature_c: float | None = None
    compute_capability: str | None = None


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine has."""

    devices: tuple[DeviceReport, ...] = ()
    cpu_cores: Count = 0
    ram_total_bytes: Count = 0


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """One replica: where it is, whose it is (`instance` is its nonce), how it is loaded.

    `state` is a `skep.lifecycle.replica.ReplicaState`. `token` is the worker's bearer token ("" = it asks for none);
    it is never logged, and `repr` leaves it out.
    """

    replica_id: Id
    url: str
    instance: str
    state: str
    slots_total: Count = 0
    slots_free: Count = 0
    queue_depth: Count = 0
    kv_used: Share = 0.0
    token: str = ""

    def __repr__(self) -> str:
        """Return the replica without its token."""
        return (
            f"ReplicaReport({self.replica_id} {self.state} {self.url} {self.slots_free}/{self.slots_total})"
        )


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """One pool. `model` is the name that clients ask for; `state` a `skep.lifecycle.pool.PoolState`.

    `abilities` names what the engine can do beside serving: jobs, cancel, drain, execute, embeddings.
    `progress` (0..1) is the load's while the pool is on its way; `generation` the declaration that it follows.
    `loads_on_demand`: idle, and `wanted` (in a HeartbeatReply, or `POST …/preload`) brings it back.
    """

    pool_id: Id
    model: str
    state: str
    replicas: Annotated[tuple[ReplicaReport, ...], Meta(max_length=REPLICAS_MAX)] = ()
    vram_free_bytes: Count = 0
    aliases: tuple[str, ...] = ()
    engine: str = "skep"
    abilities: tuple[str, ...] = ()
    context: Count = 0
    priority: int = 0
    generation: Count = 0
    progress: float | None = None
    loads_on_demand: bool = False
    last_error: str | None = None


class RegisterRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A node presents itself. `address` is the hive's base URL; `instance` changes with each start of the hive."""

    node_id: Id
    address: str
    version: str
    machine_id: str = ""
    instance: str = ""
    capabilities: Capabilities = Capabilities()
    pools: Annotated[tuple[PoolReport, ...], Meta(max_length=POOLS_MAX)] = ()


class RegisterReply(msgspec.Struct, frozen=True, kw_only=True):
    """The queen's answer: its version, and when it wants the first heartbeat."""

    node_id: str
    version: str = ""
    next_heartbeat_ms: Count = int(HEARTBEAT_INTERVAL_S * 1000)


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The node's whole present state. `sequence` grows within one `instance`; an older one is stale and ignored."""

    pools: Annotated[tuple[PoolReport, ...], Meta(max_length=POOLS_MAX)] = ()
    instance: str = ""
    sequence: Count = 0
    devices: tuple[DeviceReport, ...] = ()
    ram_available_bytes: Count = 0


class HeartbeatReply(msgspec.Struct, frozen=True, kw_only=True):
    """When the next one is due, and which idle pools somebody waits for."""

    next_heartbeat_ms: Count = int(HEARTBEAT_INTERVAL_S * 1000)
    wanted: tuple[str, ...] = ()
