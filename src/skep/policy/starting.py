"""How long a start may take: more for larger models, and longer while the load still moves."""

import msgspec

_GIB = 1024**3


class StartLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`base_s` + `per_gib_s` × size; each bit of progress grants `progress_s` more, up to `factor_max` times the limit."""

    base_s: float = 30.0
    per_gib_s: float = 20.0
    progress_s: float = 30.0
    factor_max: float = 10.0


DEFAULT = StartLimits()


def limit_s(model_bytes: int, *, limits: StartLimits = DEFAULT) -> float:
    """Return how long a start may take that shows no progress."""
    return limits.base_s + limits.per_gib_s * model_bytes / _GIB


def deadline_s(
    *, started_s: float, progressed_s: float | None, model_bytes: int, limits: StartLimits = DEFAULT
) -> float:
    """Return when a start is given up; `progressed_s` is when the load last moved forward."""
    limit = limit_s(model_bytes, limits=limits)
    soonest = started_s + limit
    if progressed_s is None:
        return soonest
    return min(max(soonest, progressed_s + limits.progress_s), started_s + limit * limits.factor_max)
