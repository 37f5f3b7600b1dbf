"""Recorded requests over a simulated fleet: the gateway's admission and placement, the workers, their crashes.

Admission, placement and restarts are `skep.policy`'s own code. The same trace, fleet, arm and seed give the same result.
"""

import heapq
import math
from collections.abc import Iterable
from enum import IntEnum

import msgspec

from skep.arena.fleet.arms import ARMS
from skep.arena.fleet.metrics import FleetResult, Tally
from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.replica import NEVER, Job, Replica
from skep.arena.fleet.requests import TracedRequest
from skep.arena.rng import Rng
from skep.errors.arena import UnknownName
from skep.policy.admission import AdmissionQueue, Answer, Ticket
from skep.policy.placement import Ask, ReplicaLoad, text_key
from skep.policy.restart import Action, Crash, CrashReason, History, crashed, tried
from skep.policy.storm import Storm

ATTEMPTS_MAX = 3


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet, and what it is held to. `crash_every_s` is the mean between crashes of one replica (0: none)."""

    replicas: int = 4
    model: WorkerModel = WorkerModel()
    queue_max: int = 256
    queue_s_max: float = 60.0
    speed: float = 1.0
    ttft_slo_s: float = 2.0
    token_slo_s: float = 0.1
    crash_every_s: float = 0.0


class _Due(IntEnum):
    REPLICA = 0
    CRASH = 1
    RESTART = 2


class FleetSimulation:
    """One run. `feed` requests in order, then `finish`."""

    def __init__(self, plan: FleetPlan, arm: str, seed: int = 0) -> None:
        if arm not in ARMS:
            raise UnknownName(f"no placement policy {arm!r}; there are {', '.join(ARMS)}", known=tuple(ARMS))
        self._plan, self._arm_name, self._seed = plan, arm, seed
        self._arm = ARMS[arm]()
        self._rng, self._crash_rng = Rng(seed), Rng(seed ^ 0x5EED)
        self._replicas = [Replica(f"replica-{at}", plan.model) for at in range(plan.replicas)]
        self._at = {replica.replica_id: at for at, replica in enumerate(self._replicas)}
        self._loads = [self._load(replica) for replica in self._replicas]
        self._histories = [History() for _ in self._replicas]
        self._ready_since_s = [0.0] * plan.replicas
        self._storm = Storm()
        self._queue = AdmissionQueue(plan.queue_max)
        self._waiting: dict[int, Job] = {}
        self._due: list[tuple[float, int, int, int, int]] = []
        self._sequence = 0
        self._number = 0
        self._alive = 0
        self.now_s = 0.0
        self.tally = Tally(plan.ttft_slo_s, plan.token_slo_s)
        for at in range(plan.replicas if plan.crash_every_s else 0):
            self._plan_crash(at)

    @staticmethod
    def _load(replica: Replica) -> ReplicaLoad:
        slots = replica.model.slots
        return ReplicaLoad(
            replica_id=replica.replica_id, node_id=replica.replica_id, slots_total=slots, busy=replica.busy
        )

    def _push(self, at_s: float, due: _Due, which: int, version: int = 0) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (at_s, self._sequence, due, which, version))

    def _plan_crash(self, at: int) -> None:
        draw = (self._crash_rng.next() + 1) / 2**64
        self._push(self.now_s - self._plan.crash_every_s * math.log(draw), _Due.CRASH, at)

    def feed(self, request: TracedRequest) -> None:
        """Let time pass to a request's arrival, and admit it."""
        at_s = request.at_s / self._plan.speed
        self._run_to(at_s)
        self.now_s = max(self.now_s, at_s)
        job = Job(self._number, request)
        self._number += 1
        self._alive += 1
        self.tally.arrived(at_s)
        self._expire()
        if not self._try(job):
            self._admit(job)

    def _admit(self, job: Job) -> None:
        deadline_s = self.now_s + self._plan.queue_s_max
        ticket = Ticket(number=job.number, priority=job.request.priority, deadline_s=deadline_s)
        offer = self._queue.offer(ticket, now_s=self.now_s)
        if offer.displaced is not None:
            del self._waiting[offer.displaced.number]
            self._turn_away("queue_full")
        if offer.answer is Answer.QUEUED:
            self._waiting[job.number] = job
        else:
            self._turn_away("queue_full")

    def _turn_away(self, why: str) -> None:
        self._alive -= 1
        self.tally.turned_away(why)

    def _expire(self) -> None:
        if self._waiting:
            for ticket in self._queue.expire(now_s=self.now_s):
                del self._waiting[ticket.number]
                self._turn_away("queue_timeout")

    def _try(self, job: Job) -> bool:
        request = job.request
        ask = Ask(
            session_key=text_key(request.session),
            prefix_key=text_key(str(request.blocks[0])) if request.blocks else 0,
            salt=self._rng.next(),
        )
        chosen = self._arm(
            ask, [load for at, load in enumerate(self._loads) if self._replicas[at].up], self._rng
        )
        if chosen is None:
            return False
        at = self._at[chosen]
        replica = self._replicas[at]
        self._take(replica.advance(self.now_s), at)
        job.dispatched_s = self.now_s
        job.attempts += 1
        replica.add(job)
        self._touch(at)
        return True

    def _touch(self, at: int) -> None:
        """A replica changed: its load is read anew, and its next change is planned."""
        replica = self._replicas[at]
        self._loads[at] = self._load(replica)
        next_s = replica.next_s()
        if next_s < NEVER:
            self._push(next_s, _Due.REPLICA, at, replica.version)

    def _take(self, ended: list[Job], at: int) -> None:
        for job in ended:
            self._alive -= 1
            self.tally.completed(job, self._plan.speed)
        if ended:
            self._loads[at] = self._load(self._replicas[at])

    def _run_to(self, to_s: float) -> None:
        while self._due and self._due[0][0] <= to_s:
            at_s, _, due, which, version = heapq.heappop(self._due)
            replica = self._replicas[which]
            if due == _Due.REPLICA and replica.version != version:
                continue
            self.now_s = max(self.now_s, at_s)
            if due == _Due.REPLICA:
                self._take(replica.advance(self.now_s), which)
                replica.version += 1
                self._touch(which)
            elif due == _Due.CRASH:
                self._crash(which)
            else:
                self._restart(which)
            self._drain()

    def _drain(self) -> None:
        """Give freed room to those who wait, in the queue's order."""
        self._expire()
        while (ticket := self._queue.head()) is not None:
            job = self._waiting[ticket.number]
            if not self._try(job):
                return
            self._queue.withdraw(ticket.number)
            del self._waiting[ticket.number]

    def _crash(self, at: int) -> None:
        replica = self._replicas[at]
        if not replica.up:
            return
        self._take(replica.advance(self.now_s), at)
        lost = replica.crash()
        self.tally.crashes += 1
        jitter = self._crash_rng.next() / 2**63 - 1
        crash = Crash(
            reason=CrashReason.EXIT_CODE,
            ready_s=self.now_s - self._ready_since_s[at],
            now_s=self.now_s,
            jitter=jitter,
        )
        outcome = crashed(self._histories[at], self._storm, crash)
        self._histories[at], self._storm = outcome.history, outcome.storm
        held = outcome.verdict.action is Action.HOLD
        self.tally.holds += held
        self._push(outcome.verdict.not_before_s + self._plan.model.start_s, _Due.RESTART, at)
        for job in lost:
            started = 0 <= job.first_s <= self.now_s
            if started or job.attempts >= ATTEMPTS_MAX:
                self._turn_away("replica_lost")
            elif not self._try(job):
                self._admit(job)

    def _restart(self, at: int) -> None:
        replica = self._replicas[at]
        replica.now_s, replica.up = self.now_s, True
        self._histories[at] = tried(self._histories[at])
        self._ready_since_s[at] = self.now_s
        self._touch(at)
        if self._alive or self._plan.crash_every_s:
            self._plan_crash(at)

    def finish(self) -> FleetResult:
        """Let everything that was admitted end, and count."""
        while self._alive and self._due:
            self._run_to(self._due[0][0])
        self._expire()
        slots = self._plan.replicas * self._plan.model.slots
        return self.tally.result(
            policy=self._arm_name,
            seed=self._seed,
            duration_s=self.now_s,
            busy_share=sum(replica.busy_slot_s for replica in self._replicas) / max(slots * self.now_s, 1e-9),
            cost=self._plan.replicas * self.now_s / 3600 * self._plan.model.cost_per_hour,
        )


def simulate(requests: Iterable[TracedRequest], plan: FleetPlan, arm: str, seed: int = 0) -> FleetResult:
    """Run a trace through a fleet under one placement policy. Raises: UnknownName, what the requests raise."""
    simulation = FleetSimulation(plan, arm, seed)
    for request in requests:
        simulation.feed(request)
    return simulation.finish()
