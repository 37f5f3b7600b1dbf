import pytest

from skep.errors.testkit import NotYet
from skep.testkit.waiting import expect_soon, expect_throughout, wait_until, when


def counting():
    seen = iter(range(1000))
    return when("the count is 5", lambda: next(seen), lambda count: count == 5)


async def test_it_returns_what_was_seen_when_it_held() -> None:
    assert await expect_soon(counting(), every_s=0) == 5


async def test_a_failure_tells_the_condition_and_what_was_last_seen() -> None:
    with pytest.raises(NotYet, match=r"the pool is ready: not within 0.05 s; last seen: 'loading'"):
        await expect_soon(
            when("the pool is ready", lambda: "loading", lambda state: state == "ready"), within_s=0.05
        )


async def test_conditions_compose() -> None:
    yes, no = when("yes", lambda: True), when("no", lambda: False)
    assert (await (yes & ~no).look()).holds
    assert (await (no | yes).look()).holds
    assert not (await (yes & no).look()).holds
    assert (yes & ~no).name == "yes and not no"


async def test_a_probe_that_raises_is_not_yet() -> None:
    with pytest.raises(NotYet, match="ZeroDivisionError"):
        await expect_soon(when("it works", lambda: 1 / 0), within_s=0.02)


async def test_what_must_stay_is_watched() -> None:
    with pytest.raises(AssertionError, match="no longer"):
        await expect_throughout(~counting(), for_s=5, every_s=0)


def test_it_works_without_async() -> None:
    assert wait_until(counting(), every_s=0) == 5
