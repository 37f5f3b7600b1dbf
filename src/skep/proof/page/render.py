"""Fills the page's template with a bundle."""

import datetime as dt
import functools
from collections import defaultdict
from importlib import resources
from typing import Any

import jinja2

from skep.proof.page.timeline import anchor_of, draw_timeline, duration
from skep.proof.reading import BundleView, worst
from skep.proof.records import ResourceRecord, ScenarioRecord, Status

SLOWEST_MAX = 8
CURVE_POINTS_MIN = 2
_FAILED = (Status.FAILED, Status.UNDEFINED)


def render_page(view: BundleView) -> bytes:
    """Return `index.html`, with everything it needs inside it."""
    text = _template().render(
        view=view,
        metadata=view.metadata,
        outcome=view.outcome,
        counts=_counts(view),
        failures=[record for record in view.scenarios if record.status in _FAILED],
        features=_features(view),
        timeline=draw_timeline(view.scenarios),
        slowest=sorted(view.scenarios, key=lambda record: -record.duration_ms)[:SLOWEST_MAX],
        coverage=view.coverage(),
        proved=sum(
            bool(found) and all(each.status is Status.PASSED for each in found)
            for found in view.coverage().values()
        ),
        growth=_growth(view.resources),
        wall_ms=_wall_ms(view),
    )
    return text.encode()


@functools.cache
def _template() -> jinja2.Template:
    folder = resources.files("skep.proof.page")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(duration=duration, anchor=anchor_of, when=_when, mib=_mib)
    environment.globals.update(
        style=(folder / "page.css").read_text("utf-8"),
        script=(folder / "page.js").read_text("utf-8"),
        worst=worst,
    )
    return environment.from_string((folder / "page.html").read_text("utf-8"))


def _counts(view: BundleView) -> dict[str, int]:
    statuses = [record.status for record in view.scenarios]
    return {
        "passed": statuses.count(Status.PASSED),
        "failed": sum(status in _FAILED for status in statuses),
        "skipped": statuses.count(Status.SKIPPED),
        "total": len(statuses),
    }


def _features(view: BundleView) -> dict[str, list[ScenarioRecord]]:
    found: dict[str, list[ScenarioRecord]] = defaultdict(list)
    for record in sorted(view.scenarios, key=lambda record: (record.uri, record.line, record.id)):
        found[record.feature].append(record)
    return found


def _wall_ms(view: BundleView) -> float:
    ends = [record.started_at * 1000 + record.duration_ms for record in view.scenarios]
    end = view.metadata.finished_at * 1000 if view.metadata.finished_at else max(ends, default=0.0)
    return max(0.0, end - view.metadata.started_at * 1000) if end else 0.0


def _growth(records: tuple[ResourceRecord, ...]) -> dict[str, Any]:
    """The curves of what the runner held, as SVG points of a 100 × 28 box."""
    after = [record for record in records if record.phase == "after"]
    if len(after) < CURVE_POINTS_MIN:
        return {}
    series = {
        "resident memory": [record.rss_bytes / (1 << 20) for record in after],
        "file descriptors": [float(record.fds) for record in after],
        "threads": [float(record.threads) for record in after],
        "child processes": [float(record.children) for record in after],
    }
    return {name: _curve(values) for name, values in series.items()}


def _curve(values: list[float]) -> dict[str, Any]:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{index / (len(values) - 1) * 100:.1f},{26 - (value - low) / span * 24:.1f}"
        for index, value in enumerate(values)
    )
    return {"points": points, "first": values[0], "last": values[-1], "low": low, "high": high}


def _when(at: float) -> str:
    return dt.datetime.fromtimestamp(at, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _mib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
