"""How fast the gateway runs: a bounded window of the newest seconds, for people to look at."""

import time
from collections import deque
from collections.abc import Callable

import msgspec

from skep.queen.outcome import Outcome
from skep.queen.request import Request

WINDOW_S = 120
RECENT_S = 10
FIRST_TOKENS_MAX = 512


class Second(msgspec.Struct):
    """One second's counts."""

    at_s: int
    requests: int = 0
    errors: int = 0
    cancels: int = 0
    tokens: int = 0


class RatesView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest seconds: means over `RECENT_S`, and one point a second for a curve, oldest first."""

    requests_per_s: float
    tokens_per_s: float
    errors_per_s: float
    first_token_ms_p50: float | None
    first_token_ms_p99: float | None
    requests: tuple[int, ...]
    tokens: tuple[int, ...]


class Rates:
    """Listens to the gateway."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[Second] = deque(maxlen=WINDOW_S)
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=FIRST_TOKENS_MAX)

    def ended(self, request: Request, outcome: Outcome) -> None:  # noqa: ARG002 - the listener's signature
        """Count a request that has ended."""
        now = self._clock()
        second = self._second(int(now))
        second.requests += 1
        second.tokens += outcome.tokens_out or outcome.events
        second.errors += outcome.kind in ("error", "broken")
        second.cancels += outcome.cancelled
        if outcome.first_token_s is not None:
            self._first_tokens.append((now, outcome.first_token_s - outcome.started_s))

    def view(self) -> RatesView:
        """Return the newest seconds; the one under way is left out."""
        now = self._clock()
        by_second = {one.at_s: one for one in self._seconds}
        points = [by_second.get(at, Second(at)) for at in range(int(now) - WINDOW_S // 2, int(now))]
        recent = points[-RECENT_S:]
        waits = sorted(wait for at, wait in self._first_tokens if now - at <= WINDOW_S / 2)
        return RatesView(
            requests_per_s=sum(one.requests for one in recent) / RECENT_S,
            tokens_per_s=sum(one.tokens for one in recent) / RECENT_S,
            errors_per_s=sum(one.errors for one in recent) / RECENT_S,
            first_token_ms_p50=_quantile_ms(waits, 0.5),
            first_token_ms_p99=_quantile_ms(waits, 0.99),
            requests=tuple(one.requests for one in points),
            tokens=tuple(one.tokens for one in points),
        )

    def _second(self, at_s: int) -> Second:
        if not self._seconds or self._seconds[-1].at_s != at_s:
            self._seconds.append(Second(at_s))
        return self._seconds[-1]


def _quantile_ms(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 2)
