"""A client's connection: reads requests within limits, answers what the gateway itself knows, hands on the rest.

Requests are read whole before they go anywhere, and only chosen headers and a counted body go on, so the two sides can
never disagree about where a request ends (RFC 9112, section 11.2). Pipelining is declined: what arrives before an
answer has ended is dropped and the connection closes after that answer, which is what section 9.3.2 lets a server do.
"""

import asyncio
import math
from typing import cast

import httptools
import msgspec

from skep.errors import SkepError
from skep.errors.queen import BodiesFull
from skep.errors.web import (
    BodyTooLarge,
    HeadTooLarge,
    MalformedHttp,
    RequestTooSlow,
    TooManyConnections,
)
from skep.queen import head
from skep.queen.exchange import Exchange
from skep.queen.incoming import Incoming
from skep.queen.service import Service
from skep.wire.errors import error_headers, error_object

LINGER_S = 1.0
"""How long a refused client may go on sending, so that it reads why instead of a reset."""

_JSON = b"application/json"


class ClientConnection(asyncio.Protocol):
    """One connection. `deadline_s` is judged by the gateway's sweep, so that no timer is set per request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limits = service.options.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._incoming = Incoming()
        self._exchange: Exchange | None = None
        self._in_head = self._is_busy = False
        self._head_bytes = self._read_bytes = 0
        self._is_closing = self._is_declining = False
        self._is_chunked = False
        self._paused = False
        self.deadline_s = math.inf

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the buffers, or refuse the connection."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not of asyncio's class.
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        if self._service.connected(self):
            self._idle()
        else:
            maximum = self._limits.connections_max
            self.refuse(TooManyConnections(f"this gateway holds {maximum} connections, its maximum"), None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """The client is gone: so is the reason for its request."""
        self._transport = None
        self._drop_incoming()
        exchange, self._exchange = self._exchange, None
        self._service.disconnected(self)
        if exchange is not None:
            exchange.client_gone()

    def eof_received(self) -> bool:
        """Take a half-closed connection for a client that has left, as most proxies do."""
        return False

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._paused = True
        self.deadline_s = self._service.now_s() + self._limits.stall_s
        if self._exchange is not None:
            self._exchange.client_paused()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        self.deadline_s = math.inf
        if self._exchange is not None:
            self._exchange.client_resumed()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what comes while an answer is under way is declined."""
        if self._is_closing:
            return
        if self._is_busy:
            self._incoming.keep_alive = False
            return
        self._read_bytes = len(data)
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError as error:
            self.refuse(MalformedHttp(f"not an HTTP/1.1 request: {error}"), None)
        else:
            if self._in_head and self._head_bytes > self._limits.head_bytes_max:
                self._refuse_head()

    # The parser.

    def on_message_begin(self) -> None:
        """A request starts; while another is being answered, that is pipelining."""
        if self._is_busy or self._is_closing:
            self._incoming.keep_alive = False
            return
        if self._is_declining:
            return
        self._in_head, self._head_bytes = True, self._read_bytes
        self._incoming = Incoming()
        self.deadline_s = self._service.now_s() + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        """Gather the target, which may come in parts."""
        if self._in_head:
            self._incoming.target += url
            self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Gather a header."""
        if self._in_head:
            self._incoming.headers.append((name.lower(), value))
            self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Judge the head before the body is waited for."""
        if not self._in_head:
            return
        self._in_head = False
        self.deadline_s = self._service.now_s() + self._limits.body_s
        incoming = self._incoming
        incoming.method = self._parser.get_method()
        incoming.version = self._parser.get_http_version()
        incoming.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        try:
            incoming.judge_head(self._limits.body_bytes_max)
            self._service.judge(incoming)
        except SkepError as error:
            self.refuse(error, None)
            return
        if incoming.expects_continue and self._transport is not None:
            self._transport.write(head.CONTINUE)

    def on_body(self, data: bytes) -> None:
        """Gather the body within its bounds."""
        if self._is_busy or self._is_closing:
            return
        incoming = self._incoming
        incoming.body.append(data)
        incoming.body_bytes += len(data)
        has_room = self._service.hold_body(len(data))
        if incoming.body_bytes > self._limits.body_bytes_max:
            self.refuse(BodyTooLarge(f"the body is larger than {self._limits.body_bytes_max} bytes"), None)
        elif not has_room:
            self.refuse(
                BodiesFull("the gateway holds as many bytes of requests as it may", retry_after_s=2), None
            )

    def on_message_complete(self) -> None:
        """The request is whole: answer it."""
        if self._is_busy or self._is_closing:
            return
        if self._parser.should_upgrade() and self._incoming.has_body:
            return  # The parser stops before the body of a request that offers an upgrade.
        self._is_busy = True
        self.deadline_s = math.inf
        try:
            self._exchange = self._service.answer(self, self._incoming)
            if self._exchange is not None:
                self._exchange.start()
        except SkepError as error:
            self.refuse(error, None)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 after an offer to speak another protocol (RFC 9110, section 7.8): read the body anew."""
        if self._is_busy or self._is_closing or self._is_declining:
            return
        self._is_declining = True
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(self._incoming.framing_head())
        self._is_declining = False
        if rest:
            self.data_received(rest)

    # What the exchange tells.

    def send_head(self, status: int, headers: list[tuple[bytes, bytes]], *, length: int | None) -> None:
        """Send an answer's head; without a length it is chunked, or ends with the connection for HTTP/1.0."""
        incoming = self._incoming
        sent = [(b"date", self._service.date()), (b"x-request-id", incoming.request_id.encode()), *headers]
        if length is not None:
            sent.append((b"content-length", b"%d" % length))
        elif incoming.version == "1.1":
            sent.append((b"transfer-encoding", b"chunked"))
        else:
            incoming.keep_alive = False
        self._is_chunked = length is None and incoming.version == "1.1"
        if not incoming.keep_alive:
            sent.append((b"connection", b"close"))
        elif incoming.version != "1.1":
            sent.append((b"connection", b"keep-alive"))
        self._write(head.response_head(status, sent))

    def send_body(self, data: bytes) -> None:
        """Send a part of the body."""
        self._write(head.chunk(data) if self._is_chunked else data)

    def end_whole(self) -> None:
        """End the answer as it should end, and wait for the next request."""
        if self._is_chunked:
            self._write(head.LAST_CHUNK)
        self._ended()

    def end_broken(self, last: bytes) -> None:
        """Send the last bytes and close without the framing's end."""
        if last:
            self.send_body(last)
        self._exchange = None
        self._drop_incoming()
        self._close()

    def refuse(self, error: SkepError, extra: dict[str, object] | None) -> None:
        """Answer with an error; the connection closes when the request was not read whole."""
        body = msgspec.json.encode({"error": {**error_object(error), **(extra or {})}})
        headers = [(name.encode(), value.encode()) for name, value in error_headers(error)]
        if not self._is_busy:
            self._incoming.keep_alive = False
        self.send_whole(error.http_status, body, headers)

    def send_whole(
        self, status: int, body: bytes, headers: list[tuple[bytes, bytes]], kind: bytes = _JSON
    ) -> None:
        """Answer with one whole body (or, to HEAD, with its head)."""
        typed = [(b"content-type", kind), *headers] if body else headers
        self.send_head(status, typed, length=len(body))
        if body and self._incoming.method != b"HEAD":
            self._write(body)
        self._ended()

    # Time, as the gateway's sweep tells it.

    def check_time(self, now_s: float) -> None:
        """End what takes too long."""
        if self._exchange is not None:
            self._exchange.check_time(now_s)
        if now_s < self.deadline_s or self._transport is None:
            return
        if self._is_busy or self._is_closing:
            self._transport.abort()  # A client that does not read its answer, or goes on after a refusal.
        elif self._in_head or self._incoming.body_bytes or self._incoming.headers:
            self.refuse(RequestTooSlow("the request did not arrive whole in time"), None)
        else:
            self._transport.close()

    def shut_down(self) -> None:
        """Close when idle; otherwise after the answer that is under way."""
        self._incoming.keep_alive = False
        if not self._is_busy and self._transport is not None:
            self._transport.close()

    @property
    def is_busy(self) -> bool:
        """True while a request is being answered."""
        return self._is_busy

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _ended(self) -> None:
        """The answer has been written: next request, or close."""
        self._exchange = None
        keep_alive = self._incoming.keep_alive and not self._service.is_stopping
        self._drop_incoming()
        if keep_alive:
            self._is_busy = False
            self._idle()
        else:
            self._close()

    def _idle(self) -> None:
        if not self._paused:
            self.deadline_s = self._service.now_s() + self._limits.idle_s

    def _close(self) -> None:
        """Close after what is written; a client that still sends is read, and ignored, for a moment."""
        self._is_closing = True
        if self._transport is None:
            return
        if self._is_busy:
            self.deadline_s = self._service.now_s() + self._limits.stall_s
            self._transport.close()
        else:
            self.deadline_s = self._service.now_s() + LINGER_S
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _drop_incoming(self) -> None:
        self._service.let_body_go(self._incoming.body_bytes)
        self._incoming = Incoming(keep_alive=self._incoming.keep_alive)

    def _count_head(self, size: int) -> None:
        incoming = self._incoming
        incoming.head_bytes += size
        too_many = len(incoming.headers) > self._limits.headers_max
        if too_many or incoming.head_bytes > self._limits.head_bytes_max:
            self._refuse_head()

    def _refuse_head(self) -> None:
        if not self._is_closing:
            self._in_head = False
            self.refuse(HeadTooLarge(f"the head is larger than {self._limits.head_bytes_max} bytes"), None)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
