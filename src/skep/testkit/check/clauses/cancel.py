"""Whoever goes away gives back what he held, and harms nobody."""

import asyncio
from contextlib import AsyncExitStack

from skep.testkit.check.clause import clause
from skep.testkit.check.filling import (
    LONG_TOKENS,
    TOKENS_BEFORE,
    filled,
    long_request,
    time_to_first_token,
    until_tokens,
)
from skep.testkit.check.probe import LONG_PROMPT, Probe
from skep.testkit.check.verdict import Broken, require, unobservable

SOURCE = "practice (llama.cpp #24496, ik_llama #1929, vLLM production-stack #634)"
NEIGHBOUR_TOKENS = 48


@clause("cancel.frees-slot", "A closed stream frees its slot, as a second request sees it", source=SOURCE)
async def frees_slot(probe: Probe) -> str:
    """The server is filled until one more has to wait; when all are closed, a new one must not."""
    async with filled(probe) as full:
        count, limit_s = len(full.running), full.limit_s
        left_s = (LONG_TOKENS - full.running[-1][0].tokens_seen) / max(full.rate(), 1e-3)
    if left_s < 2 * limit_s:
        unobservable(f"the closed streams would have ended by themselves within {left_s:.1f} s")
    try:
        spent_s = await time_to_first_token(probe, within_s=limit_s)
    except TimeoutError:
        raise Broken(
            f"{count} streams were closed after {TOKENS_BEFORE} tokens; {limit_s:.1f} s later a short request still waits",
            f"an idle server takes {full.alone_s * 1000:.0f} ms to the first token",
        ) from None
    return f"{count} streams closed; the next first token came after {spent_s * 1000:.0f} ms"


@clause("cancel.neighbours", "Closing one stream does not change or end another", source=SOURCE)
async def neighbours(probe: Probe) -> None:
    """Two run side by side; one is closed; the other says what it says alone."""
    body = probe.asking(LONG_PROMPT, max_tokens=NEIGHBOUR_TOKENS)
    alone = (await probe.stream(body)).text()
    async with AsyncExitStack() as stack:
        staying, reading = await stack.enter_async_context(probe.streaming(body))
        async with probe.streaming(long_request(probe)) as (leaving, reading_on):
            await until_tokens(leaving, reading_on, TOKENS_BEFORE)
        async for _ in reading:
            pass
    require(staying.is_whole, "the neighbour's stream is not whole", staying.tail())
    if staying.text() != alone and (await probe.stream(body)).text() != alone:
        unobservable("the server does not answer the same greedy request alike")
    require(staying.text() == alone, f"alone {alone[:60]!r}, then {staying.text()[:60]!r}", staying.tail())


@clause(
    "cancel.queued", "Closing a request that waits harms none that runs, and the queue goes on", source=SOURCE
)
async def queued(probe: Probe) -> str:
    """The server is filled; one that has to wait is closed; the running ones go on."""
    async with filled(probe) as full:
        if not full.waiting:
            unobservable("the server refuses what it cannot run at once: nothing waits")
        seen = [found.tokens_seen for found, _ in full.running]
        task = asyncio.create_task(probe.stream(probe.asking(max_tokens=2)))
        await asyncio.sleep(full.limit_s / 4)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for (found, reading), before in zip(full.running, seen, strict=True):
            await until_tokens(found, reading, before + TOKENS_BEFORE)
            went_on = found.tokens_seen >= before + TOKENS_BEFORE or found.is_whole
            require(went_on, "a running stream stopped when a waiting request was closed", found.tail())
        count, limit_s = len(full.running), full.limit_s
    try:
        await time_to_first_token(probe, within_s=max(limit_s, probe.target.patience_s))
    except TimeoutError:
        raise Broken("after a waiting request was closed, the next one is never served", "") from None
    return f"{count} running"
