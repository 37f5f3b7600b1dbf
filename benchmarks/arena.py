"""The arena's speed: steps, environments, episodes, a million events. Prints a table; wall and CPU seconds apart.

CPU seconds are this process's own, so they say what the code costs where other programs share the machine.
`python benchmarks/arena.py [--events 1000000]`
"""

import argparse
import filecmp
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.gym import ArenaEnv
from skep.arena.records import Records
from skep.arena.runner import StepOptions, one_step
from skep.arena.trace.generate import WorkloadPlan, random_events, trace_of, tracked_config
from skep.arena.trace.stream import write_stream
from skep.arena.vector import ArenaVectorEnv

STEPS = 2000


def measured(name: str, unit: str, target: str, run: Callable[[], int]) -> None:
    """Run, and print how many units a second of wall time and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"| {name} | {count / wall:,.0f} {unit}/s | {count / cpu:,.0f} {unit}/CPU-s | {target} |", flush=True
    )


def steps(folder: Path, policy: str, *, is_saved: bool) -> int:
    """Run steps on the demonstration trace, as `skep arena episode` does: records, summary, saved traces."""
    path = folder / "demo.msgpack"
    path.write_bytes(trace_of([WorkloadPlan(cpu="1500m")]).to_bytes())
    options = StepOptions(workspace=folder, is_trace_saved=is_saved)
    with EmbeddedDriver() as driver, Records(folder / "runs") as records:
        for seed in range(STEPS):
            one_step(
                path,
                "default",
                "web",
                3,
                60.0,
                policy,
                seed=seed,
                driver=driver,
                options=options,
                records=records,
            )
    return STEPS


def single_env() -> int:
    """Step one gymnasium environment at random."""
    env, rng, count = ArenaEnv(), np.random.default_rng(0), 5000
    env.reset(seed=0)
    for action in rng.integers(len(env.actions), size=count):
        _, _, goal, over, _ = env.step(action)
        if goal or over:
            env.reset()
    return count


def vector_rounds(env: ArenaVectorEnv, rounds: int) -> int:
    """Step a vector environment at random; the same actions every time."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(rounds):
        env.step(rng.integers(len(env.actions), size=env.num_envs))
    return rounds * env.num_envs


STREAM_PROGRAM = """
import sys
from pathlib import Path
from skep.arena.trace.stream import check_stream, rewrite
def peak():
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
source = Path(sys.argv[1])
if sys.argv[2] == "check":
    check_stream(source)
else:
    rewrite(source, source.with_suffix(".copy"), lambda position, raw: None)
print(before, peak())
"""


def large(folder: Path, events: int) -> None:
    """Write, check and rewrite a large trace; print the growth of the resident memory of a fresh process."""
    path = folder / "large.msgpack"

    def write() -> int:
        write_stream(path, random_events(events, seed=0), events, config=tracked_config())
        return events

    measured(f"write {events:,} events", "events", "", write)
    size = path.stat().st_size
    for verb in ("check", "rewrite"):
        began = time.perf_counter()
        told = subprocess.run(
            [sys.executable, "-c", STREAM_PROGRAM, str(path), verb],
            capture_output=True,
            text=True,
            check=True,
        )
        before, after = map(int, told.stdout.split())
        rate = events / (time.perf_counter() - began)
        memory = f"{after >> 10} MiB at most, {(after - before) >> 10} of it for this"
        print(
            f"| {verb} {events:,} events ({size >> 20} MiB) | {rate:,.0f} events/s | {memory} | bounded |",
            flush=True,
        )
    if not filecmp.cmp(path, path.with_suffix(".copy"), shallow=False):
        sys.exit("the rewritten trace is not the same")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    events = parser.parse_args().events
    print("| what | wall | CPU or memory | target |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as name:
        folder = Path(name)
        measured(
            "one_step, all files (simple)", "steps", "1,000", lambda: steps(folder, "simple", is_saved=True)
        )
        measured(
            "one_step, all files (heuristic)",
            "steps",
            "1,000",
            lambda: steps(folder, "heuristic", is_saved=True),
        )
        measured(
            "one_step, next trace not saved", "steps", "", lambda: steps(folder, "simple", is_saved=False)
        )
        measured("gymnasium environment, from nothing", "steps", "", single_env)
        for processes in (1, 2):
            env = ArenaVectorEnv(256, processes=processes)
            env.reset(seed=1)
            # The processes have started, on variants of which the measured run has next to none.
            env.step(np.full(256, env.actions.index("scale_up_replicas")))
            what = f"vector environment, {processes} process{'es' if processes > 1 else ''}"
            measured(f"{what}, from nothing", "steps", "20,000", partial(vector_rounds, env, 200))
            measured(f"{what}, states seen before", "steps", "", partial(vector_rounds, env, 200))
            env.close()
        large(folder, events)


if __name__ == "__main__":
    main()
