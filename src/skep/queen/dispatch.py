"""Gives each request a replica, now or when one is free: placement, the bounded queues, the waits, the retries' budget.

All of it runs in the event loop and answers through callbacks, because a task a request would cost more than the
decision does. A waiter gets exactly one of `granted` and `refused`, unless it withdraws first.
"""

import itertools
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from skep.errors import SkepError
from skep.errors.queen import (
    GatewayQueueFull,
    GatewayStopping,
    ModelLoading,
    ModelNotServed,
    PoolDown,
    QueueTimeout,
)
from skep.policy.admission import AdmissionQueue, Answer, Ticket, retry_after_s, smoothed_service_s
from skep.policy.placement import Ask, Rule, Verdict, place
from skep.queen.options import GatewayOptions
from skep.queen.replica import Replica
from skep.queen.routes import Hope, Route, Routes

log = structlog.get_logger(__name__)

RETRIES_FREE = 10


class Waiter(Protocol):
    """Somebody who wants a replica for `model`."""

    model: str
    session_key: int
    prefix_key: int
    priority: int
    excluded: frozenset[str]

    def granted(self, replica: Replica, verdict: Verdict) -> None:
        """Take the replica; `Dispatcher.release` gives it back."""
        ...

    def refused(self, error: SkepError) -> None:
        """There is none."""
        ...


class _Waiting(msgspec.Struct, eq=False):
    """A waiter, its place in the queue, and since when."""

    waiter: Waiter
    ticket: Ticket
    since_s: float


class _Line(msgspec.Struct, eq=False):
    """One model's queue and the mean time that its requests take."""

    queue: AdmissionQueue
    service_s: float | None = None


