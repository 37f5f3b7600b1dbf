"""A relay that makes a local network far: what goes through arrives half a round trip later, in order, at full speed.

A process of its own, so that it can be started between any client and server:

    python benchmarks/beside/delay.py --round-trip-ms 50 127.0.50.1:22=10.0.0.1:22 …

A connection is opened as a far one is: the server hears of it one and a half round trips after the client asked. What
is on its way is bounded by `IN_FLIGHT_BYTES_MAX` for each direction, which is more than any window here.
"""

import argparse
import asyncio
import contextlib
from collections import deque

IN_FLIGHT_BYTES_MAX = 16 << 20
READ_BYTES = 1 << 18


class Line:
    """One direction of a connection."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._on_its_way: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._moved = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Read until the end, and note when each part is due; an empty part is the end."""
        data = b"."
        while data:
            try:
                data = await reader.read(READ_BYTES)
            except ConnectionError:
                data = b""
            self._on_its_way.append((asyncio.get_running_loop().time() + self._delay_s, data))
            self._bytes += len(data)
            self._moved.set()
            while self._bytes > IN_FLIGHT_BYTES_MAX:
                self._moved.clear()
                await self._moved.wait()

    async def give(self, writer: asyncio.StreamWriter) -> None:
        """Write each part when it is due, until the end."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._on_its_way:
                self._moved.clear()
                await self._moved.wait()
            due, data = self._on_its_way.popleft()
            self._bytes -= len(data)
            self._moved.set()
            await asyncio.sleep(max(due - loop.time(), 0))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int], round_trip_s: float
) -> None:
    """Carry one connection, both ways, until both ends are done or one breaks."""
    there, back = Line(round_trip_s / 2), Line(round_trip_s / 2)
    ends = [writer]
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(there.take(reader))
            await asyncio.sleep(1.5 * round_trip_s)
            far_reader, far_writer = await asyncio.open_connection(*target)
            ends.append(far_writer)
            group.create_task(there.give(far_writer))
            group.create_task(back.take(far_reader))
            group.create_task(back.give(writer))
    finally:
        for end in ends:
            end.close()


def address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`."""
    host, _, port = text.rpartition(":")
    return host, int(port)


async def serve(pairs: list[str], round_trip_s: float) -> None:
    """Relay for ever; say so when every address is listened on."""
    servers = []
    for pair in pairs:
        near, _, far = pair.partition("=")

        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int] = address(far)
        ) -> None:
            with contextlib.suppress(ExceptionGroup):  # A connection that broke ends as it would without us.
                await relay(reader, writer, target, round_trip_s)

        servers.append(await asyncio.start_server(accept, *address(near)))
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--round-trip-ms", type=float, default=50.0)
    parser.add_argument("pairs", nargs="+", metavar="NEAR=FAR")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(given.pairs, given.round_trip_ms / 1000))


if __name__ == "__main__":
    main()
