"""The queen as a daemon: its sockets, its parts, their start and end."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import structlog

from skep import __version__
from skep.errors.store import StoreUnavailable
from skep.queen.adminauth import AdminAuth, Sessions
from skep.queen.api import make_api
from skep.queen.api_look import LOOK, OPEN_ROUTES
from skep.queen.api_manage import MANAGE
from skep.queen.assign import LOST_FOR_GOOD_S, Assigner
from skep.queen.audit import Audit
from skep.queen.core import Core
from skep.queen.forward import Forwarder
from skep.queen.gateway import Gateway
from skep.queen.hosts import HostCheck
from skep.queen.keygate import KeyGate
from skep.queen.membership import Membership
from skep.queen.options import GatewayOptions
from skep.queen.record import Recorder
from skep.queen.records import QueenRecord
from skep.queen.spans import Spans
from skep.queen.state import State
from skep.queen.waker import Waker
from skep.store.address import open_store
from skep.web.auth import LOOPBACK_HOSTS
from skep.web.client import make_client
from skep.web.limits import Limits
from skep.web.server import HttpServer

log = structlog.get_logger(__name__)

STORE_READY_S_MAX = 15.0


class QueenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a queen needs to know.

    `token` is the admin token, which hives and the other queens use too; "" asks for none (loopback only). `advertise`
    is the admin URL by which other queens reach this one, where that is not the address that it binds.
    """

    store: str
    gateway: GatewayOptions = GatewayOptions()
    token: str = ""
    advertise: str = ""
    host_names: tuple[str, ...] = ()
    certificate: tuple[str, str] | None = None
    grace_s: float = 3.0
    lost_for_good_s: float = LOST_FOR_GOOD_S
    record_trace: str = ""
    proofs: str = ""
    spans_endpoint: str = ""


class Queen:
    """Serves on two bound sockets from entering to leaving the context."""

    def __init__(self, options: QueenOptions, *, gateway: socket.socket, admin: socket.socket) -> None:
        self._options, self._gateway_socket, self._admin_socket = options, gateway, admin
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything; what has started is stopped again when a later part fails."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        log.info("queen_started", gateway=self.gateway_url, admin=self.admin_url, store=self._options.store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: the gateway first, with its grace; the lease is given up last."""
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

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        options = self._options
        store = await stack.enter_async_context(open_store(options.store))
        gate = KeyGate(allow_anonymous=self._gateway_socket.getsockname()[0] in LOOPBACK_HOSTS)
        hosts = HostCheck((socket.gethostname(), *options.host_names))
        waker = await stack.enter_async_context(Waker(options.token))
        self.core = core = Core(options.gateway, gate=gate, hosts=hosts, wake=waker.wake)
        core.gateway_url, core.is_tls = self.gateway_url, options.certificate is not None
        core.proofs = options.proofs
        gate.add_internal(core.internal_token, "dashboard")
        core.client = await stack.enter_async_context(make_client(token=options.token or None, total_s=10.0))
        await self._listen(stack, core)
        core.forwarder = await stack.enter_async_context(
            Forwarder(core.registry, core.instance, options.token)
        )
        me = QueenRecord(
            queen_id=core.instance,
            admin_url=options.advertise or _reachable(self.admin_url),
            gateway_url=self.gateway_url,
            version=__version__,
            started_at=time.time(),
        )
        membership = Membership(store, me)
        stack.push_async_callback(membership.leave)
        core.state = state = State(store, core.registry, gate, membership, core.forwarder)
        core.assigner = Assigner(state, core.registry, options.token, lost_for_good_s=options.lost_for_good_s)
        core.audit = Audit(store, core.instance)
        stack.push_async_callback(_flushed, core)
        _run(stack, "queen-mirror", state.mirror.follow_for_ever())
        await _loaded(state)
        _run(stack, "queen-membership", membership.run())
        _run(stack, "queen-flush", state.flush_for_ever())
        _run(stack, "queen-assign", core.assigner.run())
        _run(stack, "queen-audit", core.audit.run())
        _run(stack, "queen-sweep", core.sweep_for_ever())
        await stack.enter_async_context(self._admin_server(core, hosts))
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

    async def _listen(self, stack: contextlib.AsyncExitStack, core: Core) -> None:
        """Add who else is told of requests: a recording, an exporter of spans."""
        if self._options.record_trace:
            recorder = stack.enter_context(Recorder(Path(self._options.record_trace)))
            core.service.beginning = recorder
            core.service.listen(recorder)
        if self._options.spans_endpoint:
            collector = await stack.enter_async_context(make_client(total_s=5.0))
            core.service.tracer = spans = Spans(self._options.spans_endpoint, collector)
            core.service.listen(spans)
            stack.push_async_callback(spans.flush)
            _run(stack, "queen-spans", spans.run())

    def _admin_server(self, core: Core, hosts: HostCheck) -> HttpServer:
        assert core.audit is not None
        self.sessions = Sessions(self._options.token)
        app = AdminAuth(
            cast("Any", make_api(core, self.sessions, *MANAGE, *LOOK)),
            self.sessions,
            hosts,
            core.audit.add,
            open_routes=OPEN_ROUTES,
        )
        limits = Limits(body_bytes_max=8 << 20, connections_max=4096)
        return HttpServer(
            app,
            listen=[self._admin_socket],
            limits=limits,
            certificate=self._options.certificate,
            grace_s=1.0,
        )


def _run(stack: contextlib.AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run a part until the stack is left; one that breaks is told, for none of them should."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_told_if_broken)
    stack.push_async_callback(_cancelled, task)


def _told_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("part_broken", part=task.get_name(), exc_info=error)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _loaded(state: State) -> None:
    """Wait for the first reading of the store. Raises: StoreUnavailable."""
    try:
        async with asyncio.timeout(STORE_READY_S_MAX):
            await state.mirror.loaded.wait()
    except TimeoutError:
        raise StoreUnavailable(f"the store could not be read within {STORE_READY_S_MAX:.0f} s") from None


async def _flushed(core: Core) -> None:
    """Write down what is not yet; a store that is away keeps nobody from stopping."""
    assert core.state is not None
    assert core.audit is not None
    try:
        async with asyncio.timeout(2.0):
            await core.state.flush()
            await core.audit.flush()
    except (StoreUnavailable, TimeoutError) as error:
        log.warning("not_written", reason=repr(error))


def _url(listener: socket.socket, *, is_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{name}:{port}"


def _reachable(url: str) -> str:
    """Return a URL that others can use where this one names every address of the machine."""
    for wildcard in ("//0.0.0.0:", "//[::]:"):
        url = url.replace(wildcard, f"//{socket.gethostname()}:")
    return url


def _tls(certificate: tuple[str, str] | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context
