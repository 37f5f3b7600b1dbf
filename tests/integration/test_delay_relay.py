"""The relay that makes hosts far in the rollout benchmark: late by at least what it says, and otherwise a wire."""

import asyncio
import hashlib
import importlib.util
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks/beside/delay.py"
SPEC = importlib.util.spec_from_file_location("skep_benchmark_delay", FILE)
assert SPEC is not None
assert SPEC.loader is not None
delay = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(delay)

SLACK_S = 0.001  # A timer may fire within its clock's resolution.
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncGenerator[tuple[str, int]]:
    """Yield where `serve` takes connections; at the end every one that came has ended."""
    handlers: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        await serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()
        async with asyncio.timeout(30):
            await asyncio.gather(*handlers)


@asynccontextmanager
async def far(serve: Serve, round_trip_s: float) -> AsyncGenerator[Callable[[], Awaitable[Ends]]]:
    """Yield what opens a connection through the relay to a server that runs `serve`."""
    async with listening(serve) as target:

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await delay.relay(reader, writer, target, round_trip_s)

        async with listening(accept) as near:
            yield lambda: asyncio.open_connection(*near)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def test_each_way_takes_at_least_half_a_round_trip_and_an_opening_one_and_a_half() -> None:
    round_trip_s, loop = 0.06, asyncio.get_running_loop()
    seen_s: list[float] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            seen_s.append(loop.time())
            writer.write(data)
        await closed(writer)

    async with far(echo, round_trip_s) as connect:
        began_s = loop.time()
        reader, writer = await connect()
        for number in range(2):
            sent_s = loop.time()
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert seen_s[number] - sent_s >= round_trip_s / 2 - SLACK_S
            assert loop.time() - seen_s[number] >= round_trip_s / 2 - SLACK_S
        assert seen_s[0] - began_s >= 1.5 * round_trip_s - SLACK_S
        await closed(writer)


async def test_many_connections_at_once_carry_every_byte_in_order_also_after_a_half_close() -> None:
    async def answer_when_all_is_there(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(hashlib.sha256(data).digest() + data[::-1])
        await closed(writer)

    async def one() -> None:
        data = os.urandom(3_000_000)
        reader, writer = await connect()
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        assert answer == hashlib.sha256(data).digest() + data[::-1]
        await closed(writer)

    async with far(answer_when_all_is_there, 0.002) as connect, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one())


async def test_what_is_on_its_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay, "IN_FLIGHT_BYTES_MAX", 1 << 20)
    total = 4 << 20
    reader = asyncio.StreamReader()
    reader.feed_data(b"x" * total)
    reader.feed_eof()
    taking = asyncio.create_task(delay.Line(0.0).take(reader))
    for _ in range(100):  # All is there to be read: only the bound can stop it.
        await asyncio.sleep(0)
    assert not taking.done()
    taking.cancel()
    await asyncio.wait([taking])
    taken = total - len(await reader.read())
    assert 1 << 20 < taken <= (1 << 20) + delay.READ_BYTES


async def test_a_host_that_refuses_ends_the_connection() -> None:
    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None: ...

    async with listening(never) as nobody:
        pass
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ExceptionGroup):
            await delay.relay(reader, writer, nobody, 0.002)
        ended.set()

    async with listening(accept) as near:
        reader, writer = await asyncio.open_connection(*near)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
            await ended.wait()
        await closed(writer)


async def test_as_a_process_it_says_when_it_is_ready_and_listens_where_it_is_told() -> None:
    async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await closed(writer)

    async with listening(hello) as (_, port):
        pair = f"127.77.0.1:{port}=127.0.0.1:{port}"  # The port is ours, at another address.
        argv = (str(FILE), "--round-trip-ms", "2", pair)
        process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            reader, writer = await asyncio.open_connection("127.77.0.1", port)
            assert await reader.read() == b"hello"
            await closed(writer)
        finally:
            process.kill()
            await process.wait()
