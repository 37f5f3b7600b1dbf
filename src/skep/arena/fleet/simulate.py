"""Recorded requests over a simulated fleet: admission, placement, workers, their crashes, and how many there are.

Admission, placement, restarts and scaling are `skep.policy`'s own code. The same trace, fleet, arm and seed give the
same result.
"""

import heapq
import math
from collections.abc import Iterable
from enum import IntEnum

import msgspec

from skep.arena.fleet.arms import ARMS
from skep.arena.fleet.members import Member, Members
from skep.arena.fleet.metrics import FleetResult, Tally
from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.replica import NEVER, Job
from skep.arena.fleet.requests import TracedRequest
from skep.arena.rng import Rng
from skep.errors.arena import UnknownName
from skep.policy.admission import AdmissionQueue, Answer, Ticket
from skep.policy.placement import Ask, text_key
from skep.policy.restart import Action, Crash, CrashReason, crashed, tried
from skep.policy.scaling import PoolDemand, ScalingLimits, ScalingState, scale
from skep.policy.storm import Storm

ATTEMPTS_MAX = 3


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet, and what it is held to. `crash_every_s` is the mean between crashes of one replica (0: none).

    With `scaling` the fleet begins with `replicas` and is looked at every `scale_every_s`; a replica that is added
    takes the model's `start_s` to be there, one too many ends its requests first.
    """

    replicas: int = 4
    model: WorkerModel = WorkerModel()
    queue_max: int = 256
    queue_s_max: float = 60.0
    speed: float = 1.0
    ttft_slo_s: float = 2.0
    token_slo_s: float = 0.1
    crash_every_s: float = 0.0
    scaling: ScalingLimits | None = None
    scale_every_s: float = 5.0


class _Due(IntEnum):
    REPLICA = 0
    CRASH = 1
    RESTART = 2
    SCALE = 3


class FleetSimulation:
    """One run. `feed` requests in order, then `finish`."""

    def __init__(self, plan: FleetPlan, arm: str, seed: int = 0) -> None:
        if arm not in ARMS:
            raise UnknownName(f"no placement policy {arm!r}; there are {', '.join(ARMS)}", known=tuple(ARMS))
        self._plan, self._arm_name, self._seed = plan, arm, seed
        self._arm = ARMS[arm]()
        self._rng, self._crash_rng = Rng(seed), Rng(seed ^ 0x5EED)
        self._members = Members(plan.replicas, plan.model)
        self._storm = Storm()
        self._queue = AdmissionQueue(plan.queue_max)
        self._waiting: dict[int, Job] = {}
        self._due: list[tuple[float, int, int, int, int]] = []
        self._sequence = 0
        self._number = 0
        self._alive = 0
        self.now_s = 0.0
        self.tally = Tally(plan.ttft_slo_s, plan.token_slo_s)
        self._scaling = ScalingState()
        for at in range(plan.replicas):
            self._plan_crash(at)
        if plan.scaling is not None:
            self._push(0.0, _Due.SCALE, 0)

    def _push(self, at_s: float, due: _Due, which: int, version: int = 0) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (at_s, self._sequence, due, which, version))

    def _plan_crash(self, at: int) -> None:
        if not self._plan.crash_every_s:
            return
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
        chosen = self._arm(ask, self._members.loads(), self._rng)
        if chosen is None:
            return False
        member = self._members.by_id(chosen)
        self._take(member)
        job.dispatched_s = self.now_s
        job.attempts += 1
        member.replica.add(job)
        self._touch(member)
        return True

    def _touch(self, member: Member) -> None:
        """A replica changed: its load is read anew, and its next change is planned."""
        member.read_load()
        next_s = member.replica.next_s()
        if next_s < NEVER:
            self._push(next_s, _Due.REPLICA, member.at, member.replica.version)

    def _take(self, member: Member) -> None:
        """Let a replica come to now, and count what it ended; one that drains leaves with its last request."""
        ended = member.replica.advance(self.now_s)
        for job in ended:
            self._alive -= 1
            self.tally.completed(job, self._plan.speed)
        if ended:
            member.read_load()
            if member.is_draining and not member.replica.busy:
                self._members.leave(member, self.now_s)

    def _run_to(self, to_s: float) -> None:
        while self._due and self._due[0][0] <= to_s:
            at_s, _, due, which, version = heapq.heappop(self._due)
            member = self._members[which] if due != _Due.SCALE else None
            if due == _Due.REPLICA and member is not None and member.replica.version != version:
                continue
            self.now_s = max(self.now_s, at_s)
            if member is None:
                self._scale()
            elif due == _Due.REPLICA:
                self._take(member)
                member.replica.version += 1
                self._touch(member)
            elif due == _Due.CRASH:
                self._crash(member)
            else:
                self._restart(member)
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

    def _crash(self, member: Member) -> None:
        if not member.replica.up:
            return
        self._take(member)
        lost = member.replica.crash()
        self._members.changed()
        self.tally.crashes += 1
        if member.is_draining:
            if member.gone_s is None:
                self._members.leave(member, self.now_s)
        else:
            self._plan_restart(member)
        for job in lost:
            started = 0 <= job.first_s <= self.now_s
            if started or job.attempts >= ATTEMPTS_MAX:
                self._turn_away("replica_lost")
            elif not self._try(job):
                self._admit(job)

    def _plan_restart(self, member: Member) -> None:
        crash = Crash(
            reason=CrashReason.EXIT_CODE,
            ready_s=self.now_s - member.ready_since_s,
            now_s=self.now_s,
            jitter=self._crash_rng.next() / 2**63 - 1,
        )
        outcome = crashed(member.history, self._storm, crash)
        member.history, self._storm = outcome.history, outcome.storm
        self.tally.holds += outcome.verdict.action is Action.HOLD
        self._push(outcome.verdict.not_before_s + self._plan.model.start_s, _Due.RESTART, member.at)

    def _restart(self, member: Member) -> None:
        if member.gone_s is not None:
            return
        replica = member.replica
        replica.now_s, replica.up = self.now_s, True
        member.history = tried(member.history)
        member.ready_since_s = self.now_s
        self._members.changed()
        self._touch(member)
        self._plan_crash(member.at)

    def _scale(self) -> None:
        """Look at the load as a queen's leader would, and start or drain what the policy says."""
        limits = self._plan.scaling
        assert limits is not None
        staying = self._members.staying()
        demand = PoolDemand(
            replicas=len(staying),
            slots_per_replica=self._plan.model.slots,
            busy=sum(member.replica.busy for member in staying),
            queued=len(self._waiting),
        )
        found = scale(self._scaling, demand, limits, now_s=self.now_s)
        self._scaling = found.state
        self.tally.scalings += found.replicas != len(staying)
        for _ in range(found.replicas - len(staying)):
            member = self._members.join(self.now_s, is_ready=False)
            self._push(self.now_s + self._plan.model.start_s, _Due.RESTART, member.at)
        for member in self._members.leaving_first(len(staying) - found.replicas):
            self._drain_replica(member)
        self._push(self.now_s + self._plan.scale_every_s, _Due.SCALE, 0)

    def _drain_replica(self, member: Member) -> None:
        if member.replica.up:
            self._take(member)
        member.is_draining = True
        self._members.changed()
        if not member.replica.busy:
            self._members.leave(member, self.now_s)

    def finish(self) -> FleetResult:
        """Let everything that was admitted end, and count."""
        while self._alive and self._due:
            self._run_to(self._due[0][0])
        self._expire()
        paid_s = self._members.paid_s(self.now_s)
        return self.tally.result(
            policy=self._arm_name,
            seed=self._seed,
            duration_s=self.now_s,
            busy_share=self._members.busy_slot_s() / max(self._plan.model.slots * paid_s, 1e-9),
            cost=paid_s / 3600 * self._plan.model.cost_per_hour,
            replicas_mean=paid_s / self.now_s if self.now_s else float(self._plan.replicas),
            replicas_most=self._members.most,
        )


def simulate(requests: Iterable[TracedRequest], plan: FleetPlan, arm: str, seed: int = 0) -> FleetResult:
    """Run a trace through a fleet under one placement policy. Raises: UnknownName, what the requests raise."""
    simulation = FleetSimulation(plan, arm, seed)
    for request in requests:
        simulation.feed(request)
    return simulation.finish()
