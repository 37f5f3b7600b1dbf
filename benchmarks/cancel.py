"""How soon a cancelled job's slot is free, in every phase of its life, in the engine alone.

    .venv/bin/python benchmarks/cancel.py [--model FILE] [--rounds N]

Prints Markdown, for docs/performance.md. The time runs from `cancel()` until the reader has the terminal event, which
is put after the slot was freed.
"""

import argparse
import asyncio
import random
import statistics
import time
from pathlib import Path

from skep.runtime.backend import LoadOptions, SessionOptions
from skep.runtime.engine import Engine
from skep.runtime.job import Job
from skep.runtime.models import TINY
from skep.runtime.open import open_backend
from skep.runtime.options import EngineOptions
from skep.runtime.request import GenerationRequest
from skep.runtime.sampling import SamplingParams

SLOTS, CONTEXT, PROMPT_TOKENS, MAX_TOKENS = 4, 4400, 4000, 300
PHASES = ("queued", "prefill", "first token", "mid-decode", "last token")


async def reach(engine: Engine, job: Job, phase: str) -> None:
    """Wait until the job is where it is to be cancelled."""
    tokens = {"first token": 1, "mid-decode": MAX_TOKENS // 2, "last token": MAX_TOKENS - 1}.get(phase, 0)
    while job.tokens_out < tokens and not job.is_over:  # noqa: ASYNC110 - polled, so that nothing is in the way
        await asyncio.sleep(0)
    if phase == "prefill":
        while not engine.stats().running:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        await asyncio.sleep(random.uniform(0.0, 0.05))


async def cancelled_ms(engine: Engine, phase: str, number: int) -> float:
    count = PROMPT_TOKENS if phase == "prefill" else 40
    prompt = tuple(random.randrange(5, 400) for _ in range(count))
    job = engine.submit(
        GenerationRequest(
            job_id=f"{phase} {number}",
            prompt=prompt,
            max_tokens=MAX_TOKENS,
            sampling=SamplingParams(temperature=0.0, seed=1),
            ignore_end=True,
        )
    )
    await reach(engine, job, phase)
    begun = time.perf_counter()
    job.cancel()
    while await job.next_events():
        pass
    return (time.perf_counter() - begun) * 1e3


async def main(args: argparse.Namespace) -> None:
    model = open_backend("llama").load(Path(args.model), LoadOptions())
    print("| cancelled | rows a batch | median ms | longest ms |\n| --- | --- | --- | --- |")
    for rows in (512, 4096):
        session = SessionOptions(
            sequences=SLOTS, context=CONTEXT, batch_rows_max=rows, threads=1, threads_batch=1
        )
        async with Engine(model, EngineOptions(session=session, events_max=1024)) as engine:
            for phase in PHASES:
                times = [await cancelled_ms(engine, phase, number) for number in range(args.rounds)]
                print(f"| {phase} | {rows} | {statistics.median(times):.2f} | {max(times):.1f} |")
            if not engine.check_integrity() or engine.stats().slots_free != SLOTS:
                raise SystemExit("a cancel left something behind")
    model.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--rounds", type=int, default=30)
    asyncio.run(main(parser.parse_args()))
