"""`skep arena explain`: why each pod of a workload went where it went, or nowhere."""

from typing import TYPE_CHECKING

from rich.table import Table

from skep.cli.arena_options import (
    DeploymentOption,
    DurationOption,
    JsonOption,
    KindOption,
    NamespaceOption,
    NodesOption,
    SeedOption,
    TraceArgument,
    arena_config,
    nodes_of,
    subject_of,
    told_warnings,
)
from skep.cli.console import out, print_json

if TYPE_CHECKING:
    from skep.arena.scheduler.explain import Decision

NODES_SHOWN_MAX = 20


def explain(
    trace: TraceArgument,
    namespace: NamespaceOption = "default",
    deployment: DeploymentOption = None,
    duration: DurationOption = 60.0,
    seed: SeedOption = 0,
    nodes: NodesOption = None,
    kind: KindOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a trace, and say of each pod which filter said no on which node, and which score said what.

    [bold]skep arena explain demo.msgpack --nodes 2x2cpu/4Gi[/bold]
    """
    from skep.arena.explaining import explain_workload
    from skep.arena.trace.check import check_trace
    from skep.arena.trace.trace import read_trace

    with told_warnings():
        workload, _ = subject_of(trace, namespace, deployment, None, kind, None)
        read = read_trace(trace)
        check_trace(read)
    decisions = explain_workload(
        read, workload, nodes_of(nodes or list(arena_config().nodes)), duration, seed
    )
    if as_json:
        print_json(decisions)
        return
    for decision in decisions:
        where = f" on {decision.node}" if decision.node else ""
        out().print(
            f"[bold]{decision.pod}[/bold]  {decision.outcome}{where}, attempt {decision.attempt}, at {decision.at_s:g} s"
        )
        if decision.message:
            out().print(f"  {decision.message}", markup=False)
        out().print(_table(decision))


def _table(decision: "Decision") -> Table:
    table = Table(box=None, header_style="dim", pad_edge=True)
    for title in ("node", "total", "why"):
        table.add_column(title, justify="right" if title == "total" else "left")
    for node, scores in sorted(decision.scores.items(), key=lambda one: (-sum(one[1].values()), one[0]))[
        :NODES_SHOWN_MAX
    ]:
        table.add_row(
            node, str(sum(scores.values())), ", ".join(f"{name} {value}" for name, value in scores.items())
        )
    for node, rejection in sorted(decision.rejections.items())[:NODES_SHOWN_MAX]:
        table.add_row(node, "no", f"{rejection.plugin}: {', '.join(rejection.reasons)}")
    return table
