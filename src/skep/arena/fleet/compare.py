"""Several placement policies on one trace: a table of what each came to, with confidence intervals over seeds."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from skep.arena.fleet.arms import ARMS
from skep.arena.fleet.metrics import FleetResult, interval
from skep.arena.fleet.requests import TracedRequest
from skep.arena.fleet.simulate import FleetPlan, simulate

MEASURES: Final[dict[str, tuple[Callable[[FleetResult], float], str]]] = {
    "ttft p50": (lambda run: run.ttft.p50, "s"),
    "ttft p99": (lambda run: run.ttft.p99, "s"),
    "per token p50": (lambda run: run.token.p50, "s"),
    "goodput": (lambda run: run.goodput_per_s, "requests/s"),
    "good": (lambda run: run.good_share, "share"),
    "turned away": (lambda run: sum(run.turned_away.values()) / max(run.arrived, 1), "share"),
    "prefix hits": (lambda run: run.prefix_hit_share, "share"),
    "busy": (lambda run: run.busy_share, "share"),
    "replicas": (lambda run: run.replicas_mean, "mean"),
    "cost per million good tokens": (lambda run: run.cost_per_good_million, ""),
}  # fmt: skip
"""What is compared, and its unit."""


class ArmSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One policy over all seeds: each measure's mean and the half width of its 95 % interval."""

    policy: str
    measures: dict[str, tuple[float, float]]
    runs: tuple[FleetResult, ...]


class FleetReport(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, and what it was made with."""

    trace: str
    plan: FleetPlan
    seeds: tuple[int, ...]
    arms: tuple[ArmSummary, ...]

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        head = ["policy", *(f"{name}, {unit}" if unit else name for name, (_, unit) in MEASURES.items())]
        lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        for arm in self.arms:
            cells = [
                f"{mean:.4g} ± {half:.2g}" if half else f"{mean:.4g}" for mean, half in arm.measures.values()
            ]
            lines.append(f"| {' | '.join([arm.policy, *cells])} |")
        return "\n".join(lines) + "\n"


def compare(
    source: Callable[[], Iterable[TracedRequest]],
    plan: FleetPlan,
    *,
    trace: str,
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = (0,),
    on_run: Callable[[FleetResult], None] = lambda _: None,
) -> FleetReport:
    """Run every arm with every seed over the trace that `source` opens anew. Raises: UnknownName, a trace's errors."""
    summaries = []
    for arm in arms:
        runs = []
        for seed in seeds:
            runs.append(simulate(source(), plan, arm, seed))
            on_run(runs[-1])
        measures = {name: interval([measure(run) for run in runs]) for name, (measure, _) in MEASURES.items()}
        summaries.append(ArmSummary(policy=arm, measures=measures, runs=tuple(runs)))
    return FleetReport(trace=trace, plan=plan, seeds=tuple(seeds), arms=tuple(summaries))
