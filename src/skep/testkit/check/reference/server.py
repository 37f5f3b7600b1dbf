"""The server around the model: slots, a queue, streams, and the faults that live there."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from skep.testkit.check.reference import words
from skep.testkit.check.reference.ask import Ask, Refused, parse
from skep.testkit.check.reference.shapes import Said

MODEL = "reference"
BODY_BYTES_MAX = 8 << 20
PAD = b": " + b"x" * (256 << 10) + b"\n\n"
IDLE_MAX = 100
HOARD_BYTES = 128 << 20
CREDENTIALS = "authorization"


@dataclass
class Reference:
    """The server. `faults` are ids of clauses that it breaks; `key` is asked for when given."""

    faults: frozenset[str] = frozenset()
    slots: int = 2
    queue_max: int = 8
    token_delay_s: float = 0.004
    key: str = ""
    salt: str = ""
    url: str = ""
    port: int = 0
    shutdown_s: float = 0.2
    _running: int = 0
    _waiting: int = 0
    _was_full: bool = False
    _was_refused: bool = False
    _asked: int = 0
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _freed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _streams: set[asyncio.Task[Any]] = field(default_factory=set)
    _kept: list[Any] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen; `url` says where."""
        app = web.Application(
            client_max_size=BODY_BYTES_MAX if "errors.huge-body" not in self.faults else 1 << 30
        )
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/embeddings", self._embeddings)
        if "errors.wrong-method" in self.faults:
            app.router.add_get("/v1/chat/completions", self._models)
        if "errors.unknown-route" in self.faults:
            app.router.add_route("*", "/{tail:.*}", self._models)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            shutdown_timeout=self.shutdown_s,
            handler_cancellation=True,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=512).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening; what runs gets `shutdown_s`."""
        assert self._runner is not None
        await self._runner.cleanup()
        for one in self._kept:
            if isinstance(one, asyncio.Task):
                one.cancel()
                await asyncio.gather(one, return_exceptions=True)

    async def _health(self, _: web.Request) -> web.Response:
        if "limits.health-under-load" in self.faults and self._running:
            await asyncio.sleep(1.2)
        return web.json_response({"status": "ok"})

    async def _models(self, _: web.Request) -> web.Response:
        names = ["another"] if "endpoints.models" in self.faults else [MODEL]
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "skep"} for name in names]
        return web.json_response({"object": "list", "data": cards})

    async def _embeddings(self, request: web.Request) -> web.Response:
        inputs = (await request.json())["input"]
        wanted = inputs[:1] if "endpoints.embeddings" in self.faults else inputs
        data = [
            {"object": "embedding", "index": at, "embedding": [float(len(one)), 1.0]}
            for at, one in enumerate(wanted)
        ]
        return web.json_response({"object": "list", "data": data, "model": MODEL, "usage": {}})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, is_chat=True)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, is_chat=False)

    async def _answer(self, request: web.Request, *, is_chat: bool) -> web.StreamResponse:
        try:
            raw = await self._admit(request)
            ask = parse(raw, model=MODEL, faults=self.faults)
        except Refused as error:
            self._was_refused = True
            if "errors.streaming-refusal" in self.faults and b'"stream":true' in await request.read():
                return web.Response(
                    body=b'data: {"error": {"message": "no"}}\n\n', content_type="text/event-stream"
                )
            return self._error(error)
        try:
            async with self._slot():
                said = Said(
                    ask=ask,
                    id=f"c-{next(self._ids)}",
                    model=MODEL,
                    choices=[
                        words.tokens(ask, choice=one, salt=self._salt(ask), faults=self.faults)
                        for one in range(ask.n)
                    ],
                    faults=self.faults,
                    is_chat=is_chat,
                )
                self._asked += 1
                return await self._stream(request, said) if ask.is_stream else await self._whole(said)
        except Refused as error:
            return self._error(error)

    async def _admit(self, request: web.Request) -> bytes:
        """Return the body. Raises: Refused."""
        if (
            self.key
            and request.headers.get(CREDENTIALS) != f"Bearer {self.key}"
            and "errors.no-key" not in self.faults
        ):
            raise Refused(401, "a key is needed", "authentication_error")
        assert self._runner is not None
        assert self._runner.server is not None
        if "limits.idle-connections" in self.faults and len(self._runner.server.connections) > IDLE_MAX:
            raise Refused(503, "too many connections", "server_error")
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise Refused(413, "the body is too large") from error

    def _salt(self, ask: Ask) -> str:
        """Return what changes the words beside prompt and seed: nothing, unless a fault is asked for."""
        salt = self.salt
        if "determinism.greedy" in self.faults:
            salt += str(self._asked)
        if "determinism.cache" in self.faults and self._asked:
            salt += self._last_prompt_changes(ask)
        if "determinism.batch" in self.faults and self._running > 1:
            salt += "beside others"
        if "errors.lives-on" in self.faults and self._was_refused:
            salt += "after a bad request"
        if "limits.recovers" in self.faults and self._was_full:
            salt += "after a flood"
        if "determinism.seed" in self.faults and ask.seed is not None and ask.temperature:
            salt += str(self._asked)
        return salt

    def _last_prompt_changes(self, ask: Ask) -> str:
        last, self._kept = (self._kept[-1] if self._kept else ask.prompt), [ask.prompt]
        return "" if last == ask.prompt else str(last)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncGenerator[None]:
        """Hold one of the slots; wait in a bounded queue for it. Raises: Refused."""
        if self._waiting >= self.queue_max and self._running >= self.slots:
            self._was_full = True
            raise Refused(429, "the queue is full", "rate_limit_error")
        self._waiting += 1
        try:
            async with self._freed:
                await self._freed.wait_for(lambda: self._running < self.slots)
                self._running += 1
        except asyncio.CancelledError:
            if "cancel.queued" in self.faults:
                for one in self._streams:
                    one.cancel()
            raise
        finally:
            self._waiting -= 1
        if self._running == self.slots and "limits.waiting-is-served" in self.faults:
            self._was_full = True
        try:
            if "limits.waiting-is-served" in self.faults and self._was_full and self._running == 1:
                raise Refused(500, "stuck", "server_error")
            yield
        finally:
            self._running -= 1
            async with self._freed:
                self._freed.notify_all()

    async def _whole(self, said: Said) -> web.Response:
        for _ in range(max(len(one) for one, _ in said.choices)):
            await asyncio.sleep(self.token_delay_s)
        return web.json_response(said.whole())

    async def _stream(self, request: web.Request, said: Said) -> web.StreamResponse:
        kind = "text/plain" if "stream.content-type" in self.faults else "text/event-stream"
        if "truncation.framed" in self.faults:
            return await self._unframed(request, said)
        response = web.StreamResponse(headers={"content-type": kind})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            await self._write(response, said)
        except asyncio.CancelledError:
            await self._cancelled(said)
            raise
        finally:
            self._streams.discard(task)
        return response

    async def _write(self, response: web.StreamResponse, said: Said) -> None:
        if "backpressure.memory" in self.faults and said.ask.ignore_eos:
            self._kept.append(bytearray(HOARD_BYTES))
        for piece in said.pieces():
            if "backpressure.others-flow" in self.faults:
                async with self._writing:
                    await response.write((PAD if said.ask.ignore_eos else b"") + piece)
            else:
                await response.write(piece)
            await asyncio.sleep(self.token_delay_s)

    async def _cancelled(self, said: Said) -> None:
        if "cancel.frees-slot" in self.faults:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(self.token_delay_s * said.ask.max_tokens)
        if "cancel.neighbours" in self.faults:
            for one in self._streams - {asyncio.current_task()}:
                one.cancel()

    async def _unframed(self, request: web.Request, said: Said) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for piece in said.pieces():
            request.transport.write(piece)
        request.transport.close()
        return web.Response()

    def _error(self, error: Refused) -> web.Response:
        if "errors.object" in self.faults:
            return web.Response(status=error.status, text=str(error))
        body = {"error": {"message": str(error), "type": error.kind, "param": None, "code": None}}
        headers = (
            {"Retry-After": "1"}
            if error.status in {429, 503} and "limits.full-is-told" not in self.faults
            else {}
        )
        return web.json_response(body, status=error.status, headers=headers)
