"""How a server begins and ends; only where `--command` says how to start it."""

import asyncio
import signal

from skep.testkit.check.clause import clause
from skep.testkit.check.filling import TOKENS_BEFORE, long_request, until_tokens
from skep.testkit.check.probe import Probe
from skep.testkit.check.process import ServerProcess
from skep.testkit.check.verdict import require

SOURCE = "practice: process supervisors, Kubernetes probes"
DRAIN_S_MAX = 30.0
ORPHAN_S_MAX = 10.0
LOADS = 3


def _process(probe: Probe) -> ServerProcess:
    assert probe.process is not None, "the runner leaves these out without a process"
    return probe.process


@clause(
    "lifecycle.honest-readiness",
    "Once health says that it is well, the next request is served",
    source=SOURCE,
    needs_process=True,
)
async def honest_readiness(probe: Probe) -> None:
    """Asked at once after a fresh start."""
    process = _process(probe)
    await process.aclose()
    await process.start()
    probe.move(process.url)
    await probe.chat()


@clause(
    "lifecycle.sigterm-drains",
    "After SIGTERM a running stream ends in an end or an error, and the process ends",
    source=SOURCE,
    needs_process=True,
)
async def sigterm_drains(probe: Probe) -> str:
    """Never in a cut that looks like neither."""
    process = _process(probe)
    async with probe.streaming(long_request(probe, max_tokens=64)) as (found, reading):
        require(found.status == 200, f"answered with {found.status}", found.excerpt())
        await until_tokens(found, reading, TOKENS_BEFORE)
        ending = asyncio.create_task(process.signal_and_wait(signal.SIGTERM, within_s=DRAIN_S_MAX))
        async for _ in reading:
            pass
        ended = await ending
    how = "whole" if found.is_whole else "with an in-band error" if found.error else "cut"
    left = await process.gone(within_s=ORPHAN_S_MAX)
    await _again(probe)
    require(ended, f"it still ran {DRAIN_S_MAX:g} s after SIGTERM", process.tail())
    require(how != "cut", "the stream was cut off", found.tail())
    require(not left, f"processes {left} were left", process.tail())
    return f"the stream ended {how}"


@clause(
    "lifecycle.no-orphan",
    "After SIGKILL of its first process nothing of it lives on",
    source=SOURCE,
    needs_process=True,
)
async def no_orphan(probe: Probe) -> None:
    """Within ten seconds."""
    process = _process(probe)
    await probe.chat()
    await process.signal_and_wait(signal.SIGKILL)
    left = await process.gone(within_s=ORPHAN_S_MAX)
    await _again(probe)
    require(not left, f"{len(left)} processes live on: {left}", process.tail())


@clause(
    "lifecycle.restart-alike",
    "A restarted server gives the same greedy answer",
    source=SOURCE,
    needs_process=True,
)
async def restart_alike(probe: Probe) -> str:
    """Three times."""
    texts = []
    for _ in range(LOADS):
        texts.append((await probe.chat()).json()["choices"][0]["message"].get("content"))
        await _again(probe)
    require(len(set(texts)) == 1, f"answers after restarts: {[str(one)[:40] for one in texts]}")
    return f"{LOADS} starts"


async def _again(probe: Probe) -> None:
    process = _process(probe)
    await process.aclose()
    await process.start()
    probe.move(process.url)
