"""The gateway over real sockets, with an upstream that can be told to misbehave in every way."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from skep.policy.placement import BLOCK_BYTES
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


async def test_a_plain_answer_comes_back_byte_for_byte(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        status, head, body = split(await rig.post())
    assert (status, body) == (200, b'{"ok":true,"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    assert b"x-request-id: req-" in head
    assert (rig.outcomes[0].tokens_in, rig.outcomes[0].tokens_out) == (3, 4)


async def test_the_replica_gets_the_body_as_it_was_and_its_own_token_not_the_clients(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        body = b'{ "model" : "m", "prompt":"\\u00e9",  "unknown": [1, 2]}'
        await rig.post(body, extra=b"authorization: Bearer mine\r\ncookie: a=b\r\ntraceparent: 00-abc\r\n")
        assert up.bodies == [body]
        head = up.heads[0].lower()
    assert b"authorization: bearer secret" in head
    assert b"mine" not in head
    assert b"cookie" not in head
    assert b"traceparent: 00-abc" in head
    assert head.count(b"content-length") == 1


async def test_a_stream_comes_through_event_by_event_and_ends_cleanly(rig):
    release = asyncio.Event()

    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await release.wait()
        writer.write(chunk(event("b")) + chunk(DONE) + b"0\r\n\r\n")

    async with Upstream(script) as up:
        rig.serve(up)
        reader, writer = await rig.open()
        writer.write(request(STREAM))
        async with asyncio.timeout(5):
            await reader.readuntil(event("a"))
            release.set()
            rest = await reader.read()
        writer.close()
    assert rest.endswith(b"0\r\n\r\n")
    assert DONE in rest
    assert rig.outcomes[0].events == 2
    assert rig.outcomes[0].kind == "done"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_however_the_bytes_are_cut_only_whole_events_go_on(rig, size):
    text = SSE_HEAD + b"".join(chunk(event(t)) for t in "abc") + chunk(DONE) + b"0\r\n\r\n"

    async def script(up, reader, writer, body):
        for start in range(0, len(text), size):
            writer.write(text[start : start + size])
            await writer.drain()
            if size < 1000:
                await asyncio.sleep(0)

    async with Upstream(script) as up:
        rig.serve(up)
        body, is_whole = dechunked(split(await rig.post(STREAM))[2])
    assert is_whole
    assert body == event("a") + event("b") + event("c") + DONE


@pytest.mark.parametrize("cut", ["mid_event", "mid_chunk", "between", "no_done", "garbage"])
async def test_a_stream_that_breaks_ends_in_an_error_and_no_clean_end(rig, cut):
    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await writer.drain()
        await asyncio.sleep(0.05)
        if cut == "mid_event":
            writer.write(chunk(event("half")[:20]))
        elif cut == "mid_chunk":
            writer.write(b"ff\r\n" + event("half")[:9])
        elif cut == "no_done":
            writer.write(b"0\r\n\r\n")
            return
        elif cut == "garbage":
            writer.write(b"zz\r\n")
        await writer.drain()
        writer.close()

    async with Upstream(script) as up:
        rig.serve(up)
        body, is_whole = dechunked(split(await rig.post(STREAM))[2])
    assert not is_whole
    assert b"[DONE]" not in body
    first, last = body.split(b"\n\n")[:2]
    assert first + b"\n\n" == event("a")
    told = json.loads(last.removeprefix(b"data: "))["error"]
    assert (told["code"], told["type"]) == ("stream_broken", "server_error")
    assert rig.outcomes[0].kind == "broken"


async def test_an_error_that_the_worker_tells_inside_its_stream_passes_as_it_is(rig):
    told = b'data: {"error": {"message": "out of memory"}}\n\n'

    async def script(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")) + chunk(told) + b"0\r\n\r\n")

    async with Upstream(script) as up:
        rig.serve(up)
        body, _ = dechunked(split(await rig.post(STREAM))[2])
    assert body == event("a") + told
    assert rig.outcomes[0].kind == "broken"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_closes_the_replicas_connection_at_once(rig, stream):
    started = asyncio.Event()

    async def script(up, reader, writer, body):
        if stream:
            writer.write(SSE_HEAD + chunk(event("a")))
        started.set()
        assert await reader.read() == b""
        up.gone.set()
        writer.close()

    async with Upstream(script) as up:
        rig.serve(up)
        _, writer = await rig.open()
        writer.write(request(STREAM if stream else None))
        async with asyncio.timeout(5):
            await started.wait()
            writer.transport.abort()
            await up.gone.wait()
            while not rig.outcomes:
                await asyncio.sleep(0)
    assert rig.outcomes[0].kind == "cancelled"


async def test_a_client_that_leaves_the_queue_leaves_nothing_behind(rig):
    held = asyncio.Event()

    async def script(up, reader, writer, body):
        await held.wait()
        await plain(up, reader, writer, body)

    async with Upstream(script) as up:
        rig.serve(up, slots=1)
        running = [asyncio.create_task(rig.post()) for _ in range(2)]
        while len(up.bodies) < 2:
            await asyncio.sleep(0)
        _, writer = await rig.open()
        writer.write(request())
        while rig.dispatcher.waiting < 1:
            await asyncio.sleep(0)
        writer.transport.abort()
        while rig.dispatcher.waiting:
            await asyncio.sleep(0)
        held.set()
        assert [split(await one)[0] for one in running] == [200, 200]
        assert len(up.bodies) == 2


async def test_a_dead_replica_is_out_after_one_failed_request_and_the_client_sees_nothing(rig):
    async with Upstream(plain) as dead, Upstream(plain) as alive:
        rig.serve(dead, alive)
    async with Upstream(plain) as alive:
        async with Upstream(plain) as gone:
            rig.serve(gone, alive)
        answers = [await rig.post() for _ in range(12)]
        assert {split(answer)[0] for answer in answers} == {200}
        assert rig.dispatcher.ejections == 1
        assert len(alive.bodies) == 12


@pytest.mark.parametrize("when", ["at_once", "after_head", "in_plain_body", "before_first_event"])
async def test_a_replica_that_dies_before_the_first_byte_costs_the_client_nothing(rig, when):
    async def dying(up, reader, writer, body):
        if when == "after_head":
            writer.write(SSE_HEAD)
        elif when == "before_first_event":
            writer.write(SSE_HEAD + chunk(b"data: {"))
        elif when == "in_plain_body":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    async with Upstream(dying) as bad, Upstream(streaming("x")) as good:
        rig.serve(bad, good)
        for _ in range(6):
            body, is_whole = dechunked(split(await rig.post(STREAM))[2])
            assert is_whole
            assert body == event("x") + DONE
        assert len(bad.bodies) <= 1


async def test_with_no_other_replica_the_error_is_typed_and_retryable(rig):
    async def dying(up, reader, writer, body):
        writer.transport.abort()

    async with Upstream(dying) as bad:
        rig.serve(bad, slots=4)
        answer = await rig.post()
    assert split(answer)[0] in (502, 503)
    assert error(answer)["retryable"] is True


async def test_a_full_or_draining_replica_is_passed_over(rig):
    async def draining(up, reader, writer, body):
        writer.write(
            whole(b'{"error":{"code":"draining"}}', b"503 Service Unavailable", b"retry-after: 7\r\n")
        )

    async with Upstream(draining) as bad, Upstream(plain) as good:
        rig.serve(bad, good)
        assert {split(await rig.post())[0] for _ in range(6)} == {200}
    async with Upstream(draining) as bad:
        rig.serve(bad)
        status, head, body = split(await rig.post())
        assert (status, body) == (503, b'{"error":{"code":"draining"}}')
        assert b"retry-after: 7" in head


async def test_a_broken_plain_answer_is_never_sent_as_a_whole_one(rig):
    async def large(up, reader, writer, body):
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 300000\r\n\r\n"
            + b"x" * 200_000
        )
        await writer.drain()
        writer.transport.close()

    async with Upstream(large) as up:
        rig.serve(up)
        status, head, body = split(await rig.post())
    assert status == 200
    assert b"content-length: 300000" in head
    assert len(body) < 300_000


async def test_kept_connections_are_used_again_and_one_that_was_closed_is_no_failure(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        for _ in range(5):
            await rig.post()
        assert up.connections == 1
        for writer in list(up.writers):
            writer.close()
        assert split(await rig.post())[0] == 200
        assert rig.dispatcher.ejections == 0


async def test_one_client_connection_carries_many_requests(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        reader, writer = await rig.open()
        for _ in range(3):
            writer.write(request(close=False))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        assert len(up.bodies) == 3


async def test_pipelining_is_declined_after_the_first_answer(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        answer = await rig.raw(request(close=False) + request(close=False))
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"connection: close" in answer.lower()
        assert len(up.bodies) == 1


async def test_an_unknown_model_is_404_and_names_what_is_served(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        answer = await rig.post(b'{"model":"nope","prompt":"x"}')
    assert split(answer)[0] == 404
    assert error(answer)["code"] == "model_not_found"
    assert error(answer)["param"] == "model"
    assert "served here: m" in error(answer)["message"]


@pytest.mark.parametrize("state", ["declared", "provisioning", "starting", "reloading", "ready"])
async def test_a_pool_that_is_loading_is_waited_for(rig, state):
    rig.serve(state=state)
    asked = asyncio.create_task(rig.post())
    while not rig.dispatcher.waiting:
        await asyncio.sleep(0)
    async with Upstream(plain) as up:
        rig.serve(up)
        assert split(await asked)[0] == 200


async def test_waiting_for_a_load_ends_with_its_progress(rig):
    rig.serve(state="provisioning", progress=0.25, last_error="still copying")
    answer = await rig.post()
    assert split(answer)[0] == 503
    assert b"retry-after:" in split(answer)[1]
    assert error(answer)["code"] == "model_loading"
    assert error(answer)["loading"]["pools"][0]["progress"] == 0.25


async def test_a_pool_that_is_down_is_refused_at_once_with_its_cause(rig):
    rig.serve(state="unready", last_error="the model does not fit")
    answer = await rig.post()
    assert split(answer)[0] == 503
    assert error(answer)["code"] == "pool_down"
    assert "does not fit" in error(answer)["message"]


async def test_a_sleeping_pool_is_woken(rig):
    rig.serve(state="idle", loads_on_demand=True)
    asked = asyncio.create_task(rig.post())
    while not rig.woken:
        await asyncio.sleep(0)
    async with Upstream(plain) as up:
        rig.serve(up)
        assert split(await asked)[0] == 200
    assert rig.woken[0].model == "m"


async def test_a_full_queue_is_429_with_retry_after(rig):
    held = asyncio.Event()

    async def script(up, reader, writer, body):
        await held.wait()
        await plain(up, reader, writer, body)

    async with Upstream(script) as up:
        rig.serve(up, slots=1)
        waiting = [asyncio.create_task(rig.post()) for _ in range(4)]
        while len(up.bodies) < 2 or rig.dispatcher.waiting < 2:
            await asyncio.sleep(0)
        answer = await rig.post()
        assert split(answer)[0] == 429
        assert b"retry-after:" in split(answer)[1]
        assert error(answer)["type"] == "rate_limit_error"
        held.set()
        assert [split(await one)[0] for one in waiting] == [200] * 4


async def test_why_is_told_on_request(rig):
    async with Upstream(plain) as one, Upstream(plain) as other:
        rig.serve(one, other)
        assert b"x-skep-why" not in split(await rig.post())[1]
        assert b"x-skep-why: rule=two_choices" in split(await rig.post(extra=b"x-skep-why: 1\r\n"))[1]


async def test_one_prefix_stays_on_one_replica(rig):
    async with Upstream(plain) as one, Upstream(plain) as other:
        rig.serve(one, other)
        body = json.dumps({"model": "m", "prompt": "x" * BLOCK_BYTES * 2}).encode()
        for _ in range(8):
            await rig.post(body)
        assert sorted((len(one.bodies), len(other.bodies))) == [0, 8]


async def test_a_session_stays_on_one_replica(rig):
    async with Upstream(plain) as one, Upstream(plain) as other:
        rig.serve(one, other)
        for _ in range(8):
            await rig.post(extra=b"x-skep-session: me\r\n")
        assert sorted((len(one.bodies), len(other.bodies))) == [0, 8]


async def test_a_chunked_request_body_is_joined(rig):
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    body = b'{"model":"m","prompt":"hi"}'
    sent = head + b"transfer-encoding: chunked\r\n\r\n" + chunk(body[:5]) + chunk(body[5:]) + b"0\r\n\r\n"
    async with Upstream(plain) as up:
        rig.serve(up)
        assert split(await rig.raw(sent))[0] == 200
        assert up.bodies == [body]


async def test_expect_continue_is_answered_before_the_body(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        whole_request = request(extra=b"expect: 100-continue\r\n")
        head, _, body = whole_request.partition(b"\r\n\r\n")
        reader, writer = await rig.open()
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(rig):
    body = STREAM
    head = (
        b"POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    async with Upstream(streaming("a")) as up:
        rig.serve(up)
        rig.service._hosts = HostCheck(is_strict=False)
        status, answer_head, answer = split(await rig.raw(head + body))
    assert status == 200
    assert b"transfer-encoding" not in answer_head
    assert answer == event("a") + DONE


HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BAD = {
    "te_and_cl": (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
    "cl_and_te": (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two_lengths": (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
    "gzip_chunked": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "space_before_colon": (HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "bad_chunk_size": (HEAD + b"transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
    "bad_chunk_end": (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 400),
    "folded_header": (HEAD + b"x: a\r\n b\r\n\r\n", 400),
    "bare_lf": (b"POST /v1/completions HTTP/1.1\nhost: localhost\n\n", 400),
    "no_host": (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    "two_hosts": (b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n", 400),
    "foreign_host": (b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n", 400),
    "absolute_target": (b"GET http://x/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "route": (b"GET /nope HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404),
    "method": (b"GET /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 405),
    "type": (b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}", 415),
    "encoding": (HEAD + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", 415),
    "announced_too_large": (HEAD + b"content-length: 100001\r\n\r\n", 413),
    "chunked_too_large": (HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"x" * 100_001), 413),
    "head_too_large": (HEAD + b"x: " + b"y" * 9000 + b"\r\n\r\n", 431),
    "endless_head": (HEAD + b"x: " + b"y" * 9000, 431),
    "many_headers": (HEAD + b"".join(b"x%d: 1\r\n" % n for n in range(120)) + b"\r\n", 431),
    "expectation": (HEAD + b"expect: a pony\r\ncontent-length: 2\r\n\r\n", 400),
    "not_json": (request(b"model=m"), 400),
    "not_an_object": (request(b"[1]"), 400),
    "no_model": (request(b"{}"), 400),
    "model_is_a_number": (request(b'{"model":1}'), 400),
    "not_utf8": (request(b'{"model":"\xff"}'), 400),
    "slow_head": (HEAD, 408),
    "slow_body": (HEAD + b"content-length: 50\r\n\r\n{", 408),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_proper_request_is_refused_with_a_typed_error_and_never_forwarded(rig, name):
    data, status = BAD[name]
    async with Upstream(plain) as up:
        rig.serve(up)
        answer = await rig.raw(data)
        assert up.bodies == []
    assert split(answer)[0] == status, answer
    assert error(answer)["type"] == "invalid_request_error" if status != 408 else "server_error"
    assert rig.outcomes == []


async def test_a_client_that_does_not_read_pauses_its_replica_and_is_cut_off_in_the_end(rig):
    sent = 0

    async def flood(up, reader, writer, body):
        nonlocal sent
        writer.write(SSE_HEAD)
        block = chunk(event("x" * 10_000))
        for _ in range(5_000):
            writer.write(block)
            sent += len(block)
            await writer.drain()

    async with Upstream(flood) as up:
        rig.serve(up)
        _, writer = await rig.open()
        writer.transport.pause_reading()
        writer.write(request(STREAM))
        async with asyncio.timeout(10):
            while not rig.outcomes:
                await asyncio.sleep(0.02)
        writer.transport.abort()
    assert sent < 30_000_000
    assert rig.outcomes[0].kind == "cancelled"


async def test_a_reader_that_comes_back_gets_every_event(rig):
    texts = [f"{n:05d}" + "x" * 2_000 for n in range(2_000)]
    async with Upstream(streaming(*texts)) as up:
        rig.serve(up)
        reader, writer = await rig.open()
        writer.write(request(STREAM))
        writer.transport.pause_reading()
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
    body, is_whole = dechunked(split(answer)[2])
    assert is_whole
    assert body == b"".join(event(text) for text in texts) + DONE


async def test_a_replica_that_falls_silent_in_a_stream_ends_in_an_error(rig):
    async def silent(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await reader.read()

    async with Upstream(silent) as up:
        rig.serve(up)
        body, is_whole = dechunked(split(await rig.post(STREAM))[2])
    assert not is_whole
    assert b'"code":"timeout"' in body


async def test_stopping_ends_running_streams_with_an_error_and_refuses_the_waiting():
    rig = Rig(FAST)

    async def endless(up, reader, writer, body):
        writer.write(SSE_HEAD + chunk(event("a")))
        await reader.read()

    async with Upstream(endless) as up:
        async with rig.gateway:
            rig.serve(up, slots=1)
            asked = [asyncio.create_task(rig.post(STREAM)) for _ in range(3)]
            while len(up.bodies) < 2 or not rig.dispatcher.waiting:
                await asyncio.sleep(0)
            reader, writer = await rig.open()
        answers = [await one for one in asked]
    assert sum(b"gateway_stopping" in answer for answer in answers) == 3
    assert sorted(split(answer)[0] for answer in answers) == [200, 200, 503]
    assert await reader.read() == b""
    writer.close()


async def test_models_health_head_and_options(rig):
    async with Upstream(plain) as up:
        rig.serve(up, aliases=("nick",))
        get = b"%b %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        listed = json.loads(split(await rig.raw(get % (b"GET", b"/v1/models")))[2])
        assert [one["id"] for one in listed["data"]] == ["m"]
        assert json.loads(split(await rig.raw(get % (b"GET", b"/v1/models/m")))[2])["id"] == "m"
        assert split(await rig.raw(get % (b"GET", b"/v1/models/x")))[0] == 404
        assert split(await rig.raw(get % (b"GET", b"/health")))[2] == b'{"status":"ok"}'
        status, head, body = split(await rig.raw(get % (b"HEAD", b"/v1/models")))
        assert (status, body) == (200, b"")
        assert b"content-length: 0" not in head
        status, head, body = split(await rig.raw(get % (b"OPTIONS", b"/v1/chat/completions")))
        assert (status, body) == (204, b"")
        assert b"allow: post, options" in head
        assert split(await rig.post(b'{"model":"nick","prompt":"x"}'))[0] == 200


async def test_an_offer_to_speak_http2_is_ignored_and_answered_in_1_1(rig):
    async with Upstream(plain) as up:
        rig.serve(up)
        offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
        answer = await rig.post(extra=offer, close=False)
        assert split(answer)[0] == 200
        assert len(up.bodies) == 1
