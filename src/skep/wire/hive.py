"""The bodies of a hive's own API. Times in seconds, memory in bytes; tokens are never in any of them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from skep.spec.device import Device
from skep.spec.ids import Id
from skep.spec.pool import PoolSpec

DEADLINE_MS_MAX = 24 * 3600 * 1000
DRAIN_MS_DEFAULT = 30_000


class HealthReply(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /health`, the one route that asks for no token."""

    status: str
    version: str
    instance: str


class ReadyReply(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /ready`: ready when every pool that should serve does; `waiting` names the others and why."""

    ready: bool
    waiting: dict[str, str]


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as people and programs see it."""

    replica_id: str
    state: str
    url: str | None
    instance: str | None
    pid: int | None
    model: str
    slots_total: int
    slots_free: int
    queue_depth: int
    kv_used: float
    progress: float | None
    ready_s: float
    restart_count: int
    breaker: str
    last_error: dict[str, Any] | None


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """One pool. `live`: some process of it runs; `ready`: it takes jobs. `last_error` stays until the next ready."""

    pool_id: str
    model: str
    aliases: tuple[str, ...]
    model_ref: str
    state: str
    live: bool
    ready: bool
    last_error: dict[str, Any] | None
    engine: str
    engine_version: str
    abilities: tuple[str, ...]
    devices: str
    device_mask: tuple[str, ...]
    split: tuple[float, ...]
    replicas: tuple[ReplicaView, ...]
    replicas_wanted: int
    slots_total: int
    slots_free: int
    jobs: int
    progress: float | None
    provisioning: str
    retry_at_s: float | None
    ttl_s: float | None
    generation: int
    fit: str
    last_drain: dict[str, Any] | None
    last_reload: dict[str, Any] | None
    spec: PoolSpec


class PoolList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v2/pools`."""

    pools: tuple[PoolView, ...]


class DeclareRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v2/pools`: declare or change a pool; an older `generation` than the present one is refused."""

    pool: PoolSpec
    generation: Annotated[int, Meta(ge=0, le=2**53)] = 0
    preload: bool = True


class DrainRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST …/drain`: jobs that still run after the deadline are cancelled."""

    deadline_ms: Annotated[int, Meta(ge=0, le=DEADLINE_MS_MAX)] = DRAIN_MS_DEFAULT


class ReloadRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST …/reload`: the same pool with another model, or the same model read again."""

    model: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    deadline_ms: Annotated[int, Meta(ge=0, le=DEADLINE_MS_MAX)] = DRAIN_MS_DEFAULT


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """202: the work goes on; `watch` is where it can be followed, `status` where it can be asked for."""

    pool_id: str
    operation: str
    state: str
    watch: str
    status: str


class DeviceList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v2/devices`."""

    devices: tuple[Device, ...]
    cpu_cores: int
    held: dict[str, dict[str, int]]


class StateReply(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v2/state`: the whole node at a glance."""

    node_id: str
    instance: str
    version: str
    uptime_s: float
    queen: str | None
    registered: bool
    devices: tuple[Device, ...]
    pools: tuple[PoolView, ...]


class WhyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict of the restart policy, with what it was decided from."""

    at: float
    replica_id: str
    verdict: dict[str, Any]
    error: dict[str, Any] | None


class WhyReply(msgspec.Struct, frozen=True, kw_only=True):
    """`GET …/why`: the last verdicts, oldest first, and what keeps the pool from being ready now."""

    pool_id: str
    state: str
    last_error: dict[str, Any] | None
    fit: str
    verdicts: tuple[WhyEntry, ...]


class PoolEventView(msgspec.Struct, frozen=True, kw_only=True):
    """One event of `GET …/events`; ids grow by one, and `Last-Event-ID` resumes after one."""

    id: int
    at: float
    kind: str
    pool_id: Id
    facts: dict[str, Any]
