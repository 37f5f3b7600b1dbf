"""Fills the page's template with a bundle."""

import datetime as dt
import functools
from collections import defaultdict
from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2

from skep.proof.page.timeline import anchor_of, draw_timeline, duration
from skep.proof.reading import BundleView, worst
from skep.proof.records import ResourceRecord, ScenarioRecord, Status

SLOWEST_MAX = 8
CURVE_POINTS_MIN = 2
_FAILED = (Status.FAILED, Status.UNDEFINED)
_MIB = 1 << 20
_SERIES: dict[str, Callable[[ResourceRecord], float | None]] = {
    "resident memory": lambda record: record.rss_bytes / _MIB,
    "device memory": lambda record: (
        None if record.device_memory_bytes is None else record.device_memory_bytes / _MIB
    ),
    "file descriptors": lambda record: float(record.fds),
    "threads": lambda record: float(record.threads),
    "child processes": lambda record: float(record.children),
}


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
        growth=_growth(view),
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


def _growth(view: BundleView) -> dict[str, Any]:
    """The curves of what the runners held, a line for each process, as SVG points of a 100 × 28 box."""
    worker_of = {record.id: record.worker for record in view.scenarios}
    processes: dict[str, list[ResourceRecord]] = defaultdict(list)
    for record in view.resources:
        if record.phase == "after":
            processes[worker_of.get(record.scenario, "")].append(record)
    lines = [records for records in processes.values() if len(records) >= CURVE_POINTS_MIN]
    return {name: _curve(drawn) for name, of in _SERIES.items() if (drawn := _drawn(lines, of))}


def _drawn(
    lines: list[list[ResourceRecord]], of: Callable[[ResourceRecord], float | None]
) -> list[list[float]]:
    """Each process's values; none of what was not measured."""
    found = [[value for record in records if (value := of(record)) is not None] for records in lines]
    return [values for values in found if len(values) >= CURVE_POINTS_MIN]


def _curve(lines: list[list[float]]) -> dict[str, Any]:
    low, high = min(map(min, lines)), max(map(max, lines))
    span = (high - low) or 1.0
    drawn = [
        " ".join(
            f"{index / (len(values) - 1) * 100:.1f},{26 - (value - low) / span * 24:.1f}"
            for index, value in enumerate(values)
        )
        for values in lines
    ]
    return {"lines": drawn, "low": low, "high": high}


def _when(at: float) -> str:
    return dt.datetime.fromtimestamp(at, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _mib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / _MIB:.0f} MiB"
