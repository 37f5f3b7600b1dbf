"""Loading a pool: engine and model brought here, the fit judged, replicas started; adopted ones first."""

from typing import Any

import msgspec

from skep.errors import SkepError
from skep.errors.hive import DoesNotFit
from skep.hive import crash
from skep.hive.launching import Running
from skep.hive.plan import Plan, make_plan, require_fit, resolve_mask
from skep.hive.standing import Standing
from skep.hive.steps import Step, reached
from skep.lifecycle.pool import PoolEvent
from skep.provision.progress import Progress
from skep.spec.pool import PoolSpec


async def load(pool: Standing, adoptable: dict[str, Running]) -> None:
    """Bring a pool that is provisioning to its replicas; what it then becomes, they tell.

    `adoptable` holds the processes of an earlier hive that were started from the plan that was stored.
    """
    pool.preload_began = pool.node.clock()
    reached(Step.WISH_STORED, pool_id=pool.id)
    held_s = 0.0 if adoptable else pool.judging.held_s()
    if held_s:
        pool.fail(PoolEvent.PROVISION_FAILED, _held(pool, held_s), after_s=held_s)
        return
    try:
        plan = await _plan(pool, adoptable)
    except DoesNotFit as error:
        pool.fit_told = error.facts.get("because", "")
        pool.fail(PoolEvent.DOES_NOT_FIT, crash.cause_of(error))
        return
    except (SkepError, OSError) as error:
        pool.fail(PoolEvent.PROVISION_FAILED, crash.cause_of(error))
        return
    pool.advance(PoolEvent.PROVISIONED)
    for replica_id, running in adoptable.items():
        pool.new_replica(plan, replica_id).start(running)
    fill_up(pool, plan)


def _held(pool: Standing, held_s: float) -> dict[str, Any]:
    return {
        "code": "breaker_open",
        "message": f"the breaker was opened by failures before this hive started; a trial follows in {held_s:.0f} s, "
        f"or at once by `skep pool reset {pool.id}`",
    }


def fill_up(pool: Standing, plan: Plan) -> None:
    """Start as many replicas as are missing."""
    for _ in range(pool.declared.spec.replicas - len(pool.replicas)):
        pool.new_replica(plan).start()


async def provision(pool: Standing, spec: PoolSpec) -> Plan:
    """Bring engine and model here. Raises: as `make_plan`."""

    def tell(progress: Progress) -> None:
        share = f" {progress.done / progress.total:.0%}" if progress.total else ""
        pool.provisioning = f"{progress.step}{share} {progress.detail}".strip()
        pool.events.add("provisioning", text=pool.provisioning, done=progress.done, total=progress.total)

    async with pool.node.provisioning:
        try:
            if not pool.mask.ids:
                await pool.node.inventory.refresh()
                pool.mask = resolve_mask(spec, pool.node.inventory)
            return await make_plan(
                pool.node.settings,
                spec,
                pool.mask,
                on_progress=tell,
                on_engine=lambda: reached(Step.ENGINE_HERE, pool_id=pool.id),
                on_model=lambda: reached(Step.MODEL_HERE, pool_id=pool.id),
            )
        finally:
            pool.provisioning = ""


async def _plan(pool: Standing, adoptable: dict[str, Running]) -> Plan:
    wanted = pool.declared.spec.replicas - len(adoptable)
    if adoptable and pool.plan is not None:
        return pool.plan
    plan = await provision(pool, pool.declared.spec)
    await pool.node.inventory.refresh()
    verdict = require_fit(plan, pool.node.inventory, replicas=max(wanted, 1))
    pool.fit_told = verdict.because
    reached(Step.FITS, pool_id=pool.id)
    await remember(pool, plan)
    return plan


async def remember(pool: Standing, plan: Plan) -> None:
    """Store the plan before anything is started from it, so that a successor can adopt what is."""
    pool.plan = plan
    pool.declared = msgspec.structs.replace(pool.declared, plan=plan, mask=pool.mask.ids)
    await pool.store.put(pool.declared)


async def all_ready(pool: Standing, replica_ids: set[str]) -> bool:
    """Wait until each of these replicas is ready, or one of them is not going to be; True in the first case."""
    while True:
        present = [pool.replicas.get(one) for one in replica_ids]
        if all(one is not None and one.is_serving for one in present):
            return True
        if any(one is None or one.last_error is not None for one in present):
            return False
        pool.moved.clear()
        await pool.moved.wait()
