"""A pool's next try: after a backoff that grows with each failure in a row, or when a breaker lets one through."""

import asyncio
from collections.abc import Callable

from skep.hive.node import Node
from skep.policy import backoff


class Retrying:
    """At most one try waits. `again` is called when it is due; `tell` adds an event to the pool's log."""

    def __init__(
        self, pool_id: str, node: Node, *, again: Callable[[], None], tell: Callable[..., None]
    ) -> None:
        self._pool_id, self._node, self._again, self._tell = pool_id, node, again, tell
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self.due_at: float | None = None
        """On the wall clock, for people; the wait itself is measured on the monotonic one."""

    def later(self, *, after_s: float | None = None) -> None:
        """Try again after a backoff, or after the time that is given."""
        self.cancel()
        if self._node.stopping:
            return
        self._failures += 1
        jitter, limits = self._node.rng.uniform(-1, 1), self._node.settings.restart.backoff
        delay_s = after_s or backoff.delay_s(self._failures, jitter=jitter, limits=limits)
        self.due_at = self._node.wall() + delay_s
        self._node.metrics.show(self._node.metrics.backoff, delay_s, self._pool_id)
        self._tell("retry", delay_s=round(delay_s, 3), failures=self._failures)
        self._task = self._node.run(self._wait(delay_s), name=f"retry {self._pool_id}")

    def cancel(self) -> None:
        """Let nothing wait."""
        if self._task is not None:
            self._task.cancel()
        self.due_at, self._task = None, None

    def forget(self) -> None:
        """Begin the backoff anew: it serves, or somebody asked."""
        self._failures = 0

    async def _wait(self, delay_s: float) -> None:
        await self._node.sleep(delay_s)
        self.due_at, self._task = None, None
        self._again()
