"""A worker model measured on a real worker, over its OpenAI-compatible endpoint, and how far off it is.

Three sweeps: prompts of growing length alone (what a prompt token costs), growing company (what a step and a sequence
cost), and then a load at random times, which is simulated with the fitted numbers and compared with what happened
(`check.py`). All three are repeated in rounds.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec
import numpy as np

from skep.arena.fleet.check import (
    Calibration,
    Timing,
    check_load,
    check_model,
    median_model,
    speed_spread,
)
from skep.arena.fleet.model import WorkerModel
from skep.arena.fleet.requests import TracedRequest
from skep.errors.arena import DriverUnavailable
from skep.web.client import make_client
from skep.wire.sse import SseParser

FIRST_TOKEN: Final = 5
REPEATS: Final = 5
SHORT_TOKENS: Final = 8
STEP_S_MIN: Final = 1e-6
READY_S_MAX: Final = 60.0
ROUNDS: Final = 3


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A real worker (or a gateway before it). `tokens` bounds the token ids that prompts are made of."""

    url: str
    model: str
    token: str | None = None
    slots: int = 4
    context: int = 512
    tokens: int = 200


class Prober:
    """Sends prompts of exact lengths to a worker and times what comes back."""

    def __init__(self, client: aiohttp.ClientSession, target: Target, seed: int) -> None:
        self._client, self._target = client, target
        self._rng = random.Random(seed)  # noqa: S311 - prompts without meaning

    async def ask(self, prompt_tokens: int, output_tokens: int) -> Timing:
        """Send one request. Raises: DriverUnavailable."""
        low, high = FIRST_TOKEN, max(self._target.tokens, FIRST_TOKEN + 1)
        prompt = [self._rng.randrange(low, high) for _ in range(max(prompt_tokens, 1))]
        body = {
            "model": self._target.model,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "stream": True,
            "temperature": 0,
        }
        started = time.perf_counter()
        first_s, tokens = 0.0, 0
        try:
            async with self._client.post("/v1/completions", json=body) as answer:
                if answer.status != 200:  # noqa: PLR2004 - HTTP's own
                    detail = (await answer.text())[:200]
                    raise DriverUnavailable(f"{self._target.url} answered {answer.status}: {detail}")
                parser = SseParser()
                async for chunk in answer.content.iter_any():
                    for event in parser.feed(chunk):
                        if event.data.startswith("{") and '"text"' in event.data:
                            tokens += 1
                            first_s = first_s or time.perf_counter() - started
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DriverUnavailable(f"{self._target.url} cannot be measured: {error}") from error
        return Timing(first_s, time.perf_counter() - started, tokens)


async def _ready(prober: Prober) -> None:
    """Wait until the worker answers: at most `READY_S_MAX`. Raises: DriverUnavailable."""
    deadline = time.monotonic() + READY_S_MAX
    while True:
        try:
            await prober.ask(8, 8)
        except DriverUnavailable:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(0.25)
        else:
            return


async def _prompts(prober: Prober, context: int) -> tuple[float, float]:
    """Return (seconds before anything, seconds per prompt token), fitted over prompt lengths."""
    lengths = sorted({max(1, context * share // 16) for share in (1, 2, 4, 6, 8, 10, 12)})
    points = []
    for length in lengths:
        found = [await prober.ask(length, 1) for _ in range(REPEATS)]
        points.append((length, float(np.median([timing.first_s for timing in found]))))
    slope, offset = np.polyfit([x for x, _ in points], [y for _, y in points], 1)
    return max(float(offset), 0.0), max(float(slope), 0.0)


async def _together(prober: Prober, company: int, output_tokens: int) -> float:
    """Return the median seconds to the end of so many requests at a time."""
    seconds: list[float] = []
    for _ in range(REPEATS):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(prober.ask(SHORT_TOKENS, output_tokens)) for _ in range(company)]
        seconds += [task.result().done_s for task in tasks]
    return float(np.median(seconds))


async def _company(prober: Prober, slots: int, output_tokens: int) -> tuple[float, float]:
    """Return (seconds per step, seconds per sequence in it), fitted over how many decode at a time.

    A step is the difference between long and short answers, so that it does not matter when tokens are seen.
    """
    points = []
    for company in range(1, slots + 1):
        short_s, long_s = [await _together(prober, company, size) for size in (SHORT_TOKENS, output_tokens)]
        points.append((company, max(long_s - short_s, 0.0) / (output_tokens - SHORT_TOKENS)))
    if slots == 1:
        return max(points[0][1], STEP_S_MIN), 0.0
    slope, offset = np.polyfit([x for x, _ in points], [y for _, y in points], 1)
    return max(float(offset), STEP_S_MIN), max(float(slope), 0.0)


async def _play(prober: Prober, requests: Sequence[TracedRequest]) -> list[Timing]:
    """Send requests at their times, and return their timings."""
    started = time.perf_counter()

    async def one(request: TracedRequest) -> Timing:
        await asyncio.sleep(max(request.at_s - (time.perf_counter() - started), 0))
        return await prober.ask(request.prompt_tokens, request.output_tokens)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(request)) for request in requests]
    return [task.result() for task in tasks]


async def _fit(prober: Prober, target: Target, chunk_tokens: int) -> WorkerModel:
    output_tokens = max(target.context // 4, 2 * SHORT_TOKENS)
    step_s, sequence_s = await _company(prober, target.slots, output_tokens)
    before_s, prompt_token_s = await _prompts(prober, target.context)
    return WorkerModel(
        name=target.model,
        slots=target.slots,
        step_s=step_s,
        sequence_s=sequence_s,
        prompt_token_s=prompt_token_s,
        chunk_tokens=chunk_tokens,
        overhead_s=max(before_s - step_s, 0.0),
        cache_tokens=target.slots * target.context,
    )


async def calibrate(
    target: Target, *, requests: int = 60, rounds: int = ROUNDS, seed: int = 0, chunk_tokens: int = 256
) -> Calibration:
    """Measure a worker that has nothing else to do, fit a model, and check it on a load.

    Each of the rounds fits and then loads anew, so that a slow minute of the machine spoils one round and is seen:
    the model is the median of the fits, its error is told for every round. Raises: DriverUnavailable.
    """
    fitted: list[WorkerModel] = []
    played: list[tuple[list[TracedRequest], list[Timing]]] = []
    async with make_client(target.url, token=target.token, total_s=None, between_bytes_s=60.0) as client:
        prober = Prober(client, target, seed)
        await _ready(prober)
        for number in range(rounds):
            fitted.append(await _fit(prober, target, chunk_tokens))
            load = check_load(target.context, fitted[-1], -(-requests // rounds), seed + number)
            played.append((load, await _play(prober, load)))
    model = median_model(fitted)
    return Calibration(model=model, check=check_model(model, played), speed_spread=speed_spread(fitted))
