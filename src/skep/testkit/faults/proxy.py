"""A TCP proxy that breaks connections as it is told: for servers that are not ours. Streams (SSE) pass through it too."""

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from skep.testkit.faults.stream import CHUNK_MAX, End, Fault, Path

CONNECTIONS_MAX = 1_000
CONNECT_S_MAX = 10.0
STALL_S_MAX = 600.0
_RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """Listens on loopback and passes bytes on to one server. Faults are of the answers, drawn for each connection.

        async with FaultProxy("127.0.0.1", 8080, [parse_fault("cut-at=100..900")], seed=7) as proxy: ...

    `drawn` tells what each connection met. The first `skip` connections meet nothing.
    """

    def __init__(
        self,
        host: str,
        port: int,
        faults: Sequence[Fault] = (),
        *,
        seed: int = 0,
        listen_port: int = 0,
        skip: int = 0,
    ) -> None:
        self._host, self._port, self.faults = host, port, tuple(faults)
        self._seed, self._listen_port, self._skip = seed, listen_port, skip
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.drawn: list[tuple[str, ...]] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Its address, for an HTTP client."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Self:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._listen_port)
        return self

    async def aclose(self) -> None:
        """Stop listening and end every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._connection(reader, writer)
        finally:
            self._running.discard(task)
            writer.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.drawn)
        faults = [] if number < self._skip else [fault.drawn(self._seed + number) for fault in self.faults]
        self.drawn.append(tuple(str(fault) for fault in faults))
        if any(fault.kind == "refuse" for fault in faults) or len(self._running) > CONNECTIONS_MAX:
            _reset(writer)
            return
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                upstream, to_server = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError):
            _reset(writer)
            return
        asked_first = [fault for fault in faults if fault.kind == "partition"]
        try:
            requests = asyncio.ensure_future(_pump(reader, to_server, Path(asked_first)))
            try:
                await _pump(upstream, writer, Path(faults))
            finally:
                requests.cancel()
                with suppress(asyncio.CancelledError):
                    await requests
        finally:
            to_server.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path) -> None:
    """Pass bytes on until one side ends, or the path does."""
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_MAX):
            for action in path.feed(data):
                if isinstance(action, End):
                    await _end(writer, action.how)
                    return
                if action.after_s:
                    await asyncio.sleep(action.after_s)
                writer.write(action.data)
                await writer.drain()
        writer.write_eof()


async def _end(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "reset":
        _reset(writer)
    elif how == "stall":
        await asyncio.sleep(STALL_S_MAX)
    else:
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport = writer.transport
    transport.abort()
