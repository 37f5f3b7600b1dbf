"""One HTTP request in a handler's hands."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from skep.errors.web import UnsupportedMediaType
from skep.telemetry.trace import parse as parse_trace
from skep.web.asgi import JSON, RawHeaders, Receive, Send, read_body, send_whole
from skep.wire.validate import parse

T = TypeVar("T")

TRACE_CHARS_MAX = 128
LARGE_BODY_BYTES = 256 * 1024
"""Larger bodies are parsed in a thread, so that the event loop goes on answering."""

EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)


class Request:
    """A scope with its two ends, and what handlers ask of them. `responded`: a status was sent."""

    __slots__ = ("_receive", "_scope", "_send", "headers", "responded")

    def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.responded = False

    def header(self, name: bytes) -> str:
        """Return a header's value, "" without one."""
        return self.headers.get(name, b"").decode("latin-1")

    async def parse(self, kind: type[T], on_unknown: Callable[[int], None] | None = None) -> T:
        """Return the body as `kind`. Raises: UnsupportedMediaType, MalformedJson, InvalidRequest, ClientGone."""
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != JSON:
            raise UnsupportedMediaType("send the header 'Content-Type: application/json'")
        body = await read_body(self._receive)
        large = len(body) > LARGE_BODY_BYTES
        parsed = await asyncio.to_thread(parse, body, kind) if large else parse(body, kind)
        if parsed.unknown_fields and on_unknown is not None:
            on_unknown(parsed.unknown_fields)
        return parsed.request

    async def answer(
        self, body: bytes, *, status: int = 200, content_type: bytes = JSON, headers: RawHeaders = ()
    ) -> None:
        """Send the whole response."""
        self.responded = True
        await send_whole(self._send, status, body, content_type=content_type, headers=headers)

    async def begin_stream(self) -> None:
        """Send the head of an event stream."""
        self.responded = True
        await self._send({"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM)})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send bytes; waits while the client's buffer is full, which is what pauses a stalled reader's sequence."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    def trace(self) -> dict[str, str]:
        """Return what a log line says of where this request comes from."""
        context = parse_trace(self.headers.get(b"traceparent"))
        found = {"request_id": self.header(b"x-request-id")[:TRACE_CHARS_MAX]}
        if context is not None:
            found["trace_id"] = context.trace_id
        return {name: value for name, value in found.items() if value}

    @asynccontextmanager
    async def watched(self, on_leave: Callable[[], Any]) -> Any:
        """Call `on_leave` when the client goes away while the context is open. The body must have been read."""
        watcher = asyncio.create_task(self._until_gone(on_leave), name="client-watch")
        try:
            yield
        finally:
            watcher.cancel()

    async def _until_gone(self, on_leave: Callable[[], Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        on_leave()
