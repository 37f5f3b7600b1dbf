"""Putting another model in a pool's place: beside the old one where memory allows, after it where it does not.

The old model runs until the new one is ready, or is started again when the new one fails; when that fails too, the pool
says so (`reload_failed`) and goes on trying the old one with backoff.
"""

from typing import Any

import msgspec

from skep.errors import SkepError
from skep.hive import crash, loading
from skep.hive.draining import drain_replicas
from skep.hive.plan import Plan, judge_fit
from skep.hive.replica import Replica
from skep.hive.standing import Standing
from skep.hive.steps import Step, reached
from skep.lifecycle.pool import PoolEvent
from skep.spec.pool import PoolSpec


async def reload(pool: Standing, spec: PoolSpec, deadline_s: float) -> None:
    """Do it, and leave the pool ready with the new model, ready with the old one, or unready with a cause."""
    began = pool.node.clock()
    before, old = pool.plan, list(pool.replicas.values())
    try:
        plan = await loading.provision(pool, spec)
        await pool.node.inventory.refresh()
        beside = bool(pool.serving) and judge_fit(plan, pool.node.inventory, replicas=spec.replicas).fits
    except (SkepError, OSError) as error:
        _roll_back(pool, crash.cause_of(error), began)
        return
    reached(Step.STAGED, pool_id=pool.id)
    if not beside:
        await drain_replicas(old, deadline_s)
        old = []
    cause = await _bring_up(pool, plan, spec)
    if cause is None:
        await _commit(pool, spec, old, deadline_s, began)
        return
    if not beside and before is not None:
        loading.fill_up(pool, before)
        await loading.all_ready(pool, set(pool.replicas))
    _roll_back(pool, cause, began)


async def _bring_up(pool: Standing, plan: Plan, spec: PoolSpec) -> dict[str, Any] | None:
    """Start the new replicas and wait for all; None when they serve, else why not, and none of them is left."""
    new = [pool.new_replica(plan) for _ in range(spec.replicas)]
    try:
        for one in new:
            one.start()
        if await loading.all_ready(pool, {one.id for one in new}):
            reached(Step.BESIDE, pool_id=pool.id)
            await _store(pool, plan, spec)
            return None
    except SkepError as error:
        await _stop(new)
        return crash.cause_of(error)
    except BaseException:
        await _stop(new)
        raise
    cause = next((one.last_error for one in new if one.last_error), None)
    await _stop(new)
    return cause or {"code": "start_failed", "message": "the new model did not start"}


async def _store(pool: Standing, plan: Plan, spec: PoolSpec) -> None:
    """Make it the pool's own, or leave everything as it was. Raises: StoreUnavailable."""
    before = pool.declared, pool.plan
    pool.declared = msgspec.structs.replace(pool.declared, spec=spec)
    try:
        await loading.remember(pool, plan)
    except SkepError:
        pool.declared, pool.plan = before
        raise
    reached(Step.RELOAD_STORED, pool_id=pool.id)


async def _commit(
    pool: Standing, spec: PoolSpec, old: list[Replica], deadline_s: float, began: float
) -> None:
    await drain_replicas(old, deadline_s)
    reached(Step.OLD_GONE, pool_id=pool.id)
    _finish(pool, "reloaded", began)
    pool.advance(PoolEvent.RELOADED, model=spec.model)
    reached(Step.RELOAD_DONE, pool_id=pool.id)


def _roll_back(pool: Standing, cause: dict[str, Any], began: float) -> None:
    if pool.serving:
        _finish(pool, "rolled_back", began, error=cause)
        pool.advance(PoolEvent.ROLLED_BACK, error=cause)
        return
    _finish(pool, "failed", began, error=cause)
    pool.last_error = cause
    pool.advance(PoolEvent.RELOAD_FAILED, error=cause)
    if not pool.replicas:
        pool.retrying.later()


def _finish(pool: Standing, outcome: str, began: float, **facts: Any) -> None:
    spent_ms = round((pool.node.clock() - began) * 1000)
    pool.last_reload = {"outcome": outcome, "duration_ms": spent_ms, **facts}
    pool.node.metrics.count(pool.node.metrics.reloads, pool.id, outcome)


async def _stop(replicas: list[Replica]) -> None:
    for one in replicas:
        await one.stop()
