"""A replica: one life after another of a worker process, until it is stopped. The states are `lifecycle.replica`'s.

Exactly one task (`_run`) moves a replica along; `drain` and `stop` are the only other hands on it.
"""

import asyncio
from functools import partial
from typing import Any, Protocol

import structlog

from skep.errors import SkepError
from skep.errors.process import ReapTimedOut
from skep.errors.web import PeerFailed
from skep.hive import crash
from skep.hive.adapter.base import EngineAdapter
from skep.hive.crash import Gone
from skep.hive.endpoint import Drained, Endpoint, Load
from skep.hive.launching import Running, launch
from skep.hive.memory import holders, wait_memory_back
from skep.hive.node import Node
from skep.hive.papers import Papers
from skep.hive.plan import Plan, judge_fit, require_fit
from skep.hive.readiness import become_ready
from skep.hive.restarting import Restarting
from skep.hive.steps import Step, reached
from skep.hive.watching import watch
from skep.lifecycle.replica import REPLICA, ReplicaEvent, ReplicaState
from skep.policy.health import Probes
from skep.policy.restart import Action, Crash, CrashReason, History, Verdict

log = structlog.get_logger(__name__)

_E, _S = ReplicaEvent, ReplicaState
SERVING = frozenset({_S.READY, _S.SUSPECT})
GONE = frozenset({_S.STOPPED, _S.FAILED})
DRAIN_MARGIN_S = 10.0


class Keeper(Protocol):
    """What a replica needs of its pool."""

    trial: asyncio.Lock

    def judge(self, replica: "Replica", fact: Crash) -> Verdict:
        """Decide what becomes of a replica that is gone, and keep its history."""
        ...

    def replica_moved(self, replica: "Replica", event: ReplicaEvent, facts: dict[str, Any]) -> None:
        """Hear that a replica took an event."""
        ...

    def replica_learned(self, replica: "Replica") -> None:
        """Hear that a replica's history changed: it is on trial now, or was forgiven."""
        ...

    def replica_progressed(self, replica: "Replica") -> None:
        """Hear that a replica's load moved on."""
        ...

    def device_failed(self, replica: "Replica") -> None:
        """Hear that a replica's process reported an error of its device."""
        ...


