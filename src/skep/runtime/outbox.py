"""One job's events on their way from the engine's thread to its one reader, in an event loop or another thread.

The bound is kept by the engine: it stops producing for a job whose outbox is full, and resumes when `on_room` says
that half of it was read.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable

from skep.runtime.request import Embedded, Event, Failed, Finished

Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | threading.Event


class Outbox:
    """Filled by the engine's thread with `put`, emptied by one reader."""

    __slots__ = ("_events", "_limit", "_on_room", "is_paused", "is_read_out", "waiter")

    def __init__(self, limit: int, on_room: Callable[[], None]) -> None:
        self._events: deque[Event] = deque()
        self._limit = limit
        self._on_room = on_room
        self.is_paused = False
        self.is_read_out = False
        self.waiter: Waiter | None = None

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_full(self) -> bool:
        """True when nothing but a terminal event may be put."""
        return len(self._events) >= self._limit

    @property
    def has_room(self) -> bool:
        """True when a paused producer may go on."""
        return len(self._events) * 2 <= self._limit

    def put(self, event: Event) -> None:
        """Append an event; the reader is woken by `wake`, once for many jobs."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """Return everything that is there, without waiting."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        self._after_read(events[-1] if events else None)
        return events

    def take_one(self) -> Event:
        """Return the first event, which must be there."""
        event = self._events.popleft()
        self._after_read(event)
        return event

    async def wait(self) -> None:
        """Wait until there is an event to take, or none will ever come."""
        while not self._events and not self.is_read_out:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            self.waiter = (loop, future)
            try:
                if (
                    not self._events
                ):  # Looked at again: the engine may have put one before it could see the waiter.
                    await future
            finally:
                self.waiter = None

    def wait_blocking(self) -> None:
        """As `wait`, in a thread without an event loop."""
        while not self._events and not self.is_read_out:
            signal = threading.Event()
            self.waiter = signal
            try:
                if not self._events:
                    signal.wait()
            finally:
                self.waiter = None

    def _after_read(self, last: Event | None) -> None:
        if isinstance(last, Finished | Failed | Embedded):
            self.is_read_out = True
        elif self.is_paused and self.has_room:
            self._on_room()


def wake(outboxes: Iterable[Outbox]) -> None:
    """Wake the readers that wait: one call a loop, whatever the number of jobs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for outbox in outboxes:
        waiter = outbox.waiter
        if waiter is None:
            continue
        if isinstance(waiter, threading.Event):
            waiter.set()
        else:
            by_loop.setdefault(waiter[0], []).append(waiter[1])
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures)
        except RuntimeError:  # The loop was closed: nobody reads any more, and the stall limit ends the jobs.
            if not loop.is_closed():
                raise


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
