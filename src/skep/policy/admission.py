"""Who waits, who is turned away: a bounded queue with priorities and deadlines, without a clock.

One `AdmissionQueue` stands before each pool. Its length is bounded; a newcomer of higher priority displaces the
youngest of the lowest, everybody else finds it full. Within one priority the order is first come, first served.
"""

import heapq
import math
from enum import StrEnum

import msgspec

RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX = 1, 60
SERVICE_S_FIRST = 2.0
"""The service time that is assumed before the first request has ended."""

SERVICE_WEIGHT = 0.1
"""The share of the newest service time in the running mean."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits. `number` is its arrival order; a higher `priority` goes first."""

    number: int
    priority: int = 0
    deadline_s: float = math.inf

    @property
    def rank(self) -> tuple[int, int]:
        """The queue's order: smallest first."""
        return -self.priority, self.number


class Answer(StrEnum):
    """What became of an offer."""

    QUEUED = "queued"
    FULL = "full"
    LATE = "late"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a newcomer, and whom it displaced (who is then turned away as if the queue were full)."""

    answer: Answer
    displaced: Ticket | None = None


class AdmissionQueue:
    """Tickets in order of priority, then arrival. At most `length_max` wait; a length of 0 queues nobody."""

    def __init__(self, length_max: int) -> None:
        self.length_max = length_max
        self._heap: list[tuple[tuple[int, int], Ticket]] = []
        self._waiting: dict[int, Ticket] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, ticket: Ticket, *, now_s: float) -> Offer:
        """Take a ticket in, or say why not."""
        if ticket.deadline_s <= now_s:
            return Offer(answer=Answer.LATE)
        displaced = None
        if len(self._waiting) >= self.length_max:
            last = max(self._waiting.values(), key=lambda one: one.rank, default=None)
            if last is None or last.priority >= ticket.priority:
                return Offer(answer=Answer.FULL)
            displaced = self._waiting.pop(last.number)
        self._waiting[ticket.number] = ticket
        heapq.heappush(self._heap, (ticket.rank, ticket))
        self._shed_withdrawn()
        return Offer(answer=Answer.QUEUED, displaced=displaced)

    def head(self) -> Ticket | None:
        """Return the ticket that is next, without taking it."""
        while self._heap and self._heap[0][1].number not in self._waiting:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def withdraw(self, number: int) -> bool:
        """Take a ticket out (served, or its asker left); False when it was not waiting."""
        return self._waiting.pop(number, None) is not None

    def expire(self, *, now_s: float) -> list[Ticket]:
        """Take out and return every ticket whose deadline has passed."""
        late = [ticket for ticket in self._waiting.values() if ticket.deadline_s <= now_s]
        for ticket in late:
            del self._waiting[ticket.number]
        return late

    def _shed_withdrawn(self) -> None:
        """Rebuild the heap when withdrawn tickets outnumber the waiting, so that it stays bounded too."""
        if len(self._heap) > 2 * len(self._waiting) + 16:
            self._heap = [(ticket.rank, ticket) for ticket in self._waiting.values()]
            heapq.heapify(self._heap)


def smoothed_service_s(mean_s: float | None, newest_s: float) -> float:
    """Return the running mean of service times after one more."""
    return newest_s if mean_s is None else mean_s + SERVICE_WEIGHT * (newest_s - mean_s)


def retry_after_s(*, queued: int, slots: int, service_s: float | None) -> int:
    """Estimate in whole seconds when a place will be free: what waits, over the slots, times the service time."""
    wait_s = (queued + 1) / max(slots, 1) * (SERVICE_S_FIRST if service_s is None else service_s)
    return min(max(math.ceil(wait_s), RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)