class Replica:
    """One replica. `start` begins its first life; after `stop` it is gone for good."""

    def __init__(
        self,
        replica_id: str,
        plan: Plan,
        node: Node,
        adapter: EngineAdapter,
        keeper: Keeper,
        *,
        history: History,
    ) -> None:
        self.id, self.plan = replica_id, plan
        self.state = REPLICA.initial
        self.probes = Probes()
        self.load = Load()
        self.progress: float | None = None
        self.running: Running | None = None
        self.ready_at: float | None = None
        self.last_error: dict[str, Any] | None = None
        self.device_error = ""
        self.nudged = asyncio.Event()
        self.papers = Papers(plan, replica_id, node)
        self._node, self._adapter, self._keeper = node, adapter, keeper
        self._task: asyncio.Task[None] | None = None
        self.restarting = Restarting(
            node,
            history,
            trial=keeper.trial,
            judge=partial(keeper.judge, self),
            learned=partial(keeper.replica_learned, self),
        )
        self._ids = {"pool_id": plan.spec.id, "replica_id": replica_id}

    @property
    def owner(self) -> str:
        """The name under which it holds device memory."""
        return f"{self.plan.spec.id}-{self.id}"

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it answers, while a process of it runs."""
        return self.running.endpoint if self.running else None

    @property
    def history(self) -> History:
        """What it has been through."""
        return self.restarting.history

    @property
    def verdict(self) -> Verdict | None:
        """What was decided when it was gone the last time."""
        return self.restarting.verdict

    @property
    def is_serving(self) -> bool:
        """True while it takes jobs."""
        return self.state in SERVING and not self.device_error

    @property
    def ready_s(self) -> float:
        """How long it has been ready in this life."""
        return 0.0 if self.ready_at is None else self._node.clock() - self.ready_at

    def start(self, adopted: Running | None = None) -> None:
        """Begin; with `adopted`, from a process that an earlier hive started."""
        self._task = self._node.run(self._run(adopted), name=f"replica {self.owner}")

    def try_again(self) -> None:
        """End the backoff or the hold now, and forgive everything: an operator's `reset`."""
        self.restarting.reset()

    def blame_device(self, detail: str) -> None:
        """Take it out of service, then drain it: its device vanished, or a sibling there reported an error."""
        self.device_error = detail
        self.last_error = {"code": CrashReason.DEVICE_ERROR.value, "message": detail}
        self.nudged.set()

    def report_device(self, cause: dict[str, Any]) -> None:
        """Take it out of service, then drain it: its own process reports an error of its device."""
        self.blame_device(cause["message"])
        self.last_error = cause
        self._keeper.device_failed(self)

    async def stop(self) -> None:
        """End it, whatever it does; return when nothing of it is left. Stopping twice is fine."""
        if self._task is None:
            if self.state is _S.PLANNED:
                self.advance(_E.CANNOT_START)
            return
        self._task.cancel()
        await asyncio.wait([self._task])

    async def drain(self, deadline_s: float) -> Drained:
        """Let it finish its jobs until the deadline, then end it, and return how that went."""
        if self.state not in SERVING or self.running is None:
            await self.stop()
            return Drained()
        began = self._node.clock()
        self.advance(_E.DRAIN)
        self.papers.mark_draining(self.running, until_s=began + deadline_s)
        self.papers.withdraw()
        drained = await self._drain_jobs(self.running.endpoint, deadline_s)
        reached(Step.DRAINED, **self._ids)
        if self.state is _S.DRAINING:
            self.advance(_E.DEADLINE if drained.force_stopped else _E.IDLE)
        await self.stop()
        return Drained(
            force_stopped=drained.force_stopped,
            jobs_cancelled=drained.jobs_cancelled,
            duration_ms=round((self._node.clock() - began) * 1000),
        )

    def note_stable(self) -> None:
        """Credit the time that it has been ready: a trial that holds closes the breaker."""
        self.restarting.note_stable(self.ready_s)

    def advance(self, event: ReplicaEvent, **facts: Any) -> None:
        """Take an event, and tell the pool. Raises: IllegalTransition."""
        self.state = REPLICA.advance(self.state, event)
        self._keeper.replica_moved(self, event, facts)

    async def _run(self, adopted: Running | None) -> None:
        try:
            while True:
                gone = await self._live(adopted)
                adopted = None
                if self.state is not _S.CRASHED:
                    return
                await self._bury()
                await self._wait_for_the_next(gone)
        except Exception as error:
            log.exception("replica_supervisor_failed", **self._ids)
            self.last_error = crash.cause_of(error)
        finally:
            await self._end()

    async def _live(self, adopted: Running | None) -> Gone:
        """Run one life, and return how it ended; the state is then what that came to."""
        try:
            running = await self._until_serving(adopted)
            gone = await watch(self, running, self._node, self._adapter)
        except (SkepError, OSError) as error:
            gone = crash.of_error(error, self.running)
        match self.state:
            case _S.STOPPING:
                return gone
            case _S.DRAINING:
                event = _E.EXITED
            case _S.PLANNED:
                event = _E.CANNOT_START
            case _:
                event = crash.event_of(gone, self.state)
        self.last_error = gone.cause
        self.advance(event, **gone.facts)
        return gone

    async def _until_serving(self, adopted: Running | None) -> Running:
        """Start a process, or take one over, and return it when it serves. At most so many starts run at a time."""
        if adopted is not None:
            self._node.inventory.hold(self.owner, judge_fit(self.plan, self._node.inventory))
            self.running = adopted
            return await self._prove(adopted, is_adopted=True)
        if self.state is _S.PLANNED:
            await self.restarting.wait_for_the_first()
        async with self._node.starting:
            self.running = await self._launch()
            return await self._prove(self.running, is_adopted=False)

    async def _prove(self, running: Running, *, is_adopted: bool) -> Running:
        if self.state is _S.PLANNED:
            self.advance(_E.SPAWNED, adopted=is_adopted)
        await become_ready(running, self.plan, self._node, self._adapter, on_progress=self._progressed)
        self._serve(running)
        return running

    async def _launch(self) -> Running:
        async with self._node.fitting:
            await self._node.inventory.refresh()
            self._node.inventory.hold(self.owner, require_fit(self.plan, self._node.inventory))
        self.progress = 0.0
        settings = self._node.settings
        return await launch(
            self.plan,
            self.id,
            self._adapter,
            host=settings.worker_host,
            spawns=self._node.spawns,
            logs_folder=settings.state / "logs",
        )

    def _progressed(self, share: float) -> None:
        self.progress = share
        self._keeper.replica_progressed(self)

    def _serve(self, running: Running) -> None:
        self._node.inventory.settle(self.owner)
        self.progress, self.ready_at, self.probes = None, self._node.clock(), Probes()
        slots = self.plan.spec.slots
        self.load = Load(slots_total=slots, slots_free=slots)
        self.papers.is_due = True
        self.papers.publish(running)
        self.last_error = None
        self.advance(_E.PROVED)
        reached(Step.SERVING, **self._ids)

    async def _drain_jobs(self, endpoint: Endpoint, deadline_s: float) -> Drained:
        reached(Step.DRAIN_ASKED, **self._ids)
        try:
            async with asyncio.timeout(deadline_s + DRAIN_MARGIN_S):
                return await self._adapter.drain(endpoint, deadline_s=deadline_s)
        except (PeerFailed, TimeoutError) as error:
            log.warning("drain_failed", error=str(error), **self._ids)
            return Drained(force_stopped=True)

    async def _bury(self) -> bool:
        """End what is left of the process and forget it; True when its memory is back. Raises: ReapTimedOut."""
        self.restarting.settle_trial()
        self.ready_at = self.progress = None
        self.papers.withdraw()
        is_back = True
        if self.running is not None:
            pids = holders(self._node.inventory, self.plan.mask, self.running.process)
            await self.running.end(self._node.grace_s)
            reached(Step.STOPPED, **self._ids)
            is_back = await wait_memory_back(self._node.inventory, self.plan.mask, pids)
            reached(Step.MEMORY_BACK, **self._ids)
            self.running = None
        self._node.inventory.release(self.owner)
        self.papers.forget_spawn()
        return is_back

    async def _end(self) -> None:
        """Reach a terminal state, whatever the present one is."""
        if self.state not in GONE | {_S.PLANNED, _S.STOPPING}:
            self.advance(_E.STOP)
        try:
            is_back = await self._bury()
        except ReapTimedOut as error:
            log.warning("reap_timed_out", error=str(error), **self._ids)
            self.last_error, is_back = crash.cause_of(error), False
        if self.state is _S.PLANNED:
            self.advance(_E.CANNOT_START)
        elif self.state is _S.STOPPING:
            self.advance(_E.REAPED if is_back else _E.REAP_TIMED_OUT)

    async def _wait_for_the_next(self, gone: Gone) -> None:
        """Ask the policy, wait as it says, and take the event that begins the next life."""
        self.nudged.clear()
        verdict = self.restarting.judge(gone)
        self.device_error = ""
        if verdict.action is Action.HOLD:
            self.advance(_E.BREAKER_OPEN, because=verdict.because)
        self.advance(await self.restarting.wait_for_the_next(verdict))
