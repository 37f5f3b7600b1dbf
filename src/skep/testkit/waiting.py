"""Waiting for what should become true, never for time to pass.

    pool = when("pool-0 is ready", lambda: hive.pool("pool-0"), lambda pool: pool["state"] == "ready")
    wait_until(pool & handoff_exists, within_s=10)

A failure tells what was waited for, how long, and the last values that were seen.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from skep.errors import InvalidInput
from skep.errors.testkit import NotYet

EVERY_S = 0.02
WITHIN_S = 10.0
PATIENCE = "SKEP_TESTKIT_PATIENCE"
"""The variable that stretches every deadline of the kit: 3 on a slow machine, 0.4 where failures are expected."""


def patient_s(seconds: float) -> float:
    """Return a deadline as this machine needs it. Raises: InvalidInput when the variable is no positive number."""
    told = os.environ.get(PATIENCE, "1")
    try:
        factor = float(told)
    except ValueError:
        factor = 0.0
    if not factor > 0:
        raise InvalidInput(f"{PATIENCE} is {told!r}, not a positive number", value=told)
    return seconds * factor


@dataclass(frozen=True)
class Seen:
    """One look: whether it held, and what was seen."""

    holds: bool
    value: Any


class Condition:
    """Something that can be looked at again and again; `&`, `|` and `~` compose."""

    def __init__(self, name: str, look: Callable[[], Seen | Awaitable[Seen]]) -> None:
        self.name = name
        self._look = look

    async def look(self) -> Seen:
        """Look once. An exception of the probe counts as not yet, and is what was seen."""
        try:
            found = self._look()
            return await found if inspect.isawaitable(found) else found
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # noqa: BLE001 - a probe of something that is coming up fails until it is up
            return Seen(holds=False, value=error)

    def __and__(self, other: "Condition") -> "Condition":
        async def both() -> Seen:
            one, two = await self.look(), await other.look()
            return Seen(one.holds and two.holds, (one.value, two.value))

        return Condition(f"{self.name} and {other.name}", both)

    def __or__(self, other: "Condition") -> "Condition":
        async def either() -> Seen:
            one = await self.look()
            return one if one.holds else await other.look()

        return Condition(f"{self.name} or {other.name}", either)

    def __invert__(self) -> "Condition":
        async def opposite() -> Seen:
            found = await self.look()
            return Seen(not found.holds, found.value)

        return Condition(f"not {self.name}", opposite)


def when(name: str, probe: Callable[[], Any], holds: Callable[[Any], Any] = bool) -> Condition:
    """Make a condition of a probe (sync or async) and a predicate over what it returns."""

    async def look() -> Seen:
        value = probe()
        if inspect.isawaitable(value):
            value = await value
        return Seen(bool(holds(value)), value)

    return Condition(name, look)


async def expect_soon(condition: Condition, *, within_s: float = WITHIN_S, every_s: float = EVERY_S) -> Any:
    """Wait until it holds and return what was seen. Raises: NotYet."""
    within_s = patient_s(within_s)
    began = time.monotonic()
    while True:
        seen = await condition.look()
        if seen.holds:
            return seen.value
        if time.monotonic() - began >= within_s:
            raise NotYet(
                f"{condition.name}: not within {within_s:g} s; last seen: {_shown(seen.value)}",
                condition=condition.name,
                last=seen.value,
                seconds=within_s,
            )
        await asyncio.sleep(every_s)


async def expect_throughout(condition: Condition, *, for_s: float, every_s: float = EVERY_S) -> None:
    """Hold that it stays true for a time. Raises: AssertionError."""
    began = time.monotonic()
    while time.monotonic() - began < for_s:
        seen = await condition.look()
        after_s = time.monotonic() - began
        assert seen.holds, f"{condition.name}: no longer after {after_s:.2f} s; seen: {_shown(seen.value)}"
        await asyncio.sleep(every_s)


def wait_until(condition: Condition, *, within_s: float = WITHIN_S, every_s: float = EVERY_S) -> Any:
    """The same for code that is not async. Raises: NotYet."""
    return asyncio.run(expect_soon(condition, within_s=within_s, every_s=every_s))


def _shown(value: Any, limit: int = 600) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
