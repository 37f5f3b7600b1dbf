"""Connections to replicas: opened, kept for the next request, counted, and closed at once when nobody wants them."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from skep.queen.replica import Replica

WRITE_BUFFER_BYTES = 256 * 1024
_INFORMATIONAL_MAX = 199
_BODILESS = (204, 304)


class Answered(Protocol):
    """Whom a connection tells about the answer. After `answer_complete` or `answer_lost` it tells nothing more."""

    def answer_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head has arrived."""
        ...

    def answer_body(self, data: bytes) -> None:
        """Bytes of the body, without their framing; called once a read."""
        ...

    def answer_complete(self) -> None:
        """The answer is whole, as its framing says."""
        ...

    def answer_lost(self, reason: str) -> None:
        """The connection broke or spoke nonsense before the answer was whole."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to a replica; at most one request at a time."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.uses = 0
        self.idle_since_s = 0.0
        self.has_answer_bytes = False
        self._asker: Answered | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._in_head = True
        self._is_whole = False
        self._ends_at_eof = self._keeps_alive = False

    @property
    def is_open(self) -> bool:
        """True while it may be used."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, asker: Answered, head: bytes, body: bytes) -> None:
        """Send a request; the asker is told what comes back."""
        assert self._transport is not None
        self._asker = asker
        self.uses += 1
        self.has_answer_bytes = self._is_whole = False
        self._transport.writelines((head, body) if body else (head,))

    def abort(self) -> None:
        """Close now; the replica notices that nobody listens, which is how a request is cancelled."""
        self._asker = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read nothing until `resume`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what is buffered."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not of asyncio's class.
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Parse the framing, and pass on what is inside."""
        if self._asker is None:
            self.abort()  # An answer that nobody asked for: this connection cannot be trusted.
            return
        self.has_answer_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"the replica's answer is not HTTP: {error}")
            return
        self._pass_body()
        if self._is_whole and self._asker is not None:
            self._finish()

    def eof_received(self) -> bool:
        """Close with the other side."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the asker, unless the end of the connection is the end of the answer."""
        self._transport = None
        if self._asker is None:
            return
        if self._ends_at_eof and exc is None and not self._in_head:
            self._finish()
        else:
            self._lose(str(exc) if exc else "the replica closed the connection")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Pass the head on; an informational one is skipped."""
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if status <= _INFORMATIONAL_MAX:
            return
        self._in_head = False
        self._keeps_alive = self._parser.should_keep_alive()
        names = {name for name, _ in headers}
        self._ends_at_eof = (
            b"content-length" not in names and b"transfer-encoding" not in names and status not in _BODILESS
        )
        if self._asker is not None:
            self._asker.answer_head(status, headers)

    def on_body(self, data: bytes) -> None:
        """Gather what one read brought."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """Note that the answer is whole; it is told after its last bytes."""
        if not self._in_head:
            self._is_whole = True
            self._in_head = True

    def _pass_body(self) -> None:
        if not self._parts:
            return
        parts, self._parts = self._parts, []
        if self._asker is not None:
            self._asker.answer_body(parts[0] if len(parts) == 1 else b"".join(parts))

    def _finish(self) -> None:
        asker, self._asker = self._asker, None
        if not self._keeps_alive and self._transport is not None:
            self._transport.close()
        if asker is not None:
            asker.answer_complete()

    def _lose(self, reason: str) -> None:
        asker = self._asker
        self.abort()
        if asker is not None:
            asker.answer_lost(reason)


class Upstreams:
    """Opens connections and keeps a bounded number of idle ones for each replica."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_max: int,
        idle_s_max: float,
        connect_s_max: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._loop, self._idle_max, self._idle_s_max, self._connect_s_max = (
            loop,
            idle_max,
            idle_s_max,
            connect_s_max,
        )
        self._tls = tls
        self._keepers: set[Replica] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def reuse(self, replica: Replica) -> UpstreamConnection | None:
        """Return the idle connection that was used last, None when there is none."""
        while replica.idle:
            connection: UpstreamConnection = replica.idle.pop()
            if connection.is_open:
                return connection
        return None

    def keep(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request, or close it when enough are kept."""
        if not connection.is_open:
            return
        if len(connection.replica.idle) >= self._idle_max:
            connection.abort()
            return
        connection.idle_since_s = self._loop.time()
        connection.replica.idle.append(connection)
        self._keepers.add(connection.replica)

    def connect(
        self, replica: Replica, opened: Callable[[UpstreamConnection], None], failed: Callable[[str], None]
    ) -> asyncio.Task[None]:
        """Open a connection in a task; cancel it when it is not wanted any more."""
        task = self._loop.create_task(self._connect(replica, opened, failed))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest_s = self._loop.time() - self._idle_s_max
        for replica in list(self._keepers):
            while replica.idle and (replica.idle[0].idle_since_s < oldest_s or not replica.idle[0].is_open):
                replica.idle.popleft().abort()
            if not replica.idle:
                self._keepers.discard(replica)

    async def aclose(self) -> None:
        """Close every idle connection and every attempt to connect."""
        for replica in self._keepers:
            while replica.idle:
                replica.idle.pop().abort()
        self._keepers.clear()
        tasks = list(self._connecting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(
        self, replica: Replica, opened: Callable[[UpstreamConnection], None], failed: Callable[[str], None]
    ) -> None:
        tls = (self._tls or ssl.create_default_context()) if replica.is_tls else None
        try:
            async with asyncio.timeout(self._connect_s_max):
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(replica), replica.host, replica.port, ssl=tls
                )
        except (OSError, TimeoutError) as error:
            failed(f"cannot connect to {replica.url}: {error or 'timed out'}")
            return
        opened(connection)
