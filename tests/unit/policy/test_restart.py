"""Backoff, breaker and storm over simulated days, from the code that the daemon runs."""

import random
import time
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.policy import backoff, breaker, restart
from skep.policy.breaker import Breaker, BreakerState
from skep.policy.restart import Action, Crash, CrashReason, History
from skep.policy.storm import Storm, is_storm, restarted

DAY_S = 86_400.0
R = CrashReason


NEW, CALM = History(), Storm()


def crash(history: History = NEW, window: Storm = CALM, **facts) -> restart.Outcome:
    return restart.crashed(
        history, window, Crash(**{"reason": R.EXIT_CODE, "ready_s": 0.0, "now_s": 0.0, **facts})
    )


def in_a_row(count: int, *, reason: CrashReason = R.EXIT_CODE, apart_s: float = 100.0) -> restart.Outcome:
    outcome = crash(reason=reason)
    for number in range(1, count):
        outcome = crash(outcome.history, outcome.storm, reason=reason, now_s=number * apart_s)
    return outcome


@pytest.mark.parametrize(
    ("failures", "delay_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10_000, 60)]
)
def test_backoff_doubles_to_a_minute(failures: int, delay_s: float) -> None:
    assert backoff.delay_s(failures, jitter=0) == delay_s
    assert backoff.delay_s(failures, jitter=0, is_device_error=True) == 2 * delay_s


@given(failures=st.integers(0, 10**6), jitter=st.floats(-1, 1), device=st.booleans())
def test_a_delay_is_always_within_its_bounds(failures: int, jitter: float, device: bool) -> None:
    assert 0.5 <= backoff.delay_s(failures, jitter=jitter, is_device_error=device) <= 132


def test_a_replica_that_was_stable_starts_from_the_first_delay_again() -> None:
    worn = in_a_row(4).history
    again = crash(worn, ready_s=299.0, now_s=1000)
    assert again.verdict.failures == 5
    fresh = crash(worn, ready_s=300.0, now_s=1000)
    assert (fresh.verdict.failures, fresh.verdict.delay_s, fresh.verdict.action) == (1, 1.0, Action.RESTART)


def test_the_fifth_failure_in_a_row_opens_the_breaker_for_300_s() -> None:
    assert in_a_row(4).verdict.action is Action.RESTART
    fifth = in_a_row(5)
    assert fifth.verdict.action is Action.HOLD
    assert fifth.verdict.delay_s == 300
    assert "the breaker is open" in fifth.verdict.because
    assert not restart.can_try(fifth.history, now_s=400 + 299.9)
    assert restart.can_try(fifth.history, now_s=400 + 300)


def test_half_open_lets_exactly_one_trial_through() -> None:
    history = restart.tried(in_a_row(5).history)
    assert history.breaker_state is BreakerState.HALF_OPEN
    assert not any(restart.can_try(history, now_s=now_s) for now_s in (700, 1e4, 1e9))


def test_a_failed_trial_doubles_the_time_up_to_its_bound() -> None:
    outcome, now_s = in_a_row(5), 400.0
    waits = []
    for _ in range(8):
        now_s += outcome.verdict.delay_s
        assert restart.can_try(outcome.history, now_s=now_s)
        outcome = crash(restart.tried(outcome.history), outcome.storm, now_s=now_s)
        waits.append(outcome.verdict.delay_s)
    assert waits == [600, 1200, 2400, 4800, 9600, 14400, 14400, 14400]


def test_a_trial_that_is_stable_for_60_s_closes_the_breaker() -> None:
    trial = restart.tried(in_a_row(5).history)
    assert restart.ran(trial, ready_s=59.9).breaker_state is BreakerState.HALF_OPEN
    closed = restart.ran(trial, ready_s=60)
    assert closed.breaker == Breaker()
    assert closed.failures == 5, "the backoff is forgiven later, after 300 s"


def test_device_errors_have_a_breaker_of_their_own() -> None:
    outcome = in_a_row(5, reason=R.DEVICE_ERROR)
    assert outcome.history.device_breaker.state is BreakerState.OPEN
    assert outcome.history.breaker.state is BreakerState.CLOSED
    mixed = in_a_row(4, reason=R.DEVICE_ERROR)
    assert crash(mixed.history, mixed.storm, now_s=500).verdict.action is Action.RESTART


def test_a_trial_for_a_device_error_that_fails_otherwise_waits_again() -> None:
    trial = restart.tried(in_a_row(5, reason=R.DEVICE_ERROR).history)
    outcome = crash(trial, now_s=1000)
    assert outcome.verdict.action is Action.HOLD
    assert outcome.history.device_breaker.open_s == 600


def test_more_than_ten_restarts_in_a_minute_open_the_breaker_at_once() -> None:
    window = Storm()
    for number in range(10):
        window = restarted(window, now_s=number * 5.9)
    assert not is_storm(window, now_s=53.1)
    stormy = crash(window=window, now_s=59.0)
    assert stormy.verdict.is_storm
    assert stormy.verdict.action is Action.HOLD
    assert stormy.history.failures == 1
    calm = crash(window=window, now_s=60.0)
    assert not calm.verdict.is_storm


def test_the_window_slides_and_stays_small() -> None:
    window = Storm()
    for number in range(10_000):
        window = restarted(window, now_s=number * 0.1)
        assert len(window.restarts_s) <= 11
    assert not is_storm(window, now_s=10_000)


def test_repeated_out_of_memory_is_told_apart() -> None:
    assert not in_a_row(2, reason=R.OUT_OF_MEMORY).verdict.is_out_of_memory_repeated
    third = in_a_row(3, reason=R.OUT_OF_MEMORY).verdict
    assert third.is_out_of_memory_repeated
    assert "fewer slots" in third.because
    broken = crash(in_a_row(2, reason=R.OUT_OF_MEMORY).history, reason=R.SIGNAL, now_s=900)
    assert not crash(broken.history, reason=R.OUT_OF_MEMORY, now_s=999).verdict.is_out_of_memory_repeated


def test_a_normal_exit_is_no_crash_but_too_many_are_a_storm() -> None:
    outcome = crash(reason=R.NORMAL_EXIT)
    assert (outcome.verdict.failures, outcome.verdict.action) == (0, Action.RESTART)
    for number in range(1, 11):
        outcome = crash(outcome.history, outcome.storm, reason=R.NORMAL_EXIT, now_s=float(number))
    assert outcome.verdict.is_storm
    assert outcome.verdict.action is Action.HOLD


def test_reset_by_hand_forgives_everything_but_the_count() -> None:
    history = restart.tried(in_a_row(7).history)
    assert restart.reset(history) == History(restarts=1)
    assert restart.can_try(restart.reset(history), now_s=0)


def test_a_verdict_is_a_value_that_can_be_written_down() -> None:
    verdict = in_a_row(5).verdict
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=restart.Verdict) == verdict


