"""uvicorn's HTTP/1 protocol, held to limits.

uvicorn itself bounds neither the size of a head or body, nor the time that either takes to arrive, nor how long a
reader may stall. Each of those ends here with a typed error body (before a response has begun) or a reset.
"""

import asyncio
import functools
import http
import socket
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from skep.errors import SkepError
from skep.errors.web import BodyTooLarge, HeadTooLarge, MalformedHttp, RequestTooSlow, TooManyConnections
from skep.web.limits import Limits
from skep.wire.errors import error_body, error_headers

LINGER_S = 1.0
"""How long a refused client may go on sending before its connection is closed: closing at once would reset the
connection while it still writes, and it would never read why."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. At most one deadline runs: for the head, the body, or the first byte."""

    def __init__(self, limits: Limits, config: Config, server_state: ServerState, **kwargs: Any) -> None:
        super().__init__(config, server_state, **kwargs)
        self.limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._refused = False
        self._read_bytes = 0
        self._head_bytes = 0
        self._whole_head_bytes = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Bound the connection's buffers, or refuse it."""
        super().connection_made(transport)
        limits = self.limits
        transport.set_write_buffer_limits(high=limits.write_buffer_bytes)
        if limits.send_buffer_bytes and (raw := transport.get_extra_info("socket")) is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
        if len(self.connections) > limits.connections_max:
            self._refuse(
                TooManyConnections(f"this server holds {limits.connections_max} connections, its maximum")
            )
        else:
            self._arm(limits.idle_s, self._close_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every timer."""
        self._disarm()
        self._stop_stall_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Treat a half-closed connection as a client that went away: its running request is cancelled at once."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and bound the time and size of what is not yet whole."""
        if self._refused:
            return
        self._read_bytes = len(data)
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > self.limits.head_bytes_max:
            self._refuse(
                HeadTooLarge(f"the request's head is larger than {self.limits.head_bytes_max} bytes")
            )
        elif not (self._in_head or self._in_body):
            self._disarm()
        elif self._deadline is None:
            limit_s = self.limits.head_s if self._in_head else self.limits.body_s
            self._arm(limit_s, functools.partial(self._too_slow, limit_s))

    def on_message_begin(self) -> None:
        """A request's first byte has arrived."""
        super().on_message_begin()
        self._disarm()
        self._in_head = True
        self._head_bytes = self._read_bytes
        self._whole_head_bytes = self._body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the headers and their bytes."""
        super().on_header(name, value)
        self._whole_head_bytes += len(name) + len(value)
        too_many = len(self.headers) > self.limits.headers_max
        if too_many or len(self.url) + self._whole_head_bytes > self.limits.head_bytes_max:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Refuse a body that announces itself as too large, before the application sees the request."""
        self._in_head, self._in_body = False, True
        self._disarm()
        if self._refused:
            return
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self.limits.body_bytes_max:
                self._refuse(self._body_error())
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a body that came without announcing its size."""
        if self._refused:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.body_bytes_max:
            self._refuse(self._body_error())
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP with our error body."""
        if not self._refused:
            self._refuse(MalformedHttp(msg))

    def pause_writing(self) -> None:
        """The reader has stalled: give it `stall_s`."""
        super().pause_writing()
        if self._stall is None:
            self._stall = self.loop.call_later(self.limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader is back."""
        self._stop_stall_timer()
        super().resume_writing()

    def _refuse_head(self) -> None:
        if not self._refused:
            limits = self.limits
            text = f"a request's head may have {limits.head_bytes_max} bytes and {limits.headers_max} headers"
            self._refuse(HeadTooLarge(text))

    def _body_error(self) -> SkepError:
        return BodyTooLarge(f"the request's body is larger than {self.limits.body_bytes_max} bytes")

    def _too_slow(self, limit_s: float) -> None:
        part = "head" if self._in_head else "body"
        self._refuse(RequestTooSlow(f"the request's {part} did not arrive within {limit_s:g} s"))

    def _close_idle(self) -> None:
        self.transport.close()

    def _arm(self, delay_s: float, action: Any) -> None:
        self._deadline = self.loop.call_later(delay_s, action)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_stall_timer(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _refuse(self, error: SkepError) -> None:
        """Answer with `error` unless a response has begun, read on for a moment, then close."""
        self._refused = True
        self._disarm()
        cycle = self.cycle
        begun = cycle is not None and not cycle.response_complete and cycle.response_started
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if begun:
            self.transport.abort()
            return
        self.transport.write(_raw_response(error))
        self.flow.resume_reading()
        self._arm(LINGER_S, self.transport.close)


def _raw_response(error: SkepError) -> bytes:
    body = error_body(error)
    head = [
        f"HTTP/1.1 {error.http_status} {http.HTTPStatus(error.http_status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        *(f"{name}: {value}" for name, value in error_headers(error)),
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def limited(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol class as uvicorn calls it."""
    return cast("type[asyncio.Protocol]", functools.partial(LimitedProtocol, limits))
