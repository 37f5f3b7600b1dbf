"""`skep arena trace`: look at traces, check, convert, make, import and compare them."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from skep.cli.arena_options import JsonOption, TraceArgument, told_warnings
from skep.cli.console import err, out, print_json
from skep.errors import InvalidConfig

DIFFERENCES_SHOWN_MAX = 200
trace_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look at traces, check, convert, make, import and compare them. Traces of any size are streamed by "
    "[bold]info[/bold] and [bold]validate[/bold].",
)


@trace_app.command("info")
def info(trace: TraceArgument, as_json: JsonOption = False) -> None:
    """Say what is in a trace: workloads with what they ask for, kinds, times.

    [bold]skep arena trace info demo.msgpack[/bold]
    """
    from skep.arena.trace.info import trace_info

    with told_warnings():
        found = trace_info(trace)
    if as_json:
        print_json(found)
        return
    span = (found.last_ts or 0) - (found.first_ts or 0)
    out().print(
        f"version {found.version}, {found.events} events over {span} s, {found.applied} objects applied, "
        f"{found.deleted} deleted, {found.lifecycles} life cycles, {found.size_bytes} bytes, sha256 {found.sha256[:16]}"
    )
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("workload", "kind", "replicas", "cpu", "memory"):
        table.add_column(title, justify="left" if title in ("workload", "kind") else "right")
    for name, one in found.workloads.items():
        row = (name, one["kind"], str(one["replicas"]), f"{one['cpu_m']}m", f"{one['memory_bytes'] >> 20}Mi")
        table.add_row(*row)
    out().print(table)


@trace_app.command("validate")
def validate(trace: TraceArgument) -> None:
    """Check every event; the first thing that is wrong is told, with its place. Exit code 1: not valid.

    Example: [bold]skep arena trace validate demo.msgpack[/bold]
    """
    from skep.arena.trace.stream import check_stream

    with told_warnings():
        found = check_stream(trace)
    out().print(f"{trace}: valid, version {found.version}, {found.events} events", markup=False)


@trace_app.command("convert")
def convert_command(
    source: Annotated[Path, typer.Argument(help="A trace, or its JSON form (.json).")],
    target: Annotated[Path, typer.Argument(help="Where to write; .json is JSON, anything else MessagePack.")],
) -> None:
    """Convert between MessagePack and JSON, and version 1 to 2.

    [bold]skep arena trace convert demo.msgpack demo.json[/bold]
    """
    from skep.arena.trace.convert import convert

    with told_warnings():
        made = convert(source, target)
    out().print(f"{target}: {len(made.events)} events", markup=False)


@trace_app.command("generate")
def generate(
    target: Annotated[Path, typer.Argument(help="Where to write the trace.")],
    scenario: Annotated[str | None, typer.Option(help="The trace of a built-in scenario.")] = None,
    name: Annotated[str, typer.Option(help="The workload's name.")] = "web",
    kind: Annotated[str, typer.Option(help="Deployment, StatefulSet, ReplicaSet or Job.")] = "Deployment",
    replicas: Annotated[int, typer.Option(min=0, max=1_000_000, help="Pods of the workload.")] = 3,
    cpu: Annotated[str, typer.Option(help="Each container's CPU request.")] = "1500m",
    memory: Annotated[str, typer.Option(help="Each container's memory request.")] = "256Mi",
    events: Annotated[
        int | None,
        typer.Option(min=1, max=100_000_000, help="Instead: so many random events of many workloads."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For --events.")] = 0,
) -> None:
    """Make a trace: one workload, a built-in scenario, or many random events.

    [bold]skep arena trace generate demo.msgpack --replicas 3 --cpu 1500m[/bold]
    """
    from skep.arena.scenarios import find_scenario
    from skep.arena.trace.check import check_trace
    from skep.arena.trace.generate import WorkloadPlan, random_events, trace_of, tracked_config
    from skep.arena.trace.stream import write_stream, write_trace_bytes
    from skep.arena.workload import WORKLOAD_KINDS

    if events is not None:
        write_stream(target, random_events(events, seed), events, config=tracked_config())
        out().print(f"{target}: {events} events", markup=False)
        return
    if kind not in WORKLOAD_KINDS:
        raise InvalidConfig(f"--kind {kind}: {', '.join(WORKLOAD_KINDS)}")
    plan = WorkloadPlan(name=name, kind=kind, replicas=replicas, cpu=cpu, memory=memory)
    made = find_scenario(scenario).trace if scenario else trace_of([plan], name=str(target))
    check_trace(made)
    write_trace_bytes(target, made.to_bytes())
    out().print(f"{target}: {len(made.events)} events", markup=False)


@trace_app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(help="The file of another project's trace.")],
    target: Annotated[Path, typer.Argument(help="Where to write it as ours.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="alibaba-gpu-2023, azure-llm, mooncake, burstgpt or qwen-bailian."
        ),
    ],
    nodes: Annotated[Path | None, typer.Option(help="alibaba-gpu-2023: its table of nodes.")] = None,
) -> None:
    """Import a cluster trace as SimKube events, or a request trace as requests (JSON lines).

    [bold]skep arena trace import openb_pod_list.csv gpu.msgpack --format alibaba-gpu-2023[/bold]
    """
    from skep.arena.importers import import_trace

    count = import_trace(source, target, format_, nodes)
    out().print(
        f"{target}: {count} {'events' if format_.startswith('alibaba') else 'requests'}", markup=False
    )


@trace_app.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(help="A trace.")],
    after: Annotated[Path, typer.Argument(help="The trace to compare with it.")],
    as_json: JsonOption = False,
) -> None:
    """Say how two traces differ, value by value. Exit code 1: they do.

    [bold]skep arena trace diff demo.msgpack .tmp/sim-web-….msgpack[/bold]
    """
    from skep.arena.trace.convert import read_any
    from skep.arena.trace.diff import diff_traces

    with told_warnings():
        found = list(diff_traces(read_any(before), read_any(after)))
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        for one in found[:DIFFERENCES_SHOWN_MAX]:
            out().print(f"{one.path}: {_short(one.before)} → {_short(one.after)}", markup=False)
        if len(found) > DIFFERENCES_SHOWN_MAX:
            err().print(f"… and {len(found) - DIFFERENCES_SHOWN_MAX} more; --json has all")
    if found:
        raise typer.Exit(1)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "…"  # noqa: PLR2004 - one line's worth
