"""How far the fleet's worker model is off, on workers that this program starts. Prints a table.

Run it on a machine that has nothing else to do: `python benchmarks/arena_calibrate.py [--rounds 5] [--requests 150]`
"""

import argparse
import asyncio

from skep.arena.fleet.calibrate import Target, calibrate
from skep.arena.fleet.check import Calibration
from skep.testkit.harness.worker import WorkerHarness

SLOTS, CONTEXT = 4, 512
FAKE = "fake:steady?token_delay_ms=5"


async def measured(model: str, rounds: int, requests: int, *more: str) -> Calibration:
    """Start a worker, calibrate on it, stop it."""
    async with await WorkerHarness.start(model, slots=SLOTS, context=CONTEXT, extra=more) as worker:
        async with worker.client.get("/v1/models") as answer:
            served = (await answer.json())["data"][0]["id"]
        target = Target(url=worker.base_url, model=served, token=worker.token, slots=SLOTS, context=CONTEXT)
        return await calibrate(target, rounds=rounds, requests=requests)


def row(name: str, found: Calibration) -> str:
    """Return a line of the table."""
    cells = [
        f"{error.middle:+.0%} ({error.least:+.0%} to {error.most:+.0%})"
        for error in found.check.errors.values()
    ]
    return f"| {name} | {' | '.join(cells)} | {found.speed_spread:.0%} |"


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=150)
    options = parser.parse_args()
    workers: dict[str, tuple[str, ...]] = {f"fake backend, 5 ms a token, {SLOTS} slots": (FAKE,)}
    try:
        from skep.runtime.models import TINY

        workers[f"tiny model on llama.cpp, one thread, {SLOTS} slots"] = (str(TINY), "--threads", "1")
    except ImportError:
        print("no llama library: the tiny model is left out")
    for number, (name, (model, *more)) in enumerate(workers.items()):
        found = await measured(model, options.rounds, options.requests, *more)
        if not number:
            print(f"| worker | {' | '.join(found.check.errors)} | own speed differed by |")
            print(f"| --- |{' ---: |' * (len(found.check.errors) + 1)}")
        print(row(name, found), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
