"""The scheduling queue: active (priority, then time), backing off (1 s doubling to 10 s), and unschedulable.

Pods of the third part wait for an event that could help the plugin that turned them away, or for five minutes
(kube-scheduler's `PriorityQueue`).
"""

import heapq
from typing import Final

import msgspec

from skep.arena.scheduler.plugins import Filter
from skep.arena.state import US

BACKOFF_INITIAL_US: Final = 1 * US
BACKOFF_MAX_US: Final = 10 * US
UNSCHEDULABLE_US_MAX: Final = 300 * US
FLUSH_EVERY_US: Final = 30 * US


class Hint:
    """Kinds of cluster events that move pods out of the unschedulable part."""

    NODE_ADDED: Final = "NodeAdd"
    NODE_LABELS: Final = "NodeUpdateLabel"
    NODE_TAINTS: Final = "NodeUpdateTaint"
    NODE_CAPACITY: Final = "NodeUpdateAllocatable"
    POD_ADDED: Final = "AssignedPodAdd"
    POD_DELETED: Final = "AssignedPodDelete"


def _mask(*filters: Filter) -> int:
    return sum(1 << item for item in filters)


HELPED_BY: Final = {
    Hint.NODE_ADDED: _mask(*Filter),
    Hint.NODE_LABELS: _mask(Filter.NODE_AFFINITY, Filter.POD_TOPOLOGY_SPREAD, Filter.INTER_POD_AFFINITY),
    Hint.NODE_TAINTS: _mask(Filter.TAINT_TOLERATION, Filter.NODE_UNSCHEDULABLE, Filter.POD_TOPOLOGY_SPREAD),
    Hint.NODE_CAPACITY: _mask(Filter.NODE_RESOURCES_FIT),
    Hint.POD_ADDED: _mask(Filter.POD_TOPOLOGY_SPREAD, Filter.INTER_POD_AFFINITY),
    Hint.POD_DELETED: _mask(
        Filter.NODE_RESOURCES_FIT, Filter.NODE_PORTS, Filter.POD_TOPOLOGY_SPREAD, Filter.INTER_POD_AFFINITY
    ),
}
"""Which plugins' rejections an event may cure (the plugins' `EventsToRegister`)."""


class Waiting(msgspec.Struct, array_like=True):
    """An unschedulable pod: who turned it away (a mask of filters), since when, and when its backoff ends."""

    rejected_by: int
    since_us: int
    ready_us: int


def backoff_us(attempts: int) -> int:
    """Return how long a pod backs off after this many attempts."""
    return min(BACKOFF_INITIAL_US << min(max(attempts - 1, 0), 16), BACKOFF_MAX_US)


class SchedulingQueue:
    """Pod uids in three parts. A uid stands in one part at most; heap entries of others are stale."""

    def __init__(self) -> None:
        self.active: list[tuple[int, int, int, int]] = []
        self.backing_off: list[tuple[int, int, int]] = []
        self.waiting: dict[int, Waiting] = {}
        self.where: dict[int, int] = {}
        self.sequence = 0

    def __len__(self) -> int:
        return len(self.where)

    def activate(self, uid: int, priority: int, queued_us: int) -> None:
        """Put a pod into the active part."""
        self.waiting.pop(uid, None)
        self.sequence = sequence = self.sequence + 1
        self.where[uid] = sequence
        heapq.heappush(self.active, (-priority, queued_us, sequence, uid))

    def back_off(self, uid: int, ready_us: int) -> None:
        """Put a pod aside until `ready_us`."""
        self.waiting.pop(uid, None)
        self.sequence = sequence = self.sequence + 1
        self.where[uid] = sequence
        heapq.heappush(self.backing_off, (ready_us, sequence, uid))

    def wait(self, uid: int, rejected_by: int, now_us: int, attempts: int) -> None:
        """Put a pod that fits nowhere into the unschedulable part."""
        self.where[uid] = 0
        self.waiting[uid] = Waiting(rejected_by, now_us, now_us + backoff_us(attempts))

    def remove(self, uid: int) -> None:
        """Forget a pod, wherever it stands."""
        self.where.pop(uid, None)
        self.waiting.pop(uid, None)

    def pop(self) -> int | None:
        """Take the first active pod; None when there is none."""
        active, where = self.active, self.where
        while active:
            _, _, sequence, uid = heapq.heappop(active)
            if where.get(uid) == sequence:
                del where[uid]
                return uid
        return None

    def has_active(self) -> bool:
        """True when `pop` would return a pod."""
        active, where = self.active, self.where
        while active and where.get(active[0][3]) != active[0][2]:
            heapq.heappop(active)
        return bool(active)

    def backed_off(self, now_us: int) -> list[int]:
        """Take the pods whose backoff is over, in order."""
        done, heap, where = [], self.backing_off, self.where
        while heap and heap[0][0] <= now_us:
            _, sequence, uid = heapq.heappop(heap)
            if where.get(uid) == sequence:
                done.append(uid)
        return done

    def helped(self, hint: str) -> list[int]:
        """Return the unschedulable pods that an event may help, in the order in which they came."""
        mask = HELPED_BY[hint]
        return [uid for uid, waiting in self.waiting.items() if waiting.rejected_by & mask]

    def overdue(self, now_us: int) -> list[int]:
        """Return the unschedulable pods that have waited for five minutes."""
        return [uid for uid, item in self.waiting.items() if now_us - item.since_us >= UNSCHEDULABLE_US_MAX]
