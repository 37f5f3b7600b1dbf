"""Running one ASGI application on sockets that somebody else bound, and stopping it gracefully."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from skep.web.limits import Limits
from skep.web.protocol import limited

T = TypeVar("T")

SECURITY_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
]
_TICK_S = 1.0


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: a daemon's signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves `app` from entering to leaving the context.

    On leaving, the sockets close at once, idle connections are closed, running requests get `grace_s` to end, and
    what then still runs is cancelled. `app` may be a Litestar application or any ASGI one.
    """

    def __init__(
        self,
        app: Any,
        *,
        listen: Sequence[socket.socket],
        limits: Limits | None = None,
        grace_s: float = 5.0,
        headers: Sequence[tuple[str, str]] = SECURITY_HEADERS,
        lifespan: bool = False,
        certificate: tuple[str, str] | None = None,
    ) -> None:
        """`certificate` is (certificate file, key file): TLS. `lifespan` runs the app's ASGI lifespan."""
        self.limits = limits or Limits()
        self.grace_s = grace_s
        self._listen = list(listen)
        config = uvicorn.Config(
            app,
            loop="none",
            http=limited(self.limits),
            ws="none",
            lifespan="on" if lifespan else "off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            headers=list(headers),
            backlog=self.limits.backlog,
            timeout_keep_alive=max(1, int(self.limits.idle_s)),
            ssl_certfile=certificate[0] if certificate else None,
            ssl_keyfile=certificate[1] if certificate else None,
        )
        self._server = _Uvicorn(config)
        self._clock: asyncio.Task[None] | None = None

    @property
    def ports(self) -> list[int]:
        """Return the ports that it listens on, in the order of the sockets."""
        return [one.getsockname()[1] for one in self._listen]

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._server.server_state.connections)

    @property
    def requests_running(self) -> int:
        """Return how many requests are being answered."""
        return len(self._server.server_state.tasks)

    async def __aenter__(self) -> Self:
        """Accept connections."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.on_tick(0)
        await self._server.startup(sockets=self._listen)
        self._clock = asyncio.create_task(self._tick(), name="http-server-clock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop as the class says. Safe to call while requests run."""
        await self.aclose()

    async def aclose(self) -> None:
        """Stop accepting, let requests end within `grace_s`, then cancel them; a second call does nothing."""
        clock, self._clock = self._clock, None
        if clock is None:
            return
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
        self.stop_accepting()
        state = self._server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=self.grace_s)
        await self._cut_off()
        await self._server.lifespan.shutdown()

    def stop_accepting(self) -> None:
        """Close the listening sockets; what is connected goes on."""
        for server in self._server.servers:
            server.close()
        for one in self._listen:
            one.close()

    async def _cut_off(self) -> None:
        """Reset the connections that are left and cancel their requests."""
        state = self._server.server_state
        for connection in list(state.connections):
            if isinstance(connection, HttpToolsProtocol) and not connection.transport.is_closing():
                connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        if state.tasks:
            await asyncio.gather(*state.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # Let the transports call connection_lost.

    async def _tick(self) -> None:
        """Keep the Date header right."""
        while True:
            await asyncio.sleep(_TICK_S)
            await self._server.on_tick(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a daemon's main coroutine on uvloop, for this run only: nothing is installed globally."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def inherit(fd: int) -> socket.socket:
    """Return the listening socket that the parent process bound and handed over as `fd`."""
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)  # noqa: FBT003 - the socket module's signature
    listener.set_inheritable(False)
    return listener
