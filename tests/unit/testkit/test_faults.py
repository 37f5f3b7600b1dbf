import asyncio
import os
import subprocess
import sys
from pathlib import Path as FilePath

import pytest

from skep.errors import InvalidInput
from skep.testkit.faults import process
from skep.testkit.faults.proxy import FaultProxy
from skep.testkit.faults.stream import End, Path, Send, parse_fault

TEXT = b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"


def passed(path: Path, *chunks: bytes) -> tuple[bytes, str]:
    """What came out, and how it ended."""
    out = b""
    for chunk in chunks:
        for action in path.feed(chunk):
            if isinstance(action, End):
                return out, action.how
            assert isinstance(action, Send)
            out += action.data
    return out, "open"


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(
    ("fault", "how"), [("cut-at=13", "close"), ("reset-at=13", "reset"), ("stall-at=13", "stall")]
)
def test_a_stream_ends_at_its_byte_however_it_is_sliced(size: int, fault: str, how: str) -> None:
    chunks = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    assert passed(Path([parse_fault(fault)]), *chunks) == (TEXT[:13], how)


@pytest.mark.parametrize("fault", ["chop=1", "chop=7", "delay-ms=3", "bandwidth=100"])
def test_slowing_a_stream_changes_none_of_its_bytes(fault: str) -> None:
    actions = Path([parse_fault(fault)]).feed(TEXT)
    assert b"".join(action.data for action in actions if isinstance(action, Send)) == TEXT


def test_the_same_seed_draws_the_same_fault() -> None:
    fault = parse_fault("cut-at=0..1000000")
    assert fault.drawn(7) == fault.drawn(7)
    assert fault.drawn(7) != fault.drawn(8)


@pytest.mark.parametrize("text", ["", "burn", "cut-at", "cut-at=x", "cut-at=9..1", "chop=0"])
def test_what_is_no_fault_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_fault(text)


@pytest.fixture
async def server():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(TEXT)
        await writer.drain()
        writer.close()

    found = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield found.sockets[0].getsockname()[1]
    found.close()
    await found.wait_closed()


async def read_through(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"hello\n")
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def test_the_proxy_cuts_and_lets_the_first_through(server: int) -> None:
    async with FaultProxy("127.0.0.1", server, [parse_fault("cut-at=13")], skip=1) as proxy:
        assert await read_through(proxy.port) == TEXT
        assert await read_through(proxy.port) == TEXT[:13]
        assert proxy.drawn == [(), ("cut-at=13",)]


@pytest.mark.parametrize("fault", ["refuse", "reset-at=5"])
async def test_the_proxy_resets(server: int, fault: str) -> None:
    async with FaultProxy("127.0.0.1", server, [parse_fault(fault)]) as proxy:
        with pytest.raises(ConnectionError):
            await read_through(proxy.port)


@pytest.mark.parametrize("fault", ["partition", "stall-at=5"])
async def test_the_proxy_stalls_and_still_closes_at_once(server: int, fault: str) -> None:
    async with FaultProxy("127.0.0.1", server, [parse_fault(fault)]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.3)
        writer.close()


async def test_a_server_that_is_not_there_is_a_reset(server: int) -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        with pytest.raises(ConnectionError):
            await read_through(proxy.port)


def state_of(pid: int) -> str:
    return FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_hangs_goes_on_and_dies() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    with process.stopped(child.pid):
        while state_of(child.pid) != "T":
            os.sched_yield()
    with process.descriptors_exhausted(child.pid):
        pass
    assert process.choose([child.pid], seed=1) == child.pid
    process.kill(child.pid)
    assert child.wait(10) == -9
    child.stdout.close()
