"""A pool's one piece of work at a time: begun, cancelled, waited for; a failure of our own never leaves it half done."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from skep.hive.node import Node

log = structlog.get_logger(__name__)


class Work:
    """`give_up` is called with a cause when a piece failed by our own mistake."""

    def __init__(
        self, pool_id: str, node: Node, *, give_up: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        self._pool_id, self._node, self._give_up = pool_id, node, give_up
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """True while a piece of work runs."""
        return self._task is not None and not self._task.done()

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of work in a task of its own."""
        self._task = self._node.run(self._supervised(name, work), name=f"{name} {self._pool_id}")

    async def cancel(self) -> None:
        """Cancel the work that runs, and wait until it has cleaned up after itself."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def settled(self) -> None:
        """Wait until no piece of work runs."""
        while self.is_busy and self._task is not None:
            await asyncio.wait([self._task])

    async def _supervised(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("pool_work_failed", pool_id=self._pool_id, work=name)
            await self._give_up(
                {"code": "internal", "message": f"{name} failed inside the hive; its log has it"}
            )
