"""How long to wait before the next try.

The intuition: what failed once may be a glitch, so try soon; what fails again and again will not be better in a second,
so ask half as often each time. A little jitter keeps things that failed together from coming back together. A device
that reported an error gets twice the time, for drivers reset slowly.
"""

import msgspec


class BackoffLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers. `jitter` is a share; `delay_s_max` bounds the delay before a device error doubles it."""

    first_s: float = 1.0
    delay_s_max: float = 60.0
    delay_s_min: float = 0.5
    jitter: float = 0.1
    device_factor: float = 2.0
    stable_s: float = 300.0


DEFAULT = BackoffLimits()
_DOUBLINGS_MAX = 32


def delay_s(
    failures: int, *, jitter: float, is_device_error: bool = False, limits: BackoffLimits = DEFAULT
) -> float:
    """Return the delay after the `failures`-th failure in a row (from 1); `jitter` is a draw from −1 to 1."""
    doublings = min(max(failures, 1) - 1, _DOUBLINGS_MAX)
    delay = min(limits.first_s * 2.0**doublings, limits.delay_s_max)
    if is_device_error:
        delay *= limits.device_factor
    return max(delay * (1 + limits.jitter * jitter), limits.delay_s_min)
