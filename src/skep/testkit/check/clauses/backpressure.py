"""A reader that stalls is its own trouble."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import psutil

from skep.testkit.check.clause import clause
from skep.testkit.check.filling import WAIT_FACTOR, long_request, time_to_first_token
from skep.testkit.check.probe import CHAT, Probe
from skep.testkit.check.verdict import Broken, NotObservable, require, unobservable

SOURCE = "RFC 9293, 3.8.6 (flow control)"
RECEIVE_BYTES = 4096
STALL_S = 2.0
GROWTH_BYTES_MAX = 64 << 20


@asynccontextmanager
async def stalled(probe: Probe, count: int) -> AsyncGenerator[None]:
    """Hold so many long streams whose reader never reads, with the smallest receive buffer there is."""
    if probe.target.url.startswith("https"):
        raise NotObservable("a stalled reader is made on plain TCP only")
    host, port = probe.address
    body = msgspec.json.encode(long_request(probe) | {"stream": True})
    key = f"authorization: Bearer {probe.target.api_key}\r\n" if probe.target.api_key else ""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\n{key}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    readers: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(count):
            reader = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            readers.append(reader)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            reader.setblocking(False)  # noqa: FBT003 - the standard library's signature
            try:
                async with asyncio.timeout(probe.target.patience_s):
                    await loop.sock_connect(reader, (host, port))
                    await loop.sock_sendall(reader, head.encode() + body)
            except (OSError, TimeoutError) as error:
                raise Broken(f"a reader cannot connect: {error}", f"> POST {CHAT}") from None
        yield
    finally:
        for reader in readers:
            reader.close()


@clause("backpressure.others-flow", "A stalled reader slows nobody else", source=SOURCE)
async def others_flow(probe: Probe) -> str:
    """One stream is opened and never read; others come as fast as before."""
    alone_s = await time_to_first_token(probe)
    before = await _gap_s(probe)
    async with stalled(probe, 1):
        await asyncio.sleep(STALL_S / 4)
        limit_s = max(alone_s * WAIT_FACTOR, STALL_S)
        try:
            async with asyncio.timeout(limit_s * 2):
                first_s = await time_to_first_token(probe, within_s=limit_s)
                after = await _gap_s(probe)
        except TimeoutError:
            raise Broken(
                f"beside one stalled reader a request waits longer than {limit_s:.1f} s",
                "> one stream is not read",
            ) from None
    allowed = max(before * WAIT_FACTOR, 0.25)
    require(after <= allowed, f"between tokens {before * 1000:.0f} ms became {after * 1000:.0f} ms")
    return f"first token {first_s * 1000:.0f} ms (alone {alone_s * 1000:.0f} ms)"


@clause(
    "backpressure.memory",
    "A stalled reader does not grow the server's memory",
    source=SOURCE,
    needs_process=True,
)
async def memory(probe: Probe) -> str:
    """Seen only where the process is ours."""
    assert probe.process is not None
    await probe.chat()
    before = probe.process.rss_bytes()
    async with stalled(probe, 1):
        await asyncio.sleep(STALL_S)
        try:
            grown = probe.process.rss_bytes() - before
        except psutil.Error:
            unobservable("the process cannot be looked at")
    require(grown < GROWTH_BYTES_MAX, f"{grown >> 20} MiB more after {STALL_S:g} s")
    return f"{grown >> 10} KiB more"


async def _gap_s(probe: Probe) -> float:
    """Return the longest pause between two reads of one short stream."""
    last, longest = time.monotonic(), 0.0
    async with probe.streaming(probe.asking(max_tokens=12)) as (_, reading):
        async for found in reading:
            now = time.monotonic()
            if found.tokens_seen > 1:
                longest = max(longest, now - last)
            last = now
    return longest
