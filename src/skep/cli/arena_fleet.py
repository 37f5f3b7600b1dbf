"""`skep arena fleet` and `skep arena calibrate`: placement policies on recorded requests, on workers as measured."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from skep.cli.console import err, out, print_json, run
from skep.errors import InvalidConfig

if TYPE_CHECKING:
    from skep.arena.fleet.check import Calibration
    from skep.arena.fleet.compare import FleetReport

REPORT_JSON, REPORT_MARKDOWN = "fleet.json", "fleet.md"


def fleet(
    trace: Annotated[
        Path, typer.Argument(help="Recorded requests: a queen's recording, or one that was imported.")
    ],
    model: Annotated[
        Path | None, typer.Option("--model", help="A worker as `skep arena calibrate` measured it.")
    ] = None,
    replicas: Annotated[int, typer.Option("--replicas", min=1, max=10_000, help="Workers of each pool.")] = 4,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", help="A placement policy; may be repeated. Default: all."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each policy.")] = 3,
    speed: Annotated[float, typer.Option("--speed", min=0.001, help="2 replays twice as fast.")] = 1.0,
    ttft_slo: Annotated[
        float, typer.Option("--ttft-slo", help="Seconds to the first token that are good.")
    ] = 2.0,
    token_slo: Annotated[float, typer.Option("--token-slo", help="Seconds per token that are good.")] = 0.1,
    queue_max: Annotated[int, typer.Option("--queue-max", min=0, help="Requests that may wait.")] = 256,
    crash_every: Annotated[
        float,
        typer.Option("--crash-every", min=0, help="Mean seconds between crashes of a replica; 0: none."),
    ] = 0.0,
    replicas_max: Annotated[
        int | None,
        typer.Option(
            "--replicas-max", min=1, help="Scale by load up to this; without it the fleet is fixed."
        ),
    ] = None,
    replicas_min: Annotated[
        int, typer.Option("--replicas-min", min=0, help="Scale down to this; 0 lets an idle fleet go.")
    ] = 1,
    down_after: Annotated[
        float, typer.Option("--down-after", min=0, help="Seconds of low load before a replica goes.")
    ] = 300.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for JSON and Markdown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Replay recorded requests over a simulated fleet, and compare placement policies.

    The policy `skep` is the very code that the queen runs. Workers are modelled by measured rates.

    [bold]skep arena fleet requests.jsonl --replicas 8 --model worker.json[/bold]

    With [bold]--replicas-max 8[/bold] the fleet grows and shrinks by the load, as the policy for scaling says.
    """
    from skep.arena.fleet.arms import ARMS
    from skep.arena.fleet.compare import compare
    from skep.arena.fleet.model import WorkerModel, read_model
    from skep.arena.fleet.requests import read_requests
    from skep.arena.fleet.simulate import FleetPlan
    from skep.policy.scaling import ScalingLimits

    scaling = None
    if replicas_max is not None:
        scaling = ScalingLimits(replicas_min=replicas_min, replicas_max=replicas_max, down_after_s=down_after)
    plan = FleetPlan(
        replicas=replicas,
        model=read_model(model) if model is not None else WorkerModel(),
        queue_max=queue_max,
        speed=speed,
        ttft_slo_s=ttft_slo,
        token_slo_s=token_slo,
        crash_every_s=crash_every,
        scaling=scaling,
    )
    report = compare(
        lambda: read_requests(trace),
        plan,
        trace=trace.name,
        arms=tuple(policy or ARMS),
        seeds=tuple(range(seeds)),
        on_run=lambda one: err().print(
            f"{one.policy}, seed {one.seed}: {one.completed} of {one.arrived} served"
        ),
    )
    if output is not None:
        _write(report, output)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _write(report: "FleetReport", folder: Path) -> None:
    import msgspec

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_JSON).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        (folder / REPORT_MARKDOWN).write_text(f"# {report.trace}\n\n{report.to_markdown()}")
    except OSError as error:
        raise InvalidConfig(f"cannot write to {folder}: {error.strerror}", path=str(folder)) from error
    err().print(f"written: {folder / REPORT_JSON}, {folder / REPORT_MARKDOWN}")


def _print(report: "FleetReport") -> None:
    from skep.arena.fleet.compare import MEASURES

    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("")
    for arm in report.arms:
        table.add_column(arm.policy, justify="right")
    for name, (_, unit) in MEASURES.items():
        cells = [
            f"{mean:.4g} ± {half:.2g}" if half else f"{mean:.4g}"
            for mean, half in (arm.measures[name] for arm in report.arms)
        ]
        table.add_row(f"{name}, {unit}" if unit else name, *cells)
    out().print(table)


def calibrate(
    url: Annotated[
        str, typer.Argument(help="A worker that has nothing else to do, as http://127.0.0.1:8090.")
    ],
    served: Annotated[str, typer.Option("--model", help="The model's name there.")],
    slots: Annotated[int, typer.Option("--slots", min=1, help="The worker's slots.")] = 4,
    context: Annotated[int, typer.Option("--context", min=32, help="Tokens of each slot.")] = 4096,
    requests: Annotated[int, typer.Option("--requests", min=2, help="Requests of the check.")] = 60,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="Fits, each with its share of the check.")
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Everything random follows from it.")] = 0,
    save: Annotated[Path | None, typer.Option("--save", help="Write the model here.")] = None,
    token: Annotated[
        str | None, typer.Option("--token", envvar="SKEP_WORKER_TOKEN", help="The worker's bearer token.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Measure a real worker, fit the fleet's worker model, and tell how far off it is.

    [bold]skep arena calibrate http://127.0.0.1:8090 --model tiny --save worker.json[/bold]
    """
    from skep.arena.fleet.calibrate import Target, calibrate

    target = Target(url=url, model=served, token=token, slots=slots, context=context)
    found = run(lambda: calibrate(target, requests=requests, rounds=rounds, seed=seed))
    if save is not None:
        import msgspec

        try:
            save.write_bytes(msgspec.json.format(msgspec.json.encode(found.model), indent=2) + b"\n")
        except OSError as error:
            raise InvalidConfig(f"cannot write {save}: {error.strerror}", path=str(save)) from error
    if as_json:
        print_json(found)
    else:
        _print_calibration(found)


def _print_calibration(found: "Calibration") -> None:
    import msgspec

    check = found.check
    out().print(json.dumps(msgspec.to_builtins(found.model), indent=2))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("", "real", "simulated", "error", f"in {check.rounds} rounds"):
        table.add_column(title, justify="right" if title else "left")
    for name, error in check.errors.items():
        extremes = f"{error.least:+.0%} to {error.most:+.0%}"
        table.add_row(
            f"{name}, s", f"{error.real_s:.4g}", f"{error.simulated_s:.4g}", f"{error.middle:+.1%}", extremes
        )
    out().print(table)
    err().print(f"the worker's own speed differed by {found.speed_spread:.0%} between the rounds")
