"""A small server that keeps every clause, and breaks any one of them on request: how the check is itself proved.

It serves a language model of no size: its words follow from the prompt and the seed. Slots, a queue, a context, keys
and cancellation are real. A fault is named after the clause that must find it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec
from aiohttp import web

from skep.testkit.check.clause import CLAUSES

MODEL = "reference"
WORDS = tuple("the sky is blue and wide bees carry honey home at dusk while a small skep waits by the wall".split())
TURN_WORDS = 12
CONTEXT = 5000
BODY_BYTES_MAX = 4 << 20
PREAMBLE = {"content-type": "text/event-stream", "cache-control": "no-cache"}


@dataclass(frozen=True)
class Ask:
    """A request that was understood."""

    prompt: str
    is_chat: bool = True
    is_stream: bool = False
    max_tokens: int = 16
    temperature: float = 1.0
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    with_usage: bool = False
    top_logprobs: int | None = None
    is_json: bool = False
    tool: str = ""

    @property
    def prompt_tokens(self) -> int:
        """Its length in words, and one to begin with."""
        return len(self.prompt.split()) + 1


class Refused(Exception):
    """Ends a request with a status and OpenAI's error object."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass
class Reference:
    """The server. `faults` are ids of clauses that it breaks; `key` is asked for when given."""

    faults: frozenset[str] = frozenset()
    slots: int = 2
    queue_max: int = 8
    token_delay_s: float = 0.004
    key: str = ""
    url: str = ""
    embeds: bool = True
    _running: int = 0
    _waiting: int = 0
    _free: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _asked: int = 0
    _stalled: asyncio.Lock = field(default_factory=asyncio.Lock)
    _writing: dict[int, web.StreamResponse] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    def breaks(self, clause: str) -> bool:
        """True when it is to break this clause."""
        assert clause in CLAUSES, clause
        return clause in self.faults

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/embeddings", self._embeddings)
        if self.breaks("errors.wrong-method"):
            app.router.add_get("/v1/chat/completions", self._models)
        if self.breaks("errors.unknown-route"):
            app.router.add_route("*", "/{tail:.*}", self._models)
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=0.2, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=8 if self.breaks("limits.idle-connections") else 512)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the framework's signature
        if self.breaks("limits.health-under-load") and self._running:
            await asyncio.sleep(1.3)
        return web.json_response({"status": "ok"})

    async def _models(self, request: web.Request) -> web.Response:  # noqa: ARG002 - the framework's signature
        if self.breaks("endpoints.models"):
            return web.json_response([{"name": MODEL}] if False else {"object": "list", "data": [{"id": "other"}]})
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "skep"}]})
