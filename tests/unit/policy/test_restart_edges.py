"""The very edges of backoff, breaker and storm: a mutation run found that days of simulation step over them."""

import msgspec
import pytest

from skep.policy import backoff, breaker, restart
from skep.policy.backoff import BackoffLimits
from skep.policy.breaker import Breaker, BreakerLimits, BreakerState
from skep.policy.restart import Crash, CrashReason, History
from skep.policy.storm import Storm, is_storm, restarted


@pytest.mark.parametrize(("jitter", "delay_s"), [(1.0, 4.4), (-1.0, 3.6), (0.5, 4.2)])
def test_jitter_stretches_or_shortens_by_its_sign(jitter: float, delay_s: float) -> None:
    assert backoff.delay_s(3, jitter=jitter) == pytest.approx(delay_s)


def test_doubling_stops_before_it_overflows() -> None:
    limits = BackoffLimits(delay_s_max=1e300)
    assert backoff.delay_s(33, jitter=0, limits=limits) == 2.0**32
    assert backoff.delay_s(10**9, jitter=0, limits=limits) == 2.0**32


def test_a_delay_has_a_floor() -> None:
    assert backoff.delay_s(1, jitter=-1, limits=BackoffLimits(first_s=0.1)) == 0.5


def test_a_new_breaker_has_seen_nothing() -> None:
    assert Breaker() == Breaker(state=BreakerState.CLOSED, failures=0, until_s=0.0, open_s=0.0)


def test_a_breaker_that_is_tripped_again_never_opens_sooner() -> None:
    once = breaker.tripped(Breaker(), now_s=100.0)
    assert (once.until_s, once.open_s) == (400.0, 300.0)
    assert breaker.tripped(once, now_s=50.0).until_s == 400.0


def test_a_failed_trial_doubles_from_the_default_where_no_time_is_known() -> None:
    trial = Breaker(state=BreakerState.HALF_OPEN)
    assert breaker.failed(trial, now_s=0.0, limits=BreakerLimits(open_s=10.0)).open_s == 20.0


def test_a_restart_leaves_the_window_when_it_is_exactly_as_old() -> None:
    assert restarted(Storm(restarts_s=(0.0, 0.1)), now_s=60.0).restarts_s == (0.1, 60.0)
    assert not is_storm(Storm(restarts_s=(0.0,) * 11), now_s=60.0)
    assert is_storm(Storm(restarts_s=(0.1,) * 11), now_s=60.0)


def crashed(history: History, reason: CrashReason = CrashReason.OUT_OF_MEMORY, **facts) -> restart.Outcome:
    return restart.crashed(
        history, Storm(), Crash(**{"reason": reason, "ready_s": 0.0, "now_s": 1000.0, **facts})
    )


def test_a_restart_is_due_when_its_delay_is_over() -> None:
    verdict = crashed(History()).verdict
    assert (verdict.delay_s, verdict.not_before_s) == (1.0, 1001.0)


def test_a_stable_time_or_another_crash_ends_a_row_of_running_out_of_memory() -> None:
    worn = History(out_of_memory=2)
    assert crashed(worn).history.out_of_memory == 3
    assert crashed(worn, ready_s=300.0).history.out_of_memory == 1
    assert crashed(worn, CrashReason.SIGNAL).history.out_of_memory == 0
    assert restart.ran(worn, ready_s=300.0) == History()


def test_the_reason_names_the_breaker_that_is_open_and_no_other() -> None:
    held = crashed(History(device_breaker=Breaker(failures=4)), CrashReason.DEVICE_ERROR).verdict
    assert "the device breaker is open" in held.because
    assert "; the breaker is open" not in held.because
    other = crashed(History(breaker=Breaker(failures=4)), CrashReason.SIGNAL).verdict
    assert "; the breaker is open" in other.because
    assert "device breaker" not in other.because


def test_a_verdict_that_is_read_back_without_them_knows_of_no_storm_and_no_shortage() -> None:
    told = msgspec.to_builtins(crashed(History(), CrashReason.SIGNAL).verdict)
    del told["is_storm"], told["is_out_of_memory_repeated"]
    verdict = msgspec.convert(told, restart.Verdict)
    assert (verdict.is_storm, verdict.is_out_of_memory_repeated) == (False, False)
