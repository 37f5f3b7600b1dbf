"""`skep arena`: try a policy on a simulated cluster first."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from skep.cli.arena_bench import bench, report, sweep, train
from skep.cli.arena_explain import explain
from skep.cli.arena_fleet import calibrate, fleet
from skep.cli.arena_options import (
    JsonOption,
    PolicyOption,
    RewardOption,
    policy_options,
    stopping,
    told_warnings,
)
from skep.cli.arena_subject import Subject, taking
from skep.cli.arena_trace import trace_app
from skep.cli.console import out, print_json

if TYPE_CHECKING:
    from skep.arena.episode import EpisodeResult
    from skep.arena.step import StepResult

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Try a policy on a simulated cluster first: thousands of steps a second, no cluster needed.\n\n"
    "Start here: [bold]skep arena trace generate demo.msgpack[/bold], then "
    "[bold]skep arena episode demo.msgpack --policy heuristic[/bold].",
)


@app.command("step")
@taking(Subject)
def step(
    given: Subject,
    policy: PolicyOption = "simple",
    reward: RewardOption = "base",
    as_json: JsonOption = False,
) -> None:
    """Simulate a trace once, look, decide, and write the trace for the next step.

    [bold]skep arena step demo.msgpack --policy heuristic --reward shaped[/bold]
    """
    from skep.arena.policies.registry import make_policy
    from skep.arena.runner import one_step

    with told_warnings(), stopping() as stop:
        workload, wanted = given.workload()
        chosen = make_policy(policy, policy_options(given.policy_option))
        chosen.start(given.seed)
        with contextlib.closing(given.made_driver()) as driver:
            subject = (given.trace, workload.namespace, workload.name, wanted, given.duration)
            options = given.options()
            result = one_step(*subject, chosen, reward, given.seed, driver, options=options, stop=stop)
    if as_json:
        print_json(result.record)
        return
    _print_steps([result], wanted)
    out().print(f"next trace: {result.record.trace_out}", markup=False)


@app.command("episode")
@taking(Subject)
def episode(
    given: Subject,
    policy: PolicyOption = "heuristic",
    reward: RewardOption = "shaped",
    steps: Annotated[int, typer.Option("--steps", min=1, max=10_000, help="At most so many steps.")] = 30,
    return_floor: Annotated[
        float, typer.Option(help="Give up when the sum of rewards falls to this.")
    ] = -20.0,
    as_json: JsonOption = False,
) -> None:
    """Chain steps, each on the trace that the one before left, until the goal. Exit code 1: not solved.

    [bold]skep arena episode demo.msgpack --target 3 --policy oracle[/bold]
    """
    from skep.arena.episode import run_episode
    from skep.arena.policies.registry import make_policy

    with told_warnings(), stopping() as stop:
        workload, wanted = given.workload()
        chosen = make_policy(policy, policy_options(given.policy_option))
        with contextlib.closing(given.made_driver()) as driver:
            subject = (given.trace, workload.namespace, workload.name, wanted, given.duration)
            result = run_episode(
                *subject,
                chosen,
                reward,
                given.seed,
                driver,
                options=given.options(steps_max=steps),
                return_floor=return_floor,
                stop=stop,
            )
    if as_json:
        _print_episode_json(result)
    else:
        _print_episode(result, wanted)
    if not result.is_solved:
        raise typer.Exit(1)


@app.command("policies")
def policies(as_json: JsonOption = False) -> None:
    """List the policies, actions, rewards and scenarios by name.

    Example: [bold]skep arena policies[/bold]
    """
    from skep.arena.actions import ACTIONS
    from skep.arena.policies.registry import policy_names
    from skep.arena.rewards import REWARDS
    from skep.arena.scenarios import SCENARIOS

    found = {
        "policies": policy_names(),
        "actions": tuple(ACTIONS),
        "rewards": tuple(REWARDS),
        "scenarios": tuple(one.name for one in SCENARIOS),
    }
    if as_json:
        print_json(found)
        return
    for what, names in found.items():
        out().print(f"[bold]{what}[/bold]  {', '.join(names)}")


app.command("explain")(explain)
app.command("bench")(bench)
app.command("sweep")(sweep)
app.command("report")(report)
app.command("train")(train)
app.command("fleet")(fleet)
app.command("calibrate")(calibrate)
app.add_typer(trace_app, name="trace")


def _print_episode_json(result: "EpisodeResult") -> None:
    summary = {
        "run_id": result.run_id,
        "is_solved": result.is_solved,
        "ended_by": result.ended_by,
        "return": result.return_,
    }
    print_json({**summary, "steps": [one.record for one in result.steps]})


def _print_episode(result: "EpisodeResult", wanted: int) -> None:
    _print_steps(list(result.steps), wanted)
    verdict = "[green]solved[/green]" if result.is_solved else f"[red]not solved[/red] ({result.ended_by})"
    out().print(f"{verdict} in {len(result.steps)} steps, return {result.return_:.2f}")


def _print_steps(results: "list[StepResult]", target: int) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("step", "ready", "pending", "total", "cpu", "memory", "action", "reward", "why"):
        is_text = title in ("action", "why")
        table.add_column(
            title, justify="left" if is_text else "right", no_wrap=title != "why", overflow="fold"
        )
    for one in results:
        seen, wants = one.observation, one.resources
        action = one.decision.action + (" (blocked)" if one.action_info.blocked else "")
        table.add_row(
            str(one.record.step),
            f"{seen.ready}/{target}",
            str(seen.pending),
            str(seen.total),
            f"{wants.cpu_m}m",
            f"{wants.memory_bytes >> 20}Mi",
            action,
            f"{one.reward.value:.2f}",
            one.decision.reason,
        )
    out().print(table)
