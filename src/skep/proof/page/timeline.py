"""The picture of a run: a lane for each worker process, a bar for each scenario, in a fixed coordinate system."""

import math
from dataclasses import dataclass

from skep.proof.records import ScenarioRecord, Status

WIDTH = 1000.0
LANE_HEIGHT = 26.0
BAR_HEIGHT = 18.0
BAR_WIDTH_MIN = 2.0
TICKS = 6
DECIMALS_BELOW_S = 10
HALF_MINUTE_S = 30
MINUTES = (1, 2, 5, 10, 15, 30, 60)
_SECOND, _MINUTE = 1000, 60_000


@dataclass(frozen=True)
class Bar:
    """One scenario: where it is drawn, and what a pointer resting on it is told."""

    x: float
    y: float
    width: float
    status: Status
    anchor: str
    title: str


@dataclass(frozen=True)
class Tick:
    """A mark on the time axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """All that the picture needs."""

    lanes: tuple[str, ...]
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    height: float


def draw_timeline(records: tuple[ScenarioRecord, ...]) -> Timeline | None:
    """Lay out the bars; None when nothing ran."""
    ran = [record for record in records if record.started_at > 0]
    if not ran:
        return None
    start = min(record.started_at for record in ran)
    span_s = max(record.started_at + record.duration_ms / 1000 for record in ran) - start or 0.001
    lanes = tuple(sorted({record.worker for record in ran}, key=lambda name: (len(name), name)))
    bars = tuple(
        Bar(
            x=round((record.started_at - start) / span_s * WIDTH, 2),
            y=lanes.index(record.worker) * LANE_HEIGHT,
            width=round(max(BAR_WIDTH_MIN, record.duration_ms / 1000 / span_s * WIDTH), 2),
            status=record.status,
            anchor=anchor_of(record.id),
            title=f"{record.name}\n{record.status}, {duration(record.duration_ms)}",
        )
        for record in ran
    )
    step_s = _nice_step(span_s / TICKS)
    ticks = tuple(
        Tick(x=round(number * step_s / span_s * WIDTH, 2), label=duration(number * step_s * 1000))
        for number in range(1, int(span_s / step_s) + 1)
    )
    return Timeline(lanes=lanes, bars=bars, ticks=ticks, height=len(lanes) * LANE_HEIGHT)


def duration(milliseconds: float) -> str:
    """Say a duration as people do: 840 µs, 12 ms, 3.4 s, 2 min 5 s."""
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    if milliseconds < _SECOND:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / _SECOND
    if milliseconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < DECIMALS_BELOW_S and seconds % 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def anchor_of(scenario_id: str) -> str:
    """A scenario's id as an HTML id."""
    return "s-" + "".join(each if each.isalnum() else "-" for each in scenario_id)


def _nice_step(seconds: float) -> float:
    """The next of 1, 2, 5 × a power of ten; beyond half a minute, of whole minutes."""
    if seconds > HALF_MINUTE_S:
        return next(
            (60.0 * number for number in MINUTES if 60 * number >= seconds),
            3600.0 * math.ceil(seconds / 3600),
        )
    power = 10 ** math.floor(math.log10(seconds))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= seconds))
