"""The wire that makes hosts far in the rollout benchmark: late by what it says, in order, and nothing lost or changed."""

import asyncio
import hashlib
import importlib.util
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from skep.testkit.hosts.netns import NetnsLab, missing

FILE = Path(__file__).parents[2] / "benchmarks/beside/wire.py"
SPEC = importlib.util.spec_from_file_location("skep_benchmark_wire", FILE)
assert SPEC is not None
assert SPEC.loader is not None
wire = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(wire)

ENDS_S_MAX = 20.0
why = missing() or ("" if Path("/dev/net/tun").exists() else "/dev/net/tun is not there")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, socket.socket, socket.socket]]:
    """What is written to the first is read by a lane at the second; the lane writes to the third, and the fourth reads."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    three, four = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (two, three):
        end.setblocking(False)
    four.settimeout(ENDS_S_MAX)
    with one, two, three, four:
        yield one, two, three, four


def lane_of(ends, delay_s: float):
    return wire.Lane(ends[1].fileno(), ends[2].fileno(), delay_s)


def test_frames_come_late_by_the_delay_in_order_and_unchanged(ends) -> None:
    dice, lane = random.Random(3), lane_of(ends, 0.05)
    frames = [dice.randbytes(dice.randrange(1, 1500)) for _ in range(40)]
    began = time.monotonic()
    for frame in frames:
        ends[0].send(frame)
    lane.take()
    left = lane.give()
    assert left is not None
    assert 0 < left <= 0.05
    while (left := lane.give()) is not None:
        time.sleep(left)
    assert time.monotonic() - began >= 0.05
    assert [ends[3].recv(2000) for _ in frames] == frames
    assert lane.lost == 0


def test_a_frame_that_finds_the_wire_full_is_lost_and_counted(ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "UNDER_WAY_BYTES_MAX", 2500)
    lane = lane_of(ends, 0.0)
    for _ in range(3):
        ends[0].send(b"x" * 1000)
    lane.take()
    assert lane.lost == 1
    assert lane.give() is None
    ends[0].send(b"y" * 1000)
    lane.take()
    assert lane.give() is None
    assert lane.lost == 1
    assert b"".join(ends[3].recv(2000) for _ in range(3)) == b"x" * 2000 + b"y" * 1000


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[tuple[NetnsLab, tuple[str, ...]]]:
    """A lab, and what runs a command 40 ms from its hosts."""
    async with NetnsLab(tmp_path / "lab", hosts=1) as lab:
        namespace = f"{lab.bridge}far"
        await made("ip", "netns", "add", namespace)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, FILE, "--namespace", namespace, "--bridge", lab.bridge),
            *("--address", f"{lab.gateway.rpartition('.')[0]}.250/24", "--round-trip-ms", "40"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        try:
            assert await process.stdout.readline() == b"ready\n"
            yield lab, ("ip", "netns", "exec", namespace)
        finally:
            process.stdin.close()
            assert await process.stdout.read() == b"lost 0\n"
            assert await process.wait() == 0
            await made("ip", "netns", "del", namespace)


async def made(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


ASK = """import socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
socket.create_connection((address, port)).close()
began = time.monotonic()
with socket.create_connection((address, port)) as there:
    opened = time.monotonic() - began
    there.sendall(bytes(range(256)) * 8000)
    there.shutdown(socket.SHUT_WR)
    print(opened, there.makefile("rb").read().decode())
"""


@pytest.mark.root
@pytest.mark.skipif(bool(why), reason=why or "can run")
async def test_tcp_meets_the_distance_and_loses_nothing(far: tuple[NetnsLab, tuple[str, ...]]) -> None:
    lab, through = far

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(-1)
        writer.write(hashlib.sha256(data).hexdigest().encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, lab.gateway, 0) as server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(*through, sys.executable, "-c", ASK, lab.gateway, str(port)), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await asyncio.wait_for(process.communicate(), ENDS_S_MAX)
    opened, digest = told.decode().split()
    assert float(opened) >= 0.04
    assert digest == hashlib.sha256(bytes(range(256)) * 8000).hexdigest()
