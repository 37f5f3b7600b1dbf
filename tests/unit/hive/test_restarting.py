"""When a replica starts again: after the wait that was decided, at once by a reset, or on trial in its turn."""

import asyncio
import random
import time
from types import SimpleNamespace

import pytest

from skep.hive.crash import Gone
from skep.hive.restarting import Restarting
from skep.lifecycle.replica import ReplicaEvent
from skep.policy import restart
from skep.policy.backoff import BackoffLimits
from skep.policy.breaker import BreakerLimits, BreakerState
from skep.policy.restart import Action, CrashReason, History, RestartLimits
from skep.policy.storm import Storm

HOUR_S = 3600.0
GONE = Gone(reason=CrashReason.SIGNAL, cause={"code": "signal"})


def limits(*, first_s: float = 0.01, open_s: float = 0.01) -> RestartLimits:
    return RestartLimits(
        backoff=BackoffLimits(first_s=first_s, delay_s_min=first_s),
        breaker=BreakerLimits(failures_max=2, open_s=open_s, stable_s=1.0),
    )


class Pool:
    """What a pool gives to each of its replicas: the policy, a lock for trials, an ear."""

    def __init__(self, told: RestartLimits) -> None:
        self.node = SimpleNamespace(
            clock=time.monotonic, rng=random.Random(1), settings=SimpleNamespace(restart=told)
        )
        self.trial = asyncio.Lock()
        self.learned: list[BreakerState] = []

    def replica(self, history: History | None = None) -> Restarting:
        made: list[Restarting] = []

        def judge(fact: restart.Crash) -> restart.Verdict:
            found = restart.crashed(made[0].history, Storm(), fact, limits=self.node.settings.restart)
            made[0].history = found.history
            return found.verdict

        made.append(
            Restarting(
                self.node,
                history or History(),
                trial=self.trial,
                judge=judge,
                learned=lambda: self.learned.append(made[0].history.breaker_state),
            )
        )
        return made[0]


async def failed(replica: Restarting, times: int) -> restart.Verdict:
    """Lose a replica so often, each but the last time waiting as it was told."""
    for _ in range(times - 1):
        await replica.wait_for_the_next(replica.judge(GONE))
    return replica.judge(GONE)


async def test_one_that_failed_starts_again_after_its_backoff() -> None:
    pool = Pool(limits(first_s=0.05))
    replica = pool.replica()
    began = time.monotonic()
    assert await replica.wait_for_the_next(replica.judge(GONE)) is ReplicaEvent.RESTART
    assert time.monotonic() - began >= 0.045
    assert replica.history.restarts == 1
    assert pool.learned == [BreakerState.CLOSED]


async def test_a_reset_ends_the_wait_and_forgives() -> None:
    replica = Pool(limits(open_s=HOUR_S)).replica()
    verdict = await failed(replica, 2)
    assert (verdict.action, replica.verdict) == (Action.HOLD, verdict)
    waiting = asyncio.create_task(replica.wait_for_the_next(verdict))
    await asyncio.sleep(0)
    assert not waiting.done()
    replica.reset()
    assert await waiting is ReplicaEvent.RESET
    assert (replica.history.failures, replica.history.breaker_state) == (0, BreakerState.CLOSED)


async def test_a_reset_of_before_does_not_end_a_wait_that_comes_after_it() -> None:
    replica = Pool(limits(open_s=HOUR_S)).replica()
    replica.reset()
    verdict = await failed(replica, 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await replica.wait_for_the_next(verdict)


@pytest.mark.parametrize("how", ["holds", "is gone"])
async def test_one_trial_follows_when_the_other_is_over(how: str) -> None:
    pool = Pool(limits())
    first, second = pool.replica(), pool.replica()
    assert await first.wait_for_the_next(await failed(first, 2)) is ReplicaEvent.TRIAL
    assert first.history.breaker_state is BreakerState.HALF_OPEN
    other = asyncio.create_task(second.wait_for_the_next(await failed(second, 2)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asyncio.shield(other)
    first.note_stable(0.5)
    assert pool.trial.locked(), "it has not held for its time"
    assert second.history.breaker_state is BreakerState.OPEN, "who waits for the trial is not on it"
    first.note_stable(1.0) if how == "holds" else first.settle_trial()
    assert await other is ReplicaEvent.TRIAL
    told = [BreakerState.CLOSED] if how == "holds" else []
    assert pool.learned[3:] == [*told, BreakerState.HALF_OPEN], "the pool heard of each change"
    second.settle_trial()
    assert not pool.trial.locked()


async def test_a_trial_is_given_back_once() -> None:
    pool = Pool(limits())
    first, second = pool.replica(), pool.replica()
    await first.wait_for_the_next(await failed(first, 2))
    first.settle_trial()
    await second.wait_for_the_next(await failed(second, 2))
    first.settle_trial()
    assert pool.trial.locked(), "it is the second's"
    second.settle_trial()


@pytest.mark.parametrize("opened", [True, False])
async def test_the_first_start_is_on_trial_when_an_earlier_hive_left_the_breaker_open(opened: bool) -> None:
    pool = Pool(limits(open_s=0.05))
    before = pool.replica()
    if opened:
        await failed(before, 2)
    replica = pool.replica(before.history)
    await replica.wait_for_the_first()
    assert time.monotonic() >= restart.due_s(before.history)
    assert pool.trial.locked() is opened
    assert replica.history.breaker_state is (BreakerState.HALF_OPEN if opened else BreakerState.CLOSED)
    replica.settle_trial()
