"""The admin API's other half: keys, declared pools, the queens, the audit log."""

import time
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post
from litestar.params import JSONBody, Parameter

from skep.errors import InvalidInput
from skep.errors.queen import PoolConflict, PoolUnknown
from skep.queen import keys
from skep.queen.audit import RECORDS_MAX
from skep.queen.core import Core
from skep.queen.keys import Limits, NewKey, Usage
from skep.queen.records import ASSIGNMENTS, POOLS, QUEENS, Assignment, AuditRecord, PoolRecord, QueenRecord
from skep.store.base import Compare, Delete, Put

Id = Annotated[str, Parameter(max_length=64)]


class KeyView(NewKey, frozen=True, kw_only=True):
    """A key without its text or hash, and what it has used."""

    key_id: str
    created_at: float
    usage: Usage = Usage()


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key's text: it is shown this once."""

    key: str
    key_id: str
    name: str
    limits: Limits


class DeclaredPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as declared here, where it is, and why it is nowhere."""

    record: PoolRecord
    node_id: str | None
    failure: str | None


@post("/v2/keys", summary="Make an API key", tags=["keys"], status_code=201)
async def create_key(core: Core, data: JSONBody[NewKey]) -> CreatedKey:
    """The answer holds the key; it is kept as a hash only."""
    text, kept = await keys.create(core.store, data, now_s=time.time())
    return CreatedKey(key=text, key_id=kept.key_id, name=kept.name, limits=kept.limits)


@get("/v2/keys", summary="Every API key and what it has used", tags=["keys"])
async def list_keys(core: Core) -> list[KeyView]:
    """Oldest first."""
    return [
        KeyView(
            name=key.name,
            limits=key.limits,
            models=key.models,
            priority=key.priority,
            expires_at=key.expires_at,
            key_id=key.key_id,
            created_at=key.created_at,
            usage=used,
        )
        for key, used in await keys.listed(core.store)
    ]


@delete("/v2/keys/{key_id:str}", summary="Revoke an API key", tags=["keys"], status_code=204)
async def revoke_key(core: Core, key_id: Id) -> None:
    """Refused at every queen a moment later; what runs goes on."""
    await keys.revoke(core.store, key_id)


@post("/v2/pools", summary="Declare a pool", tags=["pools"], status_code=202)
async def declare_pool(core: Core, data: JSONBody[PoolRecord]) -> DeclaredPool:
    """Declare or change a pool. Without a node in it, the leader places it by fit."""
    key = POOLS + data.pool.id
    item = await core.store.get(key)
    before = msgspec.json.decode(item.value, type=PoolRecord) if item else None
    if before is not None and _wish(before) == _wish(data):
        return _declared(core, before)
    record = msgspec.structs.replace(
        data,
        generation=before.generation + 1 if before else data.generation,
        created_at=before.created_at if before else time.time(),
    )
    compare = Compare(key=key, revision=item.revision if item else 0)
    committed = await core.store.txn([compare], [Put(key=key, value=msgspec.json.encode(record))])
    if not committed.done:
        raise PoolConflict(f"pool {data.pool.id} was changed by somebody else just now: try again")
    return _declared(core, record)


@get("/v2/pools/declared", summary="Pools declared at the queen", tags=["pools"])
async def declared_pools(core: Core) -> list[DeclaredPool]:
    """With the node that each is assigned to."""
    return [_declared(core, record) for record in _state(core).records(POOLS, PoolRecord)]


@delete("/v2/pools/{pool_id:str}", summary="End a declared pool", tags=["pools"], status_code=204)
async def end_pool(core: Core, pool_id: Id) -> None:
    """Its hive drains and forgets it."""
    if await core.store.get(POOLS + pool_id) is None:
        raise PoolUnknown(f"no pool {pool_id!r} is declared here", pool_id=pool_id)
    await core.store.txn([], [Delete(key=POOLS + pool_id)])


@get("/v2/queens", summary="The queens that run", tags=["queen"])
async def queens(core: Core) -> list[QueenRecord]:
    """By id."""
    return sorted(_state(core).records(QUEENS, QueenRecord), key=lambda one: one.queen_id)


@get("/v2/audit", summary="The newest admin calls", tags=["queen"])
async def audit(
    core: Core, limit: Annotated[int, Parameter(ge=1, le=RECORDS_MAX)] = 100
) -> list[AuditRecord]:
    """Newest first."""
    return await core.audit.newest(limit) if core.audit is not None else []


MANAGE: list[Any] = [
    create_key, list_keys, revoke_key, declare_pool, declared_pools, end_pool, queens, audit
]  # fmt: skip


def _state(core: Core) -> Any:
    if core.state is None:
        raise InvalidInput("this queen runs without a store: start it with --store")
    return core.state


def _declared(core: Core, record: PoolRecord) -> DeclaredPool:
    assigned = {one.pool_id: one.node_id for one in _state(core).records(ASSIGNMENTS, Assignment)}
    failures = core.assigner.failures if core.assigner is not None else {}
    return DeclaredPool(
        record=record, node_id=assigned.get(record.pool.id), failure=failures.get(record.pool.id)
    )


def _wish(record: PoolRecord) -> tuple[object, ...]:
    """Return what an operator decides about a pool."""
    return record.pool, record.memory_bytes, record.spread
