"""A pool as others see it: for the API, and for the queen."""

from skep.hive.devices.inventory import Inventory
from skep.hive.pool import LOADED, Pool
from skep.hive.replica import Replica
from skep.lifecycle.pool import PoolState
from skep.spec.device import Device
from skep.wire.hive import PoolView, ReplicaView
from skep.wire.node import DeviceReport, PoolReport, ReplicaReport


def pool_view(pool: Pool) -> PoolView:
    """Return everything that `GET /v2/pools/{id}` tells."""
    spec, plan, serving = pool.declared.spec, pool.plan, pool.serving
    slots_total = sum(one.load.slots_total for one in serving)
    slots_free = sum(one.load.slots_free for one in serving)
    return PoolView(
        pool_id=pool.id,
        model=model_name(pool),
        aliases=plan.aliases if plan else spec.aliases,
        model_ref=plan.model_ref if plan else spec.model,
        state=pool.state.value,
        live=any(one.running is not None for one in pool.replicas.values()),
        ready=bool(serving) and pool.state in (PoolState.READY, PoolState.RELOADING),
        last_error=pool.last_error,
        engine=spec.engine,
        engine_version=plan.engine_version if plan else "",
        abilities=tuple(sorted(pool.adapter.abilities)),
        devices=spec.devices,
        device_mask=pool.mask.ids,
        split=spec.split,
        replicas=tuple(replica_view(one) for one in pool.replicas.values()),
        replicas_wanted=spec.replicas,
        slots_total=slots_total,
        slots_free=slots_free,
        jobs=slots_total - slots_free + sum(one.load.queue_depth for one in serving),
        progress=progress(pool),
        provisioning=pool.provisioning,
        retry_at_s=pool.retrying.due_at,
        ttl_s=spec.ttl_s,
        generation=pool.declared.generation,
        fit=pool.fit_told,
        last_drain=pool.last_drain,
        last_reload=pool.last_reload,
        spec=spec,
    )


def replica_view(replica: Replica) -> ReplicaView:
    """Return one replica, without its token."""
    running = replica.running
    return ReplicaView(
        replica_id=replica.id,
        state=replica.state.value,
        url=running.endpoint.url if running else None,
        instance=running.endpoint.nonce if running else None,
        pid=running.process.pid if running else None,
        model=replica.plan.model_name,
        slots_total=replica.load.slots_total,
        slots_free=replica.load.slots_free,
        queue_depth=replica.load.queue_depth,
        kv_used=replica.load.kv_used,
        progress=replica.progress,
        ready_s=round(replica.ready_s, 3),
        restart_count=replica.history.restarts,
        breaker=replica.history.breaker_state.value,
        last_error=replica.last_error,
    )


def pool_report(pool: Pool, inventory: Inventory) -> PoolReport:
    """Return what the queen hears of a pool: only replicas that have a process, with their tokens."""
    spec, plan = pool.declared.spec, pool.plan
    free = {one.id: one.memory_free_bytes for one in inventory.devices}
    return PoolReport(
        pool_id=pool.id,
        model=model_name(pool),
        state=pool.state.value,
        replicas=tuple(_replica_report(one) for one in pool.replicas.values() if one.running is not None),
        vram_free_bytes=sum(free.get(one, 0) for one in pool.mask.ids),
        aliases=plan.aliases if plan else spec.aliases,
        engine=spec.engine,
        abilities=tuple(sorted(pool.adapter.abilities)),
        context=spec.context,
        priority=spec.priority,
        generation=pool.declared.generation,
        progress=progress(pool),
        loads_on_demand=pool.state is PoolState.IDLE,
        last_error=pool.last_error["message"] if pool.last_error else None,
    )


def device_report(device: Device) -> DeviceReport:
    """Return what the queen hears of a device."""
    return DeviceReport(
        id=device.id,
        kind=device.kind.value,
        index=device.index,
        name=device.name,
        memory_total_bytes=device.memory_total_bytes,
        memory_free_bytes=device.memory_free_bytes,
        temperature_c=device.temperature_c,
        compute_capability=device.compute_capability,
    )


def model_name(pool: Pool) -> str:
    """Return the name that clients ask for: of what serves, else of what is declared."""
    serving = pool.serving
    if serving:
        return serving[0].plan.model_name
    return pool.plan.model_name if pool.plan else pool.declared.spec.name or pool.declared.spec.model


def progress(pool: Pool) -> float | None:
    """Return how far loading has come, 0..1, None when the pool is not on its way."""
    if pool.state not in LOADED or pool.serving:
        return None
    shares = [one.progress for one in pool.replicas.values() if one.progress is not None]
    return round(sum(shares) / len(shares), 3) if shares else 0.0


def _replica_report(replica: Replica) -> ReplicaReport:
    assert replica.running is not None
    endpoint = replica.running.endpoint
    return ReplicaReport(
        replica_id=replica.id,
        url=endpoint.url,
        instance=endpoint.nonce,
        state=replica.state.value,
        slots_total=replica.load.slots_total,
        slots_free=min(replica.load.slots_free, replica.load.slots_total),
        queue_depth=replica.load.queue_depth,
        kv_used=replica.load.kv_used,
        token=endpoint.token,
    )