def simulate(lives: random.Random, *, days: float, seed: int) -> tuple[list[float], list[restart.Verdict]]:
    """Run one replica on a virtual clock: each life's length is drawn; every start keeps to the verdict before it."""
    jitter, now_s = random.Random(seed), 0.0
    history, window = History(), Storm()
    starts, verdicts = [], []
    while now_s < days * DAY_S:
        assert restart.can_try(history, now_s=now_s), "a start that the breaker forbids"
        history = restart.tried(history)
        starts.append(now_s)
        ready_s = lives.choice([0.0, 0.0, 0.2, 5.0, 70.0, 400.0])
        now_s += 2.0 + ready_s
        reason = lives.choice(
            [R.EXIT_CODE, R.SIGNAL, R.HEALTH, R.DEVICE_ERROR, R.OUT_OF_MEMORY, R.START_TIMEOUT]
        )
        outcome = restart.crashed(
            history,
            window,
            Crash(reason=reason, ready_s=ready_s, now_s=now_s, jitter=jitter.uniform(-1, 1)),
        )
        history, window = outcome.history, outcome.storm
        verdicts.append(outcome.verdict)
        now_s = max(now_s, outcome.verdict.not_before_s)
    return starts, verdicts


@pytest.mark.parametrize("seed", range(5))
def test_simulated_days_stay_bounded_and_take_less_than_a_second(seed: int) -> None:
    began = time.process_time()
    starts, verdicts = simulate(random.Random(seed), days=7, seed=seed)
    assert time.process_time() - began < 1.0
    assert len(starts) > 50
    assert {verdict.action for verdict in verdicts} == set(Action)
    for first, eleventh in zip(starts, starts[11:], strict=False):
        assert eleventh - first >= 60, "a storm went on"


def test_a_replica_that_can_never_work_is_tried_ever_more_rarely() -> None:
    class Dead(random.Random):
        def choice(self, options):
            return options[0]

    starts, _ = simulate(Dead(), days=30, seed=1)
    assert len(starts) < 200
    assert max(b - a for a, b in pairwise(starts)) <= breaker.DEFAULT.open_s_max + 3


def test_the_same_seed_gives_the_same_days() -> None:
    assert simulate(random.Random(3), days=2, seed=9) == simulate(random.Random(3), days=2, seed=9)


def test_every_number_of_the_policy_can_be_set() -> None:
    limits = restart.RestartLimits(breaker=breaker.BreakerLimits(failures_max=1, open_s=7.0))
    outcome = restart.crashed(NEW, CALM, Crash(reason=R.SIGNAL, ready_s=0, now_s=0), limits=limits)
    assert outcome.verdict.delay_s == 7.0
    trial = restart.tried(outcome.history)
    again = restart.crashed(trial, CALM, Crash(reason=R.SIGNAL, ready_s=0, now_s=7), limits=limits)
    assert again.verdict.delay_s == 14.0
