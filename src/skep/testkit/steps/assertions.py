"""What several steps hold, in one place. Each raises AssertionError that tells what was seen."""

from typing import Any

from skep.testkit.fleet.ask import Response
from skep.testkit.world import World


def assert_status(response: Response | None, expected: int) -> Response:
    """Hold that the last answer has this status."""
    assert response is not None, "nothing was asked yet"
    assert response.status == expected, f"answered {response.status}, not {expected}: {response.text[:600]}"
    return response


def assert_error(response: Response | None, code: str) -> dict[str, Any]:
    """Hold that the last answer is an error object with this code, a message, and whether to try again."""
    assert response is not None, "nothing was asked yet"
    error = response.error
    assert error.get("code") == code, f"error code {error.get('code')!r}, not {code!r}: {response.text[:600]}"
    assert error.get("message"), "the error says nothing"
    assert isinstance(error.get("retryable"), bool), "the error does not say whether to try again"
    return error


def assert_passed_through(world: World, pool_id: str, state: str) -> None:
    """Hold that a pool is in a state, or was since the latest action: states can be too short to be looked at."""
    present = world.pool(pool_id)["state"]
    seen = world.states(pool_id)
    assert state in (present, *seen), f"{pool_id} is {present!r}, went through {seen}, never {state!r}"


def assert_cause(error: dict[str, Any] | None, code: str) -> None:
    """Hold that an error of the status is there, with this code."""
    assert error, "no error is told"
    assert error["code"] == code, f"the cause is {error}, not {code!r}"


def assert_gone(world: World, pid: int) -> None:
    """Hold that a process ends soon, and is reaped."""
    world.lab.until(lambda: pid not in world.lab.worker_pids(), what=f"process {pid} is gone", within_s=20)
    assert pid not in world.lab.worker_pids()
