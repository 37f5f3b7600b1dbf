"""How a pool stands: what its operator wished, the replicas that follow from it, and the state that both come to.

The state is derived here, from what the replicas tell; what replicas have been through stands in `judging`, the next
try in `retrying`, the one piece of work that runs in `work`. What can be done to a pool stands in `pool`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from skep.errors.hive import DoesNotFit
from skep.hive.adapter.base import EngineAdapter
from skep.hive.declared import Declared, DeclaredStore, Wish
from skep.hive.events import EventLog
from skep.hive.judging import Judging
from skep.hive.node import Node
from skep.hive.plan import Plan, find_engine
from skep.hive.replica import GONE, Replica
from skep.hive.retrying import Retrying
from skep.hive.work import Work
from skep.lifecycle.pool import POOL, PoolEvent, PoolState
from skep.lifecycle.replica import ReplicaEvent, ReplicaState
from skep.policy.restart import Crash, CrashReason, Verdict
from skep.spec.device import DeviceMask

log = structlog.get_logger(__name__)

_E, _S = PoolEvent, PoolState
_DOWN = frozenset({ReplicaState.CRASHED, ReplicaState.HELD})


class Standing:
    """One pool's. `again` is called when its next try is due."""

    def __init__(
        self,
        declared: Declared,
        mask: DeviceMask,
        node: Node,
        store: DeclaredStore,
        *,
        again: Callable[[], None],
    ) -> None:
        self.declared, self.mask, self.node, self.store = declared, mask, node, store
        self.state = POOL.initial
        self.plan: Plan | None = declared.plan
        self.replicas: dict[str, Replica] = {}
        self.last_error: dict[str, Any] | None = None
        self.provisioning = ""
        self.fit_told = ""
        self.last_drain: dict[str, Any] | None = None
        self.last_reload: dict[str, Any] | None = None
        self.events = EventLog(self.id, now_s=node.wall)
        self.trial = asyncio.Lock()
        self.moved = asyncio.Event()
        self.preload_began: float | None = None
        self.active_at = node.clock()
        self.work = Work(self.id, node, give_up=self._give_up)
        self.retrying = Retrying(self.id, node, again=again, tell=self.tell)
        self.judging = Judging(self.id, node, store, spec=lambda: self.declared.spec, tell=self.tell)
        self._number = 0
        node.metrics.introduce(self.id)
        node.metrics.show_state(self.id, self.state)

    @property
    def id(self) -> str:
        """The pool's id."""
        return self.declared.spec.id

    @property
    def adapter(self) -> EngineAdapter:
        """How its engine is spoken to. Raises: EngineUnknown."""
        return self.node.adapter(find_engine(self.node.settings, self.declared.spec))

    @property
    def serving(self) -> list[Replica]:
        """The replicas that take jobs."""
        return [one for one in self.replicas.values() if one.is_serving]

    async def wish(self, wish: Wish) -> None:
        """Store what the operator wants, so that a successor knows it. Raises: StoreUnavailable."""
        if self.declared.wish is not wish:
            wished = msgspec.structs.replace(self.declared, wish=wish)
            await self.store.put(wished)
            self.declared = wished

    def advance(self, event: PoolEvent, **facts: Any) -> None:
        """Take an event. Raises: IllegalTransition."""
        self.state = POOL.advance(self.state, event)
        self.node.metrics.show_state(self.id, self.state)
        self.tell("pool", event=event.value, state=self.state.value, **facts)
        if self.state is _S.READY:
            self.retrying.forget()
            self.last_error = None
            self._count_preload("ready")
        self._stir()

    def fail(self, event: PoolEvent, cause: dict[str, Any], *, after_s: float | None = None) -> None:
        """Become unready with a cause, and try again later: after a backoff, or the time that is given."""
        self.last_error = cause
        self.advance(event, error=cause)
        self._count_preload("does_not_fit" if event is _E.DOES_NOT_FIT else "failed")
        self.retrying.later(after_s=after_s)

    def new_replica(self, plan: Plan, replica_id: str | None = None) -> Replica:
        """Add a replica that has not begun yet; ids are never used twice in one run of the hive."""
        if replica_id is None:
            replica_id = f"r{self._number}"
        self.reserve(replica_id)
        adapter, history = self.node.adapter(plan.engine, plan.program), self.judging.inherit(replica_id)
        replica = Replica(replica_id, plan, self.node, adapter, self, history=history)
        self.replicas[replica_id] = replica
        return replica

    def reserve(self, replica_id: str) -> None:
        """Give no new replica this id."""
        suffix = replica_id.removeprefix("r")
        self._number = max(self._number, int(suffix) + 1 if suffix.isdecimal() else 0)

    def judge(self, replica: Replica, fact: Crash) -> Verdict:
        """Decide what becomes of a replica that is gone, and keep its history."""
        verdict = self.judging.judge(replica, fact)
        if fact.reason is CrashReason.DEVICE_ERROR and not replica.device_error:
            # One that was blamed itself blames nobody: else two replicas take each other out for ever.
            self.device_failed(replica)
        return verdict

    def replica_learned(self, replica: Replica) -> None:
        """Take note that a replica's history changed: it is on trial now, or was forgiven."""
        self.judging.remember(replica)

    def replica_moved(self, replica: Replica, event: ReplicaEvent, facts: dict[str, Any]) -> None:
        """Take note of a replica's event, and derive the pool's state from all of them."""
        self.tell("replica", replica_id=replica.id, event=event.value, state=replica.state.value, **facts)
        if replica.state in GONE:
            self.replicas.pop(replica.id, None)
            if event is ReplicaEvent.CANNOT_START and replica.last_error:
                self.last_error = replica.last_error
                if self.last_error["code"] == DoesNotFit.code:
                    self.fit_told = self.last_error["message"]
        self._derive(replica)
        self._stir()

    def replica_progressed(self, replica: Replica) -> None:
        """Take note that a load moved on; the queen hears of it with the next beat."""
        self.tell("progress", replica_id=replica.id, progress=replica.progress)

    def tell(self, kind: str, **facts: Any) -> None:
        """Add an event to the pool's log, and to the hive's."""
        self.events.add(kind, **facts)
        if kind != "progress":
            told = {"transition" if name == "event" else name: value for name, value in facts.items()}
            log.info("pool_event", kind=kind, pool_id=self.id, **{**self._context(), **told})

    def _context(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "engine": self.declared.spec.engine,
            "engine_version": plan.engine_version if plan else "",
            "device_mask": ",".join(self.mask.ids),
            "model": plan.model_name if plan else self.declared.spec.model,
        }

    def _derive(self, replica: Replica) -> None:
        if self.node.stopping:
            return
        match self.state:
            case _S.STARTING | _S.UNREADY if self.serving:
                self.advance(_E.REPLICA_READY)
            case _S.STARTING if all(one.state in _DOWN for one in self.replicas.values()):
                self._lose(_E.REPLICAS_EXHAUSTED, replica)
            case _S.READY if not self.serving:
                self._lose(_E.REPLICAS_LOST, replica)
            case _S.READY if replica.state in GONE and not self.work.is_busy:
                self.retrying.later()
            case _S.UNREADY if not self.replicas and self.retrying.due_at is None:
                self.retrying.later()

    def _lose(self, event: PoolEvent, replica: Replica) -> None:
        self.last_error = replica.last_error or self.last_error
        self.advance(event, error=self.last_error)
        if event is _E.REPLICAS_EXHAUSTED:
            self._count_preload("failed")
        if not self.replicas:
            self.retrying.later()

    def device_failed(self, replica: Replica) -> None:
        """Take the whole pool out of service, and count the fault once, however many it takes out."""
        self.judging.count_device_fault()
        for sibling in self.replicas.values():
            if sibling is not replica and sibling.is_serving:
                sibling.blame_device(f"replica {replica.id} on the same devices reported a device error")
        self._derive(replica)

    def device_vanished(self, device_id: str) -> None:
        """Take the replicas out of service: what they ran on is gone."""
        if found := self.serving:
            self.judging.count_device_fault()
        for replica in found:
            replica.blame_device(f"device {device_id} vanished")
            self._derive(replica)

    def _stir(self) -> None:
        self.moved.set()
        self.node.changed.set()

    def _count_preload(self, outcome: str) -> None:
        if self.preload_began is None:
            return
        metrics = self.node.metrics
        metrics.count(metrics.preloads, self.id, outcome)
        if outcome == "ready":
            metrics.observe(metrics.preload_s, self.node.clock() - self.preload_began, self.id)
        self.preload_began = None

    async def _give_up(self, cause: dict[str, Any]) -> None:
        """Leave no state that nothing moves on from, after work that failed by our own mistake."""
        for replica in list(self.replicas.values()):
            await replica.stop()
        self.last_error = cause
        for event in (_E.PROVISION_FAILED, _E.REPLICAS_EXHAUSTED, _E.RELOAD_FAILED, _E.UNLOADED, _E.DRAINED):
            if POOL.can(self.state, event):
                self.advance(event, error=cause)
                break
        if self.state is _S.UNREADY:
            self.retrying.later()
