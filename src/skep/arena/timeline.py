"""Virtual time: a heap of things to come. Ties are taken in the order in which they were planned."""

import heapq
from enum import IntEnum


class Due(IntEnum):
    """What can come due. `FLUSH` and `RETRY` alone do not keep a cluster from being idle."""

    SCHEDULE = 0
    FLUSH = 1
    RETRY = 2
    STARTED = 3
    READY = 4
    AVAILABLE = 5
    OOM = 6
    EXIT = 7
    RESTART = 8
    GONE = 9
    EVICT = 10
    WAKE = 11


Entry = tuple[int, int, int, int, int]
"""(time in µs, sequence, what, and two numbers that the handler knows)."""


class Timeline:
    """The clock and what is planned. `busy` counts the entries that are real work."""

    __slots__ = ("busy", "heap", "now_us", "sequence")

    def __init__(self) -> None:
        self.now_us = 0
        self.sequence = 0
        self.busy = 0
        self.heap: list[Entry] = []

    def plan(self, at_us: int, due: int, first: int = 0, second: int = 0) -> None:
        """Plan something; never before now."""
        self.sequence = sequence = self.sequence + 1
        if due > Due.RETRY:
            self.busy += 1
        heapq.heappush(self.heap, (max(at_us, self.now_us), sequence, due, first, second))

    def next_us(self) -> int | None:
        """Return when the next thing comes due, or None."""
        return self.heap[0][0] if self.heap else None

    def pop(self) -> Entry:
        """Take the next thing and move the clock to it."""
        entry = heapq.heappop(self.heap)
        self.now_us = entry[0]
        if entry[2] > Due.RETRY:
            self.busy -= 1
        return entry
