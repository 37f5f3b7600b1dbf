"""What changed between two runs, and where runs of one tree at several levels disagree."""

from collections.abc import Mapping
from dataclasses import dataclass

from skep.proof.reading import BundleView
from skep.proof.records import ScenarioRecord, Status

SLOWER_RATIO_MIN = 2.0
SLOWER_MS_MIN = 500.0
"""A scenario counts as slower only beyond both: short ones double by chance."""


@dataclass(frozen=True)
class Change:
    """One difference. `what` is added, removed, broke, fixed, changed or slower."""

    what: str
    scenario: str
    name: str
    before: str
    after: str


def diff_bundles(before: BundleView, after: BundleView) -> list[Change]:
    """Return the differences, the worst kind first."""
    old, new = _by_id(before), _by_id(after)
    changes = [Change("removed", key, old[key].name, old[key].status, "") for key in old if key not in new]
    changes += [Change("added", key, new[key].name, "", new[key].status) for key in new if key not in old]
    for key in old.keys() & new.keys():
        changes += _compare(old[key], new[key])
    order = ("broke", "removed", "changed", "slower", "fixed", "added")
    return sorted(changes, key=lambda change: (order.index(change.what), change.scenario))


def _compare(old: ScenarioRecord, new: ScenarioRecord) -> list[Change]:
    if old.status is not new.status:
        what = {Status.FAILED: "broke", Status.UNDEFINED: "broke", Status.PASSED: "fixed"}.get(
            new.status, "changed"
        )
        return [Change(what, new.id, new.name, old.status, new.status)]
    grew_ms = new.duration_ms - old.duration_ms
    if grew_ms > SLOWER_MS_MIN and new.duration_ms > old.duration_ms * SLOWER_RATIO_MIN:
        return [Change("slower", new.id, new.name, f"{old.duration_ms:.0f} ms", f"{new.duration_ms:.0f} ms")]
    return []


def _by_id(view: BundleView) -> Mapping[str, ScenarioRecord]:
    return {record.id: record for record in view.scenarios}


@dataclass(frozen=True)
class Disagreement:
    """One scenario that passes at some levels and fails at others. `statuses` are by level, skips among them."""

    scenario: str
    name: str
    statuses: Mapping[str, str]


def disagreements(views: Mapping[str, BundleView]) -> list[Disagreement]:
    """Return where runs, by their levels, disagree. A level at which a scenario was skipped has no opinion."""
    found = []
    records = {level: _by_id(view) for level, view in views.items()}
    for key in sorted({key for each in records.values() for key in each}):
        present = {level: each[key] for level, each in records.items() if key in each}
        opinions = {
            record.status is Status.PASSED
            for record in present.values()
            if record.status is not Status.SKIPPED
        }
        if len(opinions) > 1:
            name = next(iter(present.values())).name
            found.append(Disagreement(key, name, {level: record.status for level, record in present.items()}))
    return found
