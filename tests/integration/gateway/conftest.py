"""The gateway over real sockets, with an upstream that can be told to misbehave in every way."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from skep.queen.dispatch import Dispatcher
from skep.queen.gate import OpenGate
from skep.queen.gateway import Gateway
from skep.queen.hosts import HostCheck
from skep.queen.options import GatewayOptions
from skep.queen.registry import Registry
from skep.queen.request import Shared
from skep.queen.routes import Routes
from skep.queen.service import Service
from skep.queen.upstream import Upstreams
from skep.web.limits import Limits
from skep.wire.node import Heartbeat, PoolReport, RegisterRequest, ReplicaReport

DONE = b"data: [DONE]\n\n"


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def whole(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
    return head % (status, len(body), extra) + body


class Upstream:
    """A worker whose answers are a script: `script(self, reader, writer, body)` for each request."""

    def __init__(self, script: Callable[..., Awaitable[None]]) -> None:
        self.script = script
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        self.writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                body = await reader.readexactly(length)
                self.heads.append(head)
                self.bodies.append(body)
                await self.script(self, reader, writer, body)
                if writer.is_closing():
                    break
        self.writers.discard(writer)
        writer.close()


async def plain(up, reader, writer, body):
    writer.write(whole(b'{"ok":true,"usage":{"prompt_tokens":3,"completion_tokens":4}}'))


def streaming(*texts: str, done: bool = True):
    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD)
        for text in texts:
            writer.write(chunk(event(text)))
            await writer.drain()
        writer.write(chunk(DONE) + b"0\r\n\r\n" if done else b"0\r\n\r\n")

    return script


class Rig:
    """A gateway with replicas."""

    def __init__(self, options: GatewayOptions) -> None:
        self.loop = asyncio.get_running_loop()
        self.registry = Registry()
        self.routes = Routes(self.registry)
        self.woken = []
        self.outcomes = []
        self.dispatcher = Dispatcher(self.routes, options, clock=time.monotonic, wake=self.woken.append)
        self.upstreams = Upstreams(self.loop, idle_max=8, idle_s_max=5, connect_s_max=1)
        shared = Shared(time.monotonic, options, self.dispatcher, self.upstreams)
        self.service = Service(shared, self.routes, OpenGate(), hosts=HostCheck(), listeners=(self,))
        self.registry.listen(self.dispatcher.pump_all)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.gateway = Gateway(self.service, self.dispatcher, self.upstreams, listen=[listener], grace_s=0.5)
        self.sequence = 0

    def ended(self, request, outcome):
        self.outcomes.append(outcome)

    def serve(self, *upstreams: Upstream, state: str = "ready", slots: int = 4, **pool) -> None:
        replicas = tuple(
            ReplicaReport(
                replica_id=f"r{n}", url=f"http://127.0.0.1:{up.port}", instance=f"i{up.port}", state="ready",
                slots_total=slots, slots_free=slots, token="secret",
            )
            for n, up in enumerate(upstreams)
        )  # fmt: skip
        report = PoolReport(pool_id="p", model="m", state=state, replicas=replicas, **pool)
        if "n" not in self.registry.nodes:
            self.registry.register(RegisterRequest(node_id="n", address="http://127.0.0.1:1", version="0"))
        self.sequence += 1
        self.registry.heartbeat("n", Heartbeat(pools=(report,), sequence=self.sequence))

    async def open(self):
        return await asyncio.open_connection("127.0.0.1", self.gateway.ports[0])

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, return everything until the connection ends."""
        reader, writer = await self.open()
        writer.write(data)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def post(self, body: bytes | None = None, *, extra: bytes = b"", close: bool = True) -> bytes:
        return await self.raw(request(body, extra=extra, close=close))


def request(
    body: bytes | None = None, *, extra: bytes = b"", close: bool = True, path: bytes = b"/v1/completions"
) -> bytes:
    body = b'{"model":"m","prompt":"hi"}' if body is None else body
    end = b"connection: close\r\n" if close else b""
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b%b\r\n"
    return head % (path, len(body), extra, end) + body


def split(answer: bytes) -> tuple[int, bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


def error(answer: bytes) -> dict:
    return json.loads(split(answer)[2])["error"]


def dechunked(body: bytes) -> tuple[bytes, bool]:
    """The chunks' contents, and whether they end as they should."""
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            return out, rest == b"\r\n"
        assert rest[count : count + 2] == b"\r\n", "a chunk is cut"
        out, body = out + rest[:count], rest[count + 2 :]
    return out, False


FAST = GatewayOptions(
    limits=Limits(head_s=0.4, body_s=0.6, idle_s=5, stall_s=1.0, head_bytes_max=8192, body_bytes_max=100_000),
    load_wait_s=2.0,
    queue_wait_s=2.0,
    queue_length_max=2,
    first_byte_s_max=3.0,
    silent_s_max=1.0,
    tick_s=0.02,
)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig(FAST)
    async with made.gateway:
        yield made
    assert made.dispatcher.waiting == 0
    assert all(r.in_flight == 0 for n in made.registry.nodes.values() for r in n.replicas.values())
    assert made.service._bodies_bytes == 0


STREAM = b'{"model":"m","prompt":"hi","stream":true}'
