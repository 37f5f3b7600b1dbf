"""A pool, and what can be done to it.

The verbs (`preload`, `drain`, `reload`, `unload`, `retire`) each begin one piece of work in a task and return; at most
one runs at a time (`work`), and `drain` and `retire` cancel the others. The work itself stands in `loading`,
`reloading` and `draining`; how the pool stands, whatever is done, in `standing`.
"""

import asyncio

import msgspec

from skep.errors.hive import PoolBusy
from skep.hive import draining, loading, reloading
from skep.hive.declared import Declared, DeclaredStore, Wish
from skep.hive.finishing import Drainee
from skep.hive.launching import Running
from skep.hive.node import Node
from skep.hive.standing import Standing
from skep.lifecycle.pool import POOL, PoolEvent, PoolState
from skep.spec.device import DeviceMask

_E, _S = PoolEvent, PoolState
LOADED = frozenset({_S.PROVISIONING, _S.STARTING, _S.READY, _S.UNREADY, _S.RELOADING})


class Pool(Standing):
    """One pool of this node."""

    def __init__(self, declared: Declared, mask: DeviceMask, node: Node, store: DeclaredStore) -> None:
        super().__init__(declared, mask, node, store, again=self._try_again)

    async def preload(self, adoptable: dict[str, Running] | None = None) -> None:
        """Begin to load, unless it is loaded or loading. Raises: PoolBusy, StoreUnavailable."""
        if self.state in (_S.DRAINING, _S.UNLOADING):
            raise PoolBusy(
                f"pool {self.id} is {self.state}: try again when it is done",
                pool_id=self.id,
                state=self.state,
            )
        await self.wish(Wish.LOADED)
        event = {_S.IDLE: _E.WANTED, _S.UNREADY: _E.RETRY}.get(self.state, _E.PRELOAD)
        if not POOL.can(self.state, event) or (event is _E.RETRY and self.replicas):
            return
        self.retrying.cancel()
        self.retrying.forget()
        self.advance(event)
        self.work.begin("preload", loading.load(self, adoptable or {}))

    async def drain(self, deadline_s: float) -> None:
        """Begin to end every job and then every replica. Raises: StoreUnavailable."""
        await self.wish(Wish.OFFLINE)
        await self._wind_down(_E.DRAIN, deadline_s)

    async def halt(self, deadline_s: float) -> None:
        """As `drain`, and the operator still wants it: it is loaded again in a moment."""
        await self._wind_down(_E.DRAIN, deadline_s)

    async def retire(self, deadline_s: float) -> None:
        """As `drain`, for a pool that will be forgotten."""
        await self._wind_down(_E.RETIRE, deadline_s)

    async def reload(self, model: str | None, deadline_s: float) -> None:
        """Begin to put another model in this one's place. Raises: PoolBusy."""
        if not POOL.can(self.state, _E.RELOAD) or self.work.is_busy:
            raise PoolBusy(
                f"pool {self.id} is {self.state}: it can be reloaded when it is ready",
                pool_id=self.id,
                state=self.state,
            )
        self.retrying.cancel()
        spec = msgspec.structs.replace(self.declared.spec, model=model or self.declared.spec.model)
        self.advance(_E.RELOAD, model=spec.model)
        self.work.begin("reload", reloading.reload(self, spec, deadline_s))

    def unload(self) -> None:
        """Begin to scale to zero: it has been idle for its `ttl_s`."""
        if self.state is _S.READY and not self.work.is_busy:
            self.advance(_E.IDLE, ttl_s=self.declared.spec.ttl_s)
            self.work.begin("unload", draining.unload(self))

    async def reset(self) -> None:
        """Forgive every failure, and try at once what waits."""
        self.judging.reset()
        self.retrying.forget()
        for replica in self.replicas.values():
            replica.try_again()
        self.tell("reset")
        if self.state is _S.UNREADY and not self.replicas:
            await self.preload()

    def resume_drain(self, left: list[Drainee]) -> None:
        """Go on with the drain that an earlier hive began, of replicas that still have jobs."""
        self.advance(_E.PRELOAD)
        self.advance(_E.DRAIN, resumed=True)
        self.work.begin("drain", draining.resume(self, left))

    async def aclose(self) -> None:
        """Stop everything of it now: the hive ends."""
        self.retrying.cancel()
        await self.work.cancel()
        async with asyncio.TaskGroup() as tasks:
            for replica in list(self.replicas.values()):
                tasks.create_task(replica.stop())
        self.events.close()

    async def _wind_down(self, event: PoolEvent, deadline_s: float) -> None:
        if self.state is _S.DRAINING:
            return
        self.retrying.cancel()
        if self.state is _S.UNLOADING:
            await self.work.settled()  # It is stopping everything already.
        else:
            await self.work.cancel()
        self._count_preload("cancelled")
        if self.state in LOADED:
            self.advance(event)
            self.work.begin("drain", draining.drain(self, deadline_s))
        elif POOL.can(self.state, _E.RETIRE):
            self.advance(_E.RETIRE)

    def _try_again(self) -> None:
        if self.work.is_busy:
            return
        if self.state is _S.UNREADY and not self.replicas:
            self.advance(_E.RETRY)
            self.work.begin("preload", loading.load(self, {}))
        elif self.state is _S.READY and self.plan is not None:
            loading.fill_up(self, self.plan)