class Dispatcher:
    """Decides who goes where. `clock` is the event loop's, and `wake` is called for pools that sleep on demand."""

    def __init__(
        self,
        routes: Routes,
        options: GatewayOptions,
        *,
        clock: Callable[[], float],
        wake: Callable[[Route], None] = lambda _: None,
    ) -> None:
        self._routes, self._options, self._clock, self._wake = routes, options, clock, wake
        self._lines: dict[str, _Line] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = itertools.count(1)
        self._salt = itertools.count()
        self._stopping = False
        self.requests = self.retries = self.ejections = 0

    def submit(self, waiter: Waiter) -> int:
        """Grant, refuse or queue; return the number to withdraw by (of use only while it waits)."""
        number = next(self._numbers)
        route = self._routes.get(waiter.model)
        if self._stopping:
            waiter.refused(GatewayStopping("the gateway is shutting down"))
        elif route is None:
            waiter.refused(not_served(waiter.model, self._routes.models()))
        else:
            self._place_or_queue(number, waiter, route)
        return number

    def withdraw(self, number: int) -> bool:
        """Forget a waiter; False when it does not wait (any more)."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return False
        route = self._routes.get(waiting.waiter.model)
        for name in {waiting.waiter.model, route.model if route else ""}:
            if line := self._lines.get(name):
                line.queue.withdraw(number)
        return True

    def release(self, replica: Replica, model: str, service_s: float) -> None:
        """A request has ended there: give the place to the next."""
        replica.give_back()
        route = self._routes.get(model)
        if route is not None and (line := self._lines.get(route.model)):
            line.service_s = smoothed_service_s(line.service_s, service_s)
            self._pump(route)

    def failed(self, replica: Replica, *, is_cut: bool) -> None:
        """A replica did not do what it should; perhaps it is out for a while."""
        if replica.failed(self._clock(), is_cut=is_cut):
            self.ejections += 1
            log.warning("replica_ejected", replica=replica.key, url=replica.url)

    def may_retry(self) -> bool:
        """Take one retry from the budget; False when it is spent."""
        if self.retries >= RETRIES_FREE + self.requests * self._options.retry_share:
            return False
        self.retries += 1
        return True

    def queued(self, model: str) -> int:
        """Return how many wait for a model."""
        line = self._lines.get(model)
        return len(line.queue) if line else 0

    @property
    def waiting(self) -> int:
        """How many wait in all queues."""
        return len(self._waiting)

    def pump_all(self) -> None:
        """Look at every queue again: the registry has changed, or time has passed."""
        for model in [model for model, line in self._lines.items() if len(line.queue)]:
            route = self._routes.get(model)
            if route is None:
                self._refuse_all(model, not_served(model, self._routes.models()))
            else:
                self._pump(route)

    def sweep(self) -> None:
        """Refuse those who have waited too long, and look again; call it several times a second."""
        now = self._clock()
        for model, line in self._lines.items():
            for ticket in line.queue.expire(now_s=now):
                waiting = self._waiting.pop(ticket.number, None)
                if waiting is not None:
                    waiting.waiter.refused(self._too_late(model, line, now - waiting.since_s))
        self.pump_all()

    def stop(self) -> None:
        """Refuse everybody who waits and everybody who comes."""
        self._stopping = True
        for model in list(self._lines):
            self._refuse_all(model, GatewayStopping("the gateway is shutting down"))

    def _place_or_queue(self, number: int, waiter: Waiter, route: Route) -> None:
        line = self._lines.get(route.model)
        if line is None:
            line = self._lines[route.model] = _Line(AdmissionQueue(self._options.queue_length_max))
        if not len(line.queue) and self._grant(waiter, route):
            return
        hope = route.hope
        if hope is Hope.DOWN:
            waiter.refused(_down(route))
            return
        now = self._clock()
        wait_s = self._options.queue_wait_s if hope is Hope.READY else self._options.load_wait_s
        ticket = Ticket(number=number, priority=waiter.priority, deadline_s=now + wait_s)
        offer = line.queue.offer(ticket, now_s=now)
        if offer.answer is not Answer.QUEUED:
            waiter.refused(self._full(route, line) if hope is Hope.READY else _loading(route, 0.0))
            return
        self._waiting[number] = _Waiting(waiter, ticket, now)
        if offer.displaced and (displaced := self._waiting.pop(offer.displaced.number, None)):
            displaced.waiter.refused(self._full(route, line))
        if hope is Hope.ASLEEP:
            self._wake(route)

    def _pump(self, route: Route) -> None:
        """Serve a queue from its head while there is room; refuse all of it when all hope is gone."""
        line = self._lines[route.model]
        while (ticket := line.queue.head()) is not None:
            waiting = self._waiting.get(ticket.number)
            if waiting is None:
                line.queue.withdraw(ticket.number)
                continue
            verdict = self._verdict(waiting.waiter, route)
            if verdict.replica_id is None:
                break
            line.queue.withdraw(ticket.number)
            del self._waiting[ticket.number]
            self._take(waiting.waiter, route, verdict)
        if len(line.queue) and route.hope is Hope.DOWN:
            self._refuse_all(route.model, _down(route))

    def _grant(self, waiter: Waiter, route: Route) -> bool:
        verdict = self._verdict(waiter, route)
        if verdict.replica_id is None:
            return False
        self._take(waiter, route, verdict)
        return True

    def _take(self, waiter: Waiter, route: Route, verdict: Verdict) -> None:
        replica = next(one for one in route.replicas if one.key == verdict.replica_id)
        replica.take()
        self.requests += 1
        waiter.granted(replica, verdict)

    def _verdict(self, waiter: Waiter, route: Route) -> Verdict:
        """Place among the trusted; what a request has tried before only when nothing else is there."""
        now = self._clock()
        loads = [replica.load() for replica in route.replicas if replica.is_trusted(now)]
        ask = Ask(
            session_key=waiter.session_key,
            prefix_key=waiter.prefix_key,
            excluded=waiter.excluded,
            salt=next(self._salt),
        )
        verdict = place(ask, loads)
        if verdict.rule is Rule.NO_REPLICA and waiter.excluded and loads:
            return place(msgspec.structs.replace(ask, excluded=frozenset()), loads)
        return verdict

    def _refuse_all(self, model: str, error: SkepError) -> None:
        line = self._lines[model]
        while (ticket := line.queue.head()) is not None:
            line.queue.withdraw(ticket.number)
            if waiting := self._waiting.pop(ticket.number, None):
                waiting.waiter.refused(error)

    def _full(self, route: Route, line: _Line) -> SkepError:
        wait_s = retry_after_s(queued=len(line.queue), slots=route.slots_total, service_s=line.service_s)
        message = (
            f"{len(line.queue)} requests wait for {route.model}, as many as may: try again in {wait_s} s"
        )
        return GatewayQueueFull(message, retry_after_s=wait_s, queued=len(line.queue))

    def _too_late(self, model: str, line: _Line, waited_s: float) -> SkepError:
        route = self._routes.get(model)
        if route is None:
            return not_served(model, self._routes.models())
        if route.hope is not Hope.READY:
            return _loading(route, waited_s)
        wait_s = retry_after_s(queued=len(line.queue), slots=route.slots_total, service_s=line.service_s)
        message = f"no slot of {model} came free within {waited_s:.0f} s: try again in {wait_s} s"
        return QueueTimeout(message, retry_after_s=wait_s, waited_s=round(waited_s, 1))


def not_served(model: str, served: list[str]) -> ModelNotServed:
    """Return the error for a model that no pool serves; it names what is served."""
    known = f"served here: {', '.join(served[:20])}" if served else "no model is served here yet"
    return ModelNotServed(f"no pool serves the model {model[:100]!r}; {known}", param="model")


def _loading(route: Route, waited_s: float) -> ModelLoading:
    states = ", ".join(sorted({one.pool.state for one in route.pools}))
    message = (
        f"{route.model} is not ready (its pools are {states}); waited {waited_s:.0f} s, try again shortly"
    )
    return ModelLoading(message, retry_after_s=5, loading=route.loading())


def _down(route: Route) -> PoolDown:
    causes = [one.pool.last_error for one in route.pools if one.pool.last_error]
    gone = [f"node {one.node.node_id} is {one.node.state}" for one in route.pools if not one.node.is_alive]
    cause = (
        causes or gone or ["its pools are " + ", ".join(sorted({one.pool.state for one in route.pools}))]
    )[0]
    return PoolDown(
        f"{route.model} is not served now: {cause}", cause=cause, retry_after_s=3, loading=route.loading()
    )
