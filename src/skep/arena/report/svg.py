"""Small charts as inline SVG. Colours are CSS variables of the page, so they follow light and dark."""

import html
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 14, 34
SERIES_COLOURS: Final = 10
TICKS: Final = 4


class Series(NamedTuple):
    """A line: its label, its points, and which of the palette's colours it has."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int


class Bar(NamedTuple):
    """A bar with a whisker from `low` to `high`."""

    label: str
    value: float
    low: float
    high: float
    colour: int


def _nice(value: float) -> str:
    return f"{value:.3g}"


def _scale(low: float, high: float, start: float, end: float, value: float) -> float:
    return start + (value - low) / ((high - low) or 1.0) * (end - start)


def _opening(title: str, width: int, height: int) -> str:
    label = html.escape(title)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{label}">'
        f"<title>{label}</title>"
    )


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    is_stepped: bool = False,
    y_low: float | None = None,
) -> str:
    """Return lines over a common grid; stepped lines count things, and hold their value until the next point.

    Later lines are dashed, each wider apart, so that one that lies under another still shows.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return '<p class="none">nothing to draw</p>'
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    low = min(y for _, y in points) if y_low is None else min(y_low, *(y for _, y in points))
    high = max(y for _, y in points)
    high = high + 1 if high == low else high
    parts = [
        _opening(title, WIDTH, HEIGHT),
        *_axes(x_low, x_high, low, high, x_label, y_label, is_whole=is_stepped),
    ]
    for at, one in enumerate(series):
        path = []
        for number, (x, y) in enumerate(one.points):
            px = _scale(x_low, x_high, LEFT, WIDTH - RIGHT, x)
            py = _scale(low, high, HEIGHT - BOTTOM, TOP, y)
            if is_stepped and number:
                path.append(f"H{px:.1f}")
            path.append(f"{'L' if number else 'M'}{px:.1f} {py:.1f}")
        parts.append(
            f'<path class="line c{one.colour % SERIES_COLOURS}"{_dashes(at)} d="{"".join(path)}"><title>{html.escape(one.label)}</title></path>'
        )
    return "".join([*parts, "</svg>"])


def _dashes(at: int) -> str:
    return f' stroke-dasharray="9 {5 * at}"' if at else ""


def _ticks(low: float, high: float, *, is_whole: bool = False) -> list[float]:
    """Return round values between the bounds, 3 to 6 of them; fewer where only whole ones make sense."""
    rough = max((high - low) / TICKS, 1.0 if is_whole else 0.0)
    magnitude = 10 ** math.floor(math.log10(rough))
    step = min((factor * magnitude for factor in (1, 2, 5, 10)), key=lambda one: abs(one - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(
    x_low: float,
    x_high: float,
    y_low: float,
    y_high: float,
    x_label: str,
    y_label: str,
    *,
    is_whole: bool,
) -> list[str]:
    parts = []
    for value in _ticks(y_low, y_high, is_whole=is_whole):
        y = _scale(y_low, y_high, HEIGHT - BOTTOM, TOP, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{_nice(value)}</text>')
    for value in _ticks(x_low, x_high if x_high > x_low else x_low + 1):
        x = _scale(x_low, x_high, LEFT, WIDTH - RIGHT, value)
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}">{_nice(value)}</text>')
    parts.append(
        f'<text class="axis mid" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}">{html.escape(x_label)}</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis mid" transform="translate(12 {middle:.0f}) rotate(-90)">{html.escape(y_label)}</text>'
    )
    return parts


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Return horizontal bars of shares from 0 to 1, each with its interval."""
    row, left, right = 26, 120, 60
    width, height = WIDTH, row * len(bars) + 24
    parts = [_opening(title, width, height)]
    for tick in range(TICKS + 1):
        x = _scale(0, 1, left, width - right, tick / TICKS)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 20}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{height - 6}">{tick * 100 // TICKS} %</text>')
    for number, bar in enumerate(bars):
        y = 6 + row * number
        end, low, high = (
            _scale(0, 1, left, width - right, value) for value in (bar.value, bar.low, bar.high)
        )
        middle = y + (row - 8) / 2
        parts.append(
            f'<text class="tick end" x="{left - 8}" y="{middle + 4:.1f}">{html.escape(bar.label)}</text>'
        )
        parts.append(
            f'<rect class="bar c{bar.colour % SERIES_COLOURS}" x="{left}" y="{y}" width="{max(0.0, end - left):.1f}" height="{row - 8}" rx="2"/>'
        )
        parts.append(
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}V{middle + 4}M{high:.1f} {middle - 4}V{middle + 4}"/>'
        )
        parts.append(
            f'<text class="tick" x="{width - right + 8}" y="{middle + 4:.1f}">{bar.value:.0%}</text>'.replace(
                "%<", " %<"
            )
        )
    return "".join([*parts, "</svg>"])


def heat_map(title: str, rows: Sequence[tuple[str, Sequence[float]]], times: Sequence[float]) -> str:
    """Return a row of cells for each name, one for each moment; the fuller, the stronger the colour."""
    if not rows or not times:
        return '<p class="none">nothing to draw</p>'
    row, left = 18, 92
    width, height = WIDTH, row * len(rows) + 22
    cell = (width - left - RIGHT) / len(times)
    parts = [_opening(title, width, height)]
    for number, (name, shares) in enumerate(rows):
        y = 2 + row * number
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 12}">{html.escape(name)}</text>')
        for at, share in enumerate(shares):
            parts.append(
                f'<rect class="heat" x="{left + cell * at:.1f}" y="{y}" width="{cell + 0.3:.1f}" height="{row - 3}" '
                f'fill-opacity="{0.06 + 0.94 * min(1.0, share):.2f}"><title>{html.escape(name)} at {_nice(times[at])} s: {share:.0%}</title></rect>'
            )
    parts.append(f'<text class="tick" x="{left}" y="{height - 5}">{_nice(times[0])} s</text>')
    parts.append(f'<text class="tick end" x="{width - RIGHT}" y="{height - 5}">{_nice(times[-1])} s</text>')
    return "".join([*parts, "</svg>"])
