"""The queen as a daemon: its sockets, its parts, their start and end."""

import asyncio
import contextlib
import socket
import ssl
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import structlog

from skep.queen.api import make_api
from skep.queen.core import Core
from skep.queen.gateway import Gateway
from skep.queen.options import GatewayOptions
from skep.queen.waker import Waker
from skep.web.auth import BearerAuth
from skep.web.limits import Limits
from skep.web.server import HttpServer

log = structlog.get_logger(__name__)


class QueenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a queen needs to know. `token` is the admin token, which hives use too; "" asks for none (loopback only)."""

    gateway: GatewayOptions = GatewayOptions()
    token: str = ""
    hive_token: str = ""
    certificate: tuple[str, str] | None = None
    grace_s: float = 5.0


class Queen:
    """Serves on two bound sockets from entering to leaving the context."""

    def __init__(self, options: QueenOptions, *, gateway: socket.socket, admin: socket.socket) -> None:
        self._options, self._gateway_socket, self._admin_socket = options, gateway, admin
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything; what has started is stopped again when a later part fails."""
        options = self._options
        async with contextlib.AsyncExitStack() as stack:
            waker = await stack.enter_async_context(Waker(options.hive_token or options.token))
            self.core = core = Core(options.gateway, wake=waker.wake)
            app = BearerAuth(cast("Any", make_api(core)), options.token or None)
            limits = Limits(body_bytes_max=8 << 20, connections_max=4096)
            await stack.enter_async_context(
                HttpServer(app, listen=[self._admin_socket], limits=limits, certificate=options.certificate)
            )
            self.gateway = await stack.enter_async_context(
                Gateway(
                    core.service,
                    core.dispatcher,
                    core.upstreams,
                    listen=[self._gateway_socket],
                    grace_s=options.grace_s,
                    tls=_tls(options.certificate),
                )
            )
            stack.push_async_callback(
                _cancelled, asyncio.create_task(core.sweep_for_ever(), name="queen-sweep")
            )
            self._stack = stack.pop_all()
        log.info("queen_started", gateway=self.gateway_url, admin=self.admin_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: the gateway first, with its grace."""
        await self._stack.aclose()
        log.info("queen_stopped")

    @property
    def gateway_url(self) -> str:
        """Where clients ask."""
        return _url(self._gateway_socket, is_tls=self._options.certificate is not None)

    @property
    def admin_url(self) -> str:
        """Where hives and people ask."""
        return _url(self._admin_socket, is_tls=self._options.certificate is not None)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _url(listener: socket.socket, *, is_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{name}:{port}"


def _tls(certificate: tuple[str, str] | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context
