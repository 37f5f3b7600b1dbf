"""Asks hives to load pools that sleep until somebody wants them."""

import asyncio
from types import TracebackType
from typing import Self

import aiohttp
import structlog

from skep.queen.routes import PoolRoute, Route
from skep.web.client import make_client

log = structlog.get_logger(__name__)

CALLS_MAX = 16


class Waker:
    """One call at a time for each pool, and a bounded number for all.

    What is over the bound waits for the next heartbeat, whose answer names the pools that are wanted.
    """

    def __init__(self, token: str, *, call_s_max: float = 10.0) -> None:
        self._token, self._call_s_max = token, call_s_max
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the client."""
        self._session = make_client(token=self._token or None, total_s=self._call_s_max)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up calls that are under way."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def wake(self, route: Route) -> None:
        """Ask for the first pool of a route that sleeps."""
        sleeping = route.sleeping()
        if not sleeping or len(self._calls) >= CALLS_MAX:
            return
        pool = sleeping[0]
        key = f"{pool.node.node_id}/{pool.pool.pool_id}"
        if key not in self._calls:
            task = asyncio.create_task(self._ask(pool), name=f"wake-{key}")
            self._calls[key] = task
            task.add_done_callback(lambda _: self._calls.pop(key, None))

    async def _ask(self, pool: PoolRoute) -> None:
        assert self._session is not None
        url = f"{pool.node.request.address.rstrip('/')}/v2/pools/{pool.pool.pool_id}/preload"
        try:
            async with self._session.post(url, json={}, allow_redirects=False) as answer:
                log.info(
                    "pool_woken", pool_id=pool.pool.pool_id, node_id=pool.node.node_id, status=answer.status
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning(
                "pool_not_woken", pool_id=pool.pool.pool_id, node_id=pool.node.node_id, reason=repr(error)
            )
