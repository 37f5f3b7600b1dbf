"""All pools of this node: declared, found, forgotten."""

import asyncio
from pathlib import Path

import msgspec
import structlog

from skep.errors.hive import ForbiddenReference, InvalidMask, PoolNotFound, StaleGeneration
from skep.hive.declared import Declared, DeclaredStore, Source, Wish
from skep.hive.devices.inventory import DeviceChange, DeviceEvent
from skep.hive.node import Node
from skep.hive.plan import FAKE_PREFIX, find_engine, find_model, resolve_mask
from skep.hive.pool import LOADED, Pool
from skep.hive.steps import Step, reached
from skep.lifecycle.pool import PoolState
from skep.spec.device import DeviceMask
from skep.spec.model import RefKind
from skep.spec.pool import PoolSpec

log = structlog.get_logger(__name__)

IDLE_LOOK_SHARE = 0.25
IDLE_LOOK_S_MIN = 0.05


class Pools:
    """The pools by id."""

    def __init__(self, node: Node, store: DeclaredStore) -> None:
        self.node, self.store = node, store
        self.by_id: dict[str, Pool] = {}
        self._declaring = asyncio.Lock()

    def get(self, pool_id: str) -> Pool:
        """Return a pool. Raises: PoolNotFound."""
        try:
            return self.by_id[pool_id]
        except KeyError:
            here = ", ".join(sorted(self.by_id)) or "none"
            raise PoolNotFound(
                f"there is no pool {pool_id!r} on node {self.node.settings.node_id}; here: {here}",
                pool_id=pool_id,
            ) from None

    def ordered(self) -> list[Pool]:
        """Return every pool, by id."""
        return [self.by_id[one] for one in sorted(self.by_id)]

    async def declare(
        self, spec: PoolSpec, *, generation: int = 0, source: Source = Source.API, wish: Wish = Wish.OFFLINE
    ) -> Pool:
        """Declare a pool, or change one; declaring the same again changes nothing. `wish` counts for a new one.

        A changed declaration of a loaded pool takes effect by a reload.
        Raises: StaleGeneration, InvalidMask, EngineUnknown, ForbiddenReference, InvalidInput, StoreUnavailable.
        """
        async with self._declaring:
            present = self.by_id.get(spec.id)
            if present is not None and generation < present.declared.generation:
                raise StaleGeneration(
                    f"pool {spec.id} has generation {present.declared.generation}, {generation} is older",
                    generation=generation,
                    present=present.declared.generation,
                )
            find_engine(self.node.settings, spec)
            if source is Source.API:
                self._check_reference(spec)
            mask = self._mask(spec, source)
            if present is not None:
                return await self._change(present, spec, mask, generation, source)
            declared = Declared(spec=spec, mask=mask.ids, generation=generation, source=source, wish=wish)
            await self.store.put(declared)
            reached(Step.DECLARATION_STORED, pool_id=spec.id)
            return self.restore(declared)

    def restore(self, declared: Declared) -> Pool:
        """Bring a stored pool back, not loaded yet."""
        pool = Pool(declared, DeviceMask(declared.mask), self.node, self.store)
        self.by_id[pool.id] = pool
        pool.tell("declared", generation=declared.generation, source=declared.source.value)
        self.node.changed.set()
        return pool

    async def remove(self, pool_id: str, deadline_s: float) -> Pool:
        """Begin to end a pool; it is forgotten when nothing of it runs. Raises: PoolNotFound, StoreUnavailable."""
        pool = self.get(pool_id)
        await pool.wish(Wish.OFFLINE)
        await self.store.remove(pool_id)
        await pool.retire(deadline_s)
        self.node.run(self._forget(pool), name=f"forget {pool_id}")
        return pool

    def device_changed(self, change: DeviceChange) -> None:
        """A device that vanished takes the replicas on it out of service; heat is told."""
        level = log.info if change.event in (DeviceEvent.APPEARED, DeviceEvent.COOLED) else log.warning
        level(
            "device_changed",
            change=change.event.value,
            device_id=change.device.id,
            temperature_c=change.device.temperature_c,
        )
        for pool in self.by_id.values():
            if change.device.id not in pool.mask.ids:
                continue
            pool.tell("device", device_id=change.device.id, change=change.event.value)
            if change.event is DeviceEvent.VANISHED:
                pool.device_vanished(change.device.id)

    async def watch_idle(self) -> None:
        """Unload, for ever, the pools that nobody has used for their `ttl_s`."""
        work: dict[str, int] = {}
        while True:
            ttls = [one.declared.spec.ttl_s for one in self.by_id.values() if one.declared.spec.ttl_s]
            pause_s = min([*(ttl * IDLE_LOOK_SHARE for ttl in ttls), self.node.settings.probe_interval_s])
            await self.node.sleep(max(pause_s, IDLE_LOOK_S_MIN))
            for pool in self.ordered():
                self._look_idle(pool, work)

    def _look_idle(self, pool: Pool, work: dict[str, int]) -> None:
        ttl_s, now = pool.declared.spec.ttl_s, self.node.clock()
        done = sum(one.load.work_total for one in pool.serving)
        is_busy = pool.state is not PoolState.READY or any(not one.load.is_idle for one in pool.serving)
        if is_busy or done != work.get(pool.id):
            pool.active_at, work[pool.id] = now, done
        elif ttl_s is not None and now - pool.active_at >= ttl_s:
            pool.unload()

    async def _change(
        self, pool: Pool, spec: PoolSpec, mask: DeviceMask, generation: int, source: Source
    ) -> Pool:
        before = pool.declared
        is_same = spec == before.spec and mask.ids == before.mask
        declared = msgspec.structs.replace(
            before,
            spec=spec,
            mask=mask.ids,
            generation=generation,
            source=source,
            plan=before.plan if is_same else None,
        )
        await self.store.put(declared)
        pool.declared, pool.mask = declared, mask
        if not is_same and pool.state not in LOADED:
            pool.plan = None
        reached(Step.DECLARATION_STORED, pool_id=spec.id)
        pool.tell("declared", generation=generation, changed=not is_same)
        if not is_same and pool.state in LOADED:
            pool.node.run(self._swap(pool, spec, mask), name=f"change {pool.id}")
        return pool

    async def _swap(self, pool: Pool, spec: PoolSpec, mask: DeviceMask) -> None:
        """Bring a loaded pool to its new declaration."""
        pool.mask = mask
        if pool.state in (PoolState.READY, PoolState.UNREADY) and not pool.work.is_busy:
            await pool.reload(spec.model, self.node.grace_s)
            return
        await pool.halt(self.node.grace_s)
        await pool.work.settled()
        await pool.preload()

    async def _forget(self, pool: Pool) -> None:
        await pool.work.settled()
        pool.tell("forgotten")
        pool.events.close()
        if self.by_id.get(pool.id) is pool:
            del self.by_id[pool.id]
            self.node.metrics.forget(pool.id)
        self.node.changed.set()

    def _mask(self, spec: PoolSpec, source: Source) -> DeviceMask:
        """Resolve the mask; a configured pool whose devices are not here yet is resolved when it is loaded."""
        try:
            return resolve_mask(spec, self.node.inventory)
        except InvalidMask:
            if source is Source.CONFIG:
                return DeviceMask(())
            raise

    def check_model(self, pool: Pool, model: str | None) -> None:
        """Refuse a model that an API call may not name. Raises: ForbiddenReference, InvalidInput."""
        if model is not None:
            self._check_reference(msgspec.structs.replace(pool.declared.spec, model=model))

    def _check_reference(self, spec: PoolSpec) -> None:
        """Refuse a path that this machine's own configuration does not name. Raises: ForbiddenReference."""
        if any(spec.model in (one.name, *one.aliases) for one in self.node.settings.models):
            return
        ref = find_model(self.node.settings, spec).ref
        if ref.kind is not RefKind.PATH or spec.model.startswith(FAKE_PREFIX):
            return
        path = Path(ref.path).expanduser().resolve()
        if not any(path.is_relative_to(folder) for folder in self.node.settings.model_folders):
            raise ForbiddenReference(
                f"pool {spec.id}: the path {ref.path} is not below a folder of [provisioning] model_folders; "
                "name a [[model]] of this machine's skep.toml, or hf:… or https://…",
                ref=ref.text,
            )
