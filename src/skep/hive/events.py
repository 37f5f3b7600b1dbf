"""What happens to a pool, as numbered events: kept in a bounded ring, and followed by whoever asks."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

KEPT_MAX = 1000
FOLLOWER_BEHIND_MAX = 1000


class PoolEventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `id` grows by one within one run of the hive; `at` is seconds since the epoch."""

    id: int
    at: float
    kind: str
    pool_id: str
    facts: dict[str, Any]


class EventLog:
    """The last events of one pool. A follower that falls too far behind is dropped, and may ask again from its id."""

    def __init__(self, pool_id: str, *, now_s: Callable[[], float] = time.time) -> None:
        self._pool_id, self._now_s = pool_id, now_s
        self._kept: deque[PoolEventRecord] = deque(maxlen=KEPT_MAX)
        self._followers: set[asyncio.Queue[PoolEventRecord | None]] = set()
        self._next = 1
        self._closed = False

    def add(self, kind: str, **facts: Any) -> PoolEventRecord:
        """Append an event and hand it to everybody who follows."""
        record = PoolEventRecord(
            id=self._next, at=self._now_s(), kind=kind, pool_id=self._pool_id, facts=facts
        )
        self._next += 1
        self._kept.append(record)
        for queue in list(self._followers):
            try:
                queue.put_nowait(record)
            except asyncio.QueueFull:
                self._followers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
        return record

    def since(self, after: int = 0) -> list[PoolEventRecord]:
        """Return the kept events with a later id."""
        return [one for one in self._kept if one.id > after]

    async def follow(self, after: int = 0) -> AsyncIterator[PoolEventRecord]:
        """Yield kept events after that id, then new ones, until the log closes or the follower is too far behind."""
        queue: asyncio.Queue[PoolEventRecord | None] = asyncio.Queue(FOLLOWER_BEHIND_MAX)
        self._followers.add(queue)
        try:
            last = after
            for one in self.since(after):
                last = one.id
                yield one
            while not (self._closed and queue.empty()):
                record = await queue.get()
                if record is None:
                    return
                if record.id > last:
                    yield record
        finally:
            self._followers.discard(queue)

    def close(self) -> None:
        """End every follower: the pool is forgotten, or the hive stops."""
        self._closed = True
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
