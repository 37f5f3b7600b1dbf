"""Full is said, and never silent; health is answered while others work."""

import asyncio
import time

from skep.testkit.check.clause import clause
from skep.testkit.check.filling import BUSY, filled, long_request
from skep.testkit.check.probe import CHAT, MODELS, Answer, Probe
from skep.testkit.check.verdict import Broken, Severity, require, unobservable

FLOOD = 64
IDLE = 200
HEALTH_S_MAX = 1.0
LOADERS, LOOKS, PAUSE_S = 4, 10, 0.01
SOURCE = "RFC 6585, 4; RFC 9110, 10.2.3"
PRACTICE = "practice: load balancers, Kubernetes probes, slow-loris clients"


@clause(
    "limits.full-is-told",
    "Beyond its queue a server says 429 or 503, with Retry-After",
    source=SOURCE,
    is_chaos=True,
)
async def full_is_told(probe: Probe) -> str:
    """Sixty-four requests at once; each of them is answered, one way or the other."""
    ask = [probe.send("POST", CHAT, long_request(probe, max_tokens=24)) for _ in range(FLOOD)]
    found = await asyncio.gather(*ask, return_exceptions=True)
    answers = [one for one in found if isinstance(one, Answer)]
    for one in found:
        if isinstance(one, Exception):
            raise one
    busy = [one for one in answers if one.status in BUSY]
    odd = [one for one in answers if one.status not in BUSY | {200}]
    require(not odd, f"under load one is answered with {odd and odd[0].status}", odd[0].trace if odd else "")
    for one in busy:
        require("retry-after" in one.headers, f"a {one.status} has no Retry-After", one.trace)
    if not busy:
        unobservable(f"{FLOOD} requests at once were all served")
    return f"{len(busy)} of {FLOOD} were told to come back"


@clause("limits.recovers", "After a flood the next request is served", source=PRACTICE, is_chaos=True)
async def recovers(probe: Probe) -> None:
    """And as it was before."""
    before = (await probe.chat()).json()["choices"][0]["message"]
    ask = [probe.send("POST", CHAT, probe.asking(max_tokens=8)) for _ in range(FLOOD)]
    await asyncio.gather(*ask, return_exceptions=True)
    answer = await probe.chat()
    require(answer.json()["choices"][0]["message"] == before, "the answer is another one", answer.trace)


@clause(
    "limits.health-under-load",
    "Health, or the list of models, is answered within a second under load",
    source=PRACTICE,
)
async def health_under_load(probe: Probe) -> str:
    """While long streams run."""
    path = "/health" if (await probe.send("GET", "/health")).status == 200 else MODELS
    running = asyncio.Event()
    readers = [asyncio.create_task(_load(probe, running)) for _ in range(LOADERS)]
    spent = []
    try:
        async with asyncio.timeout(probe.target.patience_s):
            await running.wait()
        for _ in range(LOOKS):
            began = time.monotonic()
            answer = await probe.send("GET", path)
            spent.append(time.monotonic() - began)
            require(spent[-1] <= HEALTH_S_MAX, f"{path} took {spent[-1]:.2f} s under load", f"> GET {path}")
            require(answer.status in {200, 401}, f"answered with {answer.status}", answer.trace)
            await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        unobservable("no stream began, so there was no load")
    finally:
        for one in readers:
            one.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return f"{path}: at most {max(spent) * 1000:.0f} ms"


@clause("limits.idle-connections", "Many idle connections keep nobody out", source=PRACTICE, is_chaos=True)
async def idle_connections(probe: Probe) -> str:
    """Two hundred, of which half have sent half a request."""
    host, port = probe.address
    writers: list[asyncio.StreamWriter] = []
    try:
        for number in range(IDLE):
            try:
                async with asyncio.timeout(probe.target.patience_s):
                    _, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError) as error:
                raise Broken(f"connection {number + 1} is not taken: {error}") from None
            writers.append(writer)
            if number % 2:
                writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-".encode())
        answer = await probe.chat()
    finally:
        for writer in writers:
            writer.close()
    return f"answered in {answer.spent_s * 1000:.0f} ms beside {IDLE}"


@clause(
    "limits.waiting-is-served",
    "A request that waits for a slot is served when one is free",
    source=PRACTICE,
    severity=Severity.MUST,
)
async def waiting_is_served(probe: Probe) -> str:
    """The server is filled, one more waits or is refused; then the slots are given back."""
    async with filled(probe) as full:
        refused = full.refused
        count = len(full.running)
    answer = await probe.send("POST", CHAT, probe.asking(max_tokens=2))
    require(answer.status == 200, f"afterwards a request is answered with {answer.status}", answer.trace)
    return f"{count} at once, then {'refused' if refused else 'waiting'}"


async def _load(probe: Probe, running: asyncio.Event) -> None:
    """Keep a slot busy; with fewer slots than streams some of them wait, which is load as well."""
    async with probe.streaming(long_request(probe)) as (found, reading):
        async for _ in reading:
            if found.tokens_seen:
                running.set()
