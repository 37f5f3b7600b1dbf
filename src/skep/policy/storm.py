"""A restart storm: many restarts in a short sliding window, however innocent each looks alone."""

import msgspec


class StormLimits(msgspec.Struct, frozen=True, kw_only=True):
    """More than `restarts_max` within `window_s` is a storm."""

    restarts_max: int = 10
    window_s: float = 60.0


DEFAULT = StormLimits()


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts that the window still sees, `restarts_max` + 1 at most, oldest first."""

    restarts_s: tuple[float, ...] = ()


def restarted(storm: Storm, *, now_s: float, limits: StormLimits = DEFAULT) -> Storm:
    """Return the storm after one more restart."""
    recent = [at for at in storm.restarts_s if now_s - at < limits.window_s]
    return Storm(restarts_s=(*recent, now_s)[-(limits.restarts_max + 1) :])


def is_storm(storm: Storm, *, now_s: float, limits: StormLimits = DEFAULT) -> bool:
    """True while the window holds more restarts than it may."""
    return sum(now_s - at < limits.window_s for at in storm.restarts_s) > limits.restarts_max
