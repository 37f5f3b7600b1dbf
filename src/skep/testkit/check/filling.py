"""Filling a server whose capacity is not known: streams are opened until one has to wait."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from skep.testkit.check.probe import LONG_PROMPT, Probe
from skep.testkit.check.transcript import Transcript
from skep.testkit.check.verdict import require, unobservable

LONG_TOKENS = 4000
WAIT_FACTOR = 6.0
WAIT_S_MIN = 1.5
TOKENS_BEFORE = 3
BUSY = frozenset({429, 503})


@dataclass
class Filled:
    """A full server: `running` streams that produce, and how long an idle one takes to its first token."""

    alone_s: float
    running: list[tuple[Transcript, AsyncGenerator[Transcript]]] = field(default_factory=list)
    waiting: bool = False
    refused: int = 0

    @property
    def limit_s(self) -> float:
        """How long a first token may take when a slot is free."""
        return max(self.alone_s * WAIT_FACTOR, WAIT_S_MIN)

    def rate(self) -> float:
        """Return how many tokens a second the slowest stream makes."""
        rates = []
        for found, _ in self.running:
            first, last = found.events[0].at_s or 0.0, found.events[-1].at_s or 0.0
            rates.append(found.tokens_seen / max(last - first, 1e-3))
        return min(rates, default=0.0)


def long_request(probe: Probe, **fields: Any) -> dict[str, Any]:
    """Return a request that goes on for long, where the server lets it: `ignore_eos` is an extension that many know."""
    limits = {"max_tokens": LONG_TOKENS, "ignore_eos": True, **fields}
    return probe.asking(LONG_PROMPT, **limits)


async def time_to_first_token(probe: Probe, *, within_s: float | None = None) -> float:
    """Return how long a short request waits for its first token; it is closed then."""
    began = time.monotonic()
    async with asyncio.timeout(within_s), probe.streaming(probe.asking(max_tokens=2)) as (found, reading):
        require(found.status == 200, f"answered with {found.status}", found.excerpt())
        async for _ in reading:
            if found.tokens_seen or any(found.finishes.values()):
                break
    return time.monotonic() - began


async def until_tokens(found: Transcript, reading: AsyncGenerator[Transcript], count: int) -> None:
    """Read until a stream has so many pieces of text, or ends."""
    while found.tokens_seen < count:
        if await anext(reading, None) is None:
            return


@asynccontextmanager
async def filled(probe: Probe) -> AsyncGenerator[Filled]:
    """Open long streams until one more has to wait or is refused; they are closed at the end.

    Raises: NotObservable when the server takes all of `slots_max`, or does not answer at length.
    """
    body = long_request(probe)
    state = Filled(alone_s=await time_to_first_token(probe))
    async with AsyncExitStack() as stack:
        for _ in range(probe.target.slots_max):
            pulled = await _one_more(probe, body, state, stack)
            if not pulled:
                break
        else:
            unobservable(
                f"none of {probe.target.slots_max} streams had to wait: there are more slots (raise --slots-max), "
                "or they end too soon"
            )
        if not state.running:
            unobservable("not one long stream could be opened")
        yield state


async def _one_more(probe: Probe, body: dict[str, Any], state: Filled, stack: AsyncExitStack) -> bool:
    """Open one stream; False when it has to wait or is refused."""
    try:
        # The first one has the server to itself, so nothing but its own slowness can keep it waiting.
        async with asyncio.timeout(state.limit_s if state.running else probe.target.patience_s):
            found, reading = await stack.enter_async_context(probe.streaming(body))
            if found.status in BUSY:
                state.refused += 1
                return False
            require(found.status == 200, f"a long request is answered with {found.status}", found.excerpt())
            await until_tokens(found, reading, TOKENS_BEFORE)
    except TimeoutError:
        state.waiting = True
        return False
    if any(found.finishes.values()):
        unobservable(f"the model ends by itself after {found.tokens_seen} tokens, so nothing stays busy")
    state.running.append((found, reading))
    return True
