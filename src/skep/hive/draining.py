"""Ending what a pool runs: drained on request, unloaded when it has been idle."""

import asyncio
from collections.abc import Iterable

from skep.hive.endpoint import Drained
from skep.hive.finishing import Drainee, finish
from skep.hive.replica import Replica
from skep.hive.standing import Standing
from skep.hive.steps import Step, reached
from skep.lifecycle.pool import PoolEvent

IDLE_DRAIN_S = 5.0


async def drain(pool: Standing, deadline_s: float) -> None:
    """Drain and stop every replica; the pool is offline then."""
    reached(Step.DRAIN_STORED, pool_id=pool.id)
    began = pool.node.clock()
    _drained(pool, await drain_replicas(pool.replicas.values(), deadline_s), began)


async def resume(pool: Standing, left: list[Drainee]) -> None:
    """Go on with what an earlier hive was draining; the pool is offline then."""
    began = pool.node.clock()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(finish(pool.node, one)) for one in left]
    _drained(pool, together(one.result() for one in running), began)


def _drained(pool: Standing, drained: Drained, began: float) -> None:
    spent_s = pool.node.clock() - began
    pool.node.metrics.observe(pool.node.metrics.drain_s, spent_s, pool.id)
    pool.last_drain = {
        "force_stopped": drained.force_stopped,
        "jobs_cancelled": drained.jobs_cancelled,
        "duration_ms": round(spent_s * 1000),
    }
    pool.last_error = None
    pool.advance(PoolEvent.DRAINED, **pool.last_drain)
    reached(Step.DRAIN_DONE, pool_id=pool.id)


async def unload(pool: Standing) -> None:
    """Scale to zero: nothing of the pool runs until somebody wants it."""
    await drain_replicas(pool.replicas.values(), IDLE_DRAIN_S)
    pool.advance(PoolEvent.UNLOADED)


async def drain_replicas(replicas: Iterable[Replica], deadline_s: float) -> Drained:
    """Drain these at once, and return how it went for all of them together."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one.drain(deadline_s)) for one in list(replicas)]
    return together(one.result() for one in running)


def together(several: Iterable[Drained]) -> Drained:
    """Return how it went for all of them."""
    outcomes = list(several)
    return Drained(
        force_stopped=any(one.force_stopped for one in outcomes),
        jobs_cancelled=sum(one.jobs_cancelled for one in outcomes),
        duration_ms=max((one.duration_ms for one in outcomes), default=0),
    )
