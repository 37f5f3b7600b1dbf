"""What the queen keeps in the store, and under which keys. Worker tokens and key texts are never among it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from skep.policy.placement import Spread
from skep.spec.ids import Id
from skep.spec.pool import PoolSpec

NODES, CORDONS, POOLS, ASSIGNMENTS = "nodes/", "cordons/", "pools/", "assignments/"
QUEENS, AUDIT, LEADER = "queens/", "audit/", "leader"


class ServedPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool that a node had when it was last written down."""

    pool_id: str
    model: str
    aliases: tuple[str, ...] = ()


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A node as a queen that has just started finds it: known, but not heard of yet."""

    node_id: str
    address: str
    version: str = ""
    pools: tuple[ServedPool, ...] = ()


class QueenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A queen that runs, under its lease."""

    queen_id: str
    admin_url: str
    gateway_url: str
    version: str = ""
    started_at: float = 0.0


class PoolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as declared at the queen. `memory_bytes` is what it needs of a node's devices; 0 leaves it to the hive."""

    pool: PoolSpec
    generation: Annotated[int, Meta(ge=1)] = 1
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    spread: Spread = Spread.SPREAD
    created_at: float = 0.0


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """Where the leader put a pool. `refused` are nodes whose hive said that it does not fit."""

    pool_id: Id
    node_id: Id
    generation: int
    refused: tuple[str, ...] = ()
    assigned_at: float = 0.0


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One admin call that changed something, or tried to."""

    at: float
    actor: str
    address: str
    method: str
    path: str
    status: int
    queen_id: str = ""
