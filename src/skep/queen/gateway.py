"""The gateway's server: listening sockets, the sweep, a graceful end."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from skep.queen.client import ClientConnection
from skep.queen.dispatch import Dispatcher
from skep.queen.service import Service
from skep.queen.upstream import Upstreams

FLUSH_S = 0.5
"""How long the last bytes may take to leave, at the end."""


class Gateway:
    """Serves from entering to leaving the context; on leaving, answers under way get `grace_s`."""

    def __init__(
        self,
        service: Service,
        dispatcher: Dispatcher,
        upstreams: Upstreams,
        *,
        listen: Sequence[socket.socket],
        grace_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.service = service
        self._dispatcher, self._upstreams = dispatcher, upstreams
        self._listen, self._grace_s, self._tls = list(listen), grace_s, tls
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def ports(self) -> list[int]:
        """The ports that it listens on."""
        return [int(one.getsockname()[1]) for one in self._listen]

    async def __aenter__(self) -> Self:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        backlog = self.service.options.limits.backlog
        for one in self._listen:
            server = await loop.create_server(
                lambda: ClientConnection(self.service), sock=one, backlog=backlog, ssl=self._tls
            )
            self._servers.append(server)
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="gateway-sweep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop accepting, let answers end within the grace, cut off the rest with an error inside them."""
        self.service.is_stopping = True
        for server in self._servers:
            server.close()
        self._dispatcher.stop()
        for connection in list(self.service.connections):
            connection.shut_down()
        await _within(self._grace_s, self.service.idle)
        for exchange in list(self.service.running):
            exchange.stop()
        await _within(FLUSH_S, self.service.empty)
        for connection in list(self.service.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._upstreams.aclose()
        await asyncio.sleep(0)  # Let the transports call connection_lost.

    async def _sweep_for_ever(self) -> None:
        tick_s = self.service.options.tick_s
        while True:
            await asyncio.sleep(tick_s)
            self.service.sweep()
            self._dispatcher.sweep()
            self._upstreams.sweep()


async def _within(limit_s: float, event: asyncio.Event) -> None:
    """Wait for an event, but not for ever."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
