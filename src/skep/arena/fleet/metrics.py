"""What a run of requests is judged by: time to first token, time per token, goodput, cost."""

import math
from typing import Any

import msgspec
import numpy as np

from skep.arena.fleet.replica import Job


class Spread(msgspec.Struct, frozen=True):
    """A distribution in five numbers; NaN-free: all 0 when there was nothing."""

    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    most: float = 0.0


class FleetResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Times in seconds; `goodput_per_s` counts requests within both objectives, of all that arrived.

    `cost_per_good_million` is the fleet's cost per million output tokens of such requests; 0 when there was none.
    """

    policy: str
    seed: int
    arrived: int
    completed: int
    good: int
    turned_away: dict[str, int]
    crashes: int
    holds: int
    duration_s: float
    ttft: Spread
    token: Spread
    total: Spread
    goodput_per_s: float
    good_share: float
    output_tokens_per_s: float
    prefix_hit_share: float
    busy_share: float
    cost: float
    cost_per_good_million: float
    replicas_mean: float
    replicas_most: int
    scalings: int


class Tally:
    """Counts a run as it goes: 24 bytes a request."""

    def __init__(self, ttft_slo_s: float, token_slo_s: float) -> None:
        self._ttft_slo_s, self._token_slo_s = ttft_slo_s, token_slo_s
        self._arrived = self._good = self._good_tokens = self._tokens = 0
        self._prompt_tokens = self._hit_tokens = 0
        self._ttft = _Column()
        self._token = _Column()
        self._total = _Column()
        self._away: dict[str, int] = {}
        self.crashes = self.holds = self.scalings = 0

    def arrived(self, at_s: float) -> None:  # noqa: ARG002 - a tally may weigh by time
        """Count an arrival."""
        self._arrived += 1

    def turned_away(self, why: str) -> None:
        """Count a request that was not served."""
        self._away[why] = self._away.get(why, 0) + 1

    def completed(self, job: Job, speed: float) -> None:
        """Count a request that was served whole."""
        request = job.request
        ttft_s = job.first_s - request.at_s / speed
        token_s = (job.done_s - job.first_s) / max(request.output_tokens - 1, 1)
        self._ttft.add(ttft_s)
        self._token.add(token_s)
        self._total.add(job.done_s - request.at_s / speed)
        self._tokens += request.output_tokens
        self._prompt_tokens += request.prompt_tokens
        self._hit_tokens += job.hit_tokens
        if ttft_s <= self._ttft_slo_s and token_s <= self._token_slo_s:
            self._good += 1
            self._good_tokens += request.output_tokens

    def result(
        self,
        *,
        policy: str,
        seed: int,
        duration_s: float,
        busy_share: float,
        cost: float,
        replicas_mean: float,
        replicas_most: int,
    ) -> FleetResult:
        """Return what was counted."""
        took_s = max(duration_s, 1e-9)
        return FleetResult(
            policy=policy,
            seed=seed,
            arrived=self._arrived,
            completed=len(self._ttft),
            good=self._good,
            turned_away=dict(sorted(self._away.items())),
            crashes=self.crashes,
            holds=self.holds,
            duration_s=duration_s,
            ttft=self._ttft.spread(),
            token=self._token.spread(),
            total=self._total.spread(),
            goodput_per_s=self._good / took_s,
            good_share=self._good / max(self._arrived, 1),
            output_tokens_per_s=self._tokens / took_s,
            prefix_hit_share=self._hit_tokens / max(self._prompt_tokens, 1),
            busy_share=busy_share,
            cost=cost,
            cost_per_good_million=cost / self._good_tokens * 1e6 if self._good_tokens else 0.0,
            replicas_mean=replicas_mean,
            replicas_most=replicas_most,
            scalings=self.scalings,
        )


class _Column:
    """A growing column of doubles."""

    def __init__(self) -> None:
        self._values = np.empty(1024, dtype=np.float64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, value: float) -> None:
        if self._size == len(self._values):
            self._values = np.concatenate((self._values, np.empty_like(self._values)))
        self._values[self._size] = value
        self._size += 1

    def spread(self) -> Spread:
        return spread_of(self._values[: self._size])


def spread_of(values: Any) -> Spread:
    """Return the five numbers of some values."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return Spread()
    p50, p90, p99 = (float(value) for value in np.percentile(found, (50, 90, 99)))
    return Spread(float(found.mean()), p50, p90, p99, float(found.max()))


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % confidence interval (normal approximation)."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:  # noqa: PLR2004 - one value has no spread
        return mean, 0.0
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, 1.96 * math.sqrt(variance / count)
