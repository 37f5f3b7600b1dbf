"""Simulations shared between processes: the same facts, wherever they were computed, and no process left behind."""

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skep.arena.actions import BUILT_IN
from skep.arena.outlooks import Lookers, LookPlan
from skep.arena.safeguards import Safeguards
from skep.arena.scenarios import select_scenarios
from skep.arena.trace.trace import Trace
from skep.arena.train import TrainOptions, train_policy
from skep.arena.vector import ArenaVectorEnv
from skep.errors import Unavailable
from skep.errors.arena import ObservationFailed
from skep.process.identity import read_stat

SCENARIOS = select_scenarios("cpu-slightly-over,sidecars-over")
PLAN = LookPlan(scenarios=SCENARIOS, reward="shaped", safeguards=Safeguards(), cluster_seed=0)


def roots(count: int) -> list[tuple[int, Trace]]:
    return [(number % 2, SCENARIOS[number % 2].trace) for number in range(count)]


@pytest.fixture
def two() -> Iterator[Lookers]:
    lookers = Lookers(PLAN, 2)
    yield lookers
    lookers.close()
    assert not multiprocessing.active_children()


def rollout(processes: int) -> list[Any]:
    env = ArenaVectorEnv(16, "training", processes=processes)
    rng = np.random.default_rng(1)
    seen: list[Any] = [env.reset(seed=1)[0].tolist()]
    for _ in range(12):
        batch, rewards, goals, bounds, _ = env.step(rng.integers(len(BUILT_IN), size=16))
        seen.append((batch.tolist(), rewards.tolist(), goals.tolist(), bounds.tolist()))
    seen.append(env.masks().tolist())
    env.close()
    return seen


def test_two_processes_see_what_one_sees() -> None:
    assert rollout(2) == rollout(1)
    assert not multiprocessing.active_children()


def test_outlooks_come_in_the_order_of_the_batch(two: Lookers) -> None:
    alone = Lookers(PLAN).look(roots(5))
    assert two.look(roots(5)) == alone
    assert two.look(roots(1)) == alone[:1]
    assert two.look([]) == []


def test_an_error_of_another_process_is_raised_here_and_the_next_batch_is_whole(two: Lookers) -> None:
    empty = SCENARIOS[0].trace.with_raw(())
    for at in (0, 1):
        batch = roots(4)
        batch[at] = (batch[at][0], empty)
        with pytest.raises(ObservationFailed):
            two.look(batch)
    assert two.look(roots(4)) == Lookers(PLAN).look(roots(4))


def test_a_process_that_was_killed_is_told_and_replaced(two: Lookers) -> None:
    two.look(roots(2))
    (child,) = multiprocessing.active_children()
    child.kill()
    child.join(5)
    with pytest.raises(Unavailable, match="was lost"):
        two.look(roots(2))
    assert len(two.look(roots(2))) == 2


KILLED = """
import multiprocessing, os, signal
import numpy as np
from skep.arena.vector import ArenaVectorEnv
if __name__ == "__main__":
    env = ArenaVectorEnv(4, processes=2)
    env.reset(seed=0)
    env.step(np.full(4, 1))
    (child,) = multiprocessing.active_children()
    print(child.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.nested
def test_a_killed_program_leaves_no_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    argv = [sys.executable, str(program)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    pause = threading.Event()
    for _ in range(500):
        stat = read_stat(int(done.stdout))
        if stat is None or stat.is_dead:
            return
        pause.wait(0.02)
    pytest.fail("the simulating process outlives its program")


def test_training_on_two_processes_leaves_the_bytes_of_one(tmp_path: Path) -> None:
    options = TrainOptions(scenarios="cpu-slightly-over", steps=640, environments=16, seed=1)
    for processes in (1, 2):
        train_policy(options, tmp_path / f"{processes}.npz", processes=processes)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_no_process_is_none() -> None:
    with pytest.raises(ValueError, match="processes"):
        ArenaVectorEnv(2, processes=0)
