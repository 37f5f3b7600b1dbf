"""`skep arena bench|sweep|report|train`: compare policies, and train one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from skep.cli.arena_options import JsonOption, QuietOption, arena_config, policy_options
from skep.cli.console import err, out, print_json
from skep.errors import InvalidConfig

if TYPE_CHECKING:
    from skep.arena.sweep import Plan, Results

DEFAULT_POLICIES = "noop,simple,bump_cpu,bump_mem,scale_replicas,random,heuristic,oracle"
SEEDS_MAX = 10_000
ScenariosOption = Annotated[
    str,
    typer.Option(
        "--scenarios", "-s", help="all, training, held-out, names with commas, or a folder of *.toml."
    ),
]
PoliciesOption = Annotated[str, typer.Option("--policies", "-p", help="Names with commas.")]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, max=SEEDS_MAX, help="So many seeds, from 0.")]
RewardOption = Annotated[
    str, typer.Option("--reward", "-r", help="base, shaped, scale, cost_aware or max_punish.")
]
ProcessesOption = Annotated[
    int, typer.Option("--processes", "-j", min=1, max=1024, help="Processes of this machine.")
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--policy-option", help="POLICY.NAME=VALUE, as llm.url=http://…; may be repeated."),
]


def _plan(scenarios: str, policies: str, seeds: int, reward: str, options: list[str] | None) -> "Plan":
    from skep.arena.policies.registry import make_policy
    from skep.arena.rewards import find_reward
    from skep.arena.scenarios import select_scenarios
    from skep.arena.scenarios.files import scenarios_of
    from skep.arena.sweep import make_plan

    find_reward(reward)
    names = [name.strip() for name in policies.split(",") if name.strip()]
    by_policy: dict[str, dict[str, str]] = {}
    for name, value in policy_options(options).items():
        policy, dot, option = name.partition(".")
        if not dot or policy not in names:
            raise InvalidConfig(
                f"--policy-option {name}=…: write POLICY.NAME=VALUE with one of {', '.join(names)}"
            )
        by_policy.setdefault(policy, {})[option] = value
    for name in names:
        make_policy(name, by_policy.get(name))
    chosen = select_scenarios(scenarios)
    if scenarios == "all":
        folders = arena_config().scenario_folders
        chosen += tuple(one for folder in folders for one in scenarios_of(Path(folder)))
    return make_plan(chosen, names, range(seeds), reward, by_policy)


def _progress(*, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err(),
        transient=True,
        disable=quiet,
    )


def _run(plan: "Plan", processes: int, folder: Path, *, quiet: bool) -> "Results":
    from skep.arena.placement import place
    from skep.arena.sweep import run_sweep

    total = len(plan.trials())
    with _progress(quiet=quiet) as bar:
        task = bar.add_task("trials", total=total)
        return run_sweep(
            plan,
            place(processes),
            folder,
            lambda one: bar.update(task, advance=1, description=one.trial.scenario[:32]),
        )


def _write_reports(results: "Results", folder: Path) -> tuple[Path, Path]:
    from skep.arena.report import render_html, render_markdown

    page, document = folder / "index.html", folder / "results.md"
    page.write_text(render_html(results), encoding="utf-8")
    document.write_text(render_markdown(results), encoding="utf-8")
    return page, document


def bench(
    scenarios: ScenariosOption = "all",
    policies: PoliciesOption = DEFAULT_POLICIES,
    seeds: SeedsOption = 3,
    reward: RewardOption = "shaped",
    processes: ProcessesOption = 1,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Where results and pages go.")] = Path(
        "runs/bench"
    ),
    policy_option: OptionsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare policies over scenarios and seeds; write JSON, Markdown and an HTML page with plots.

    [bold]skep arena bench --policies simple,heuristic,oracle --seeds 5 --processes 2[/bold]
    """
    from skep.arena.report import render_markdown, standings

    results = _run(_plan(scenarios, policies, seeds, reward, policy_option), processes, folder, quiet=quiet)
    page, document = _write_reports(results, folder)
    if as_json:
        print_json(standings(results))
        return
    out().print(render_markdown(results), markup=False)
    err().print(f"{page} {document}", markup=False)


def sweep(
    folder: Annotated[
        Path, typer.Argument(help="The sweep's folder; an unfinished one goes on where it was.")
    ],
    scenarios: ScenariosOption = "all",
    policies: PoliciesOption = DEFAULT_POLICIES,
    seeds: SeedsOption = 10,
    reward: RewardOption = "shaped",
    processes: ProcessesOption = 2,
    policy_option: OptionsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Run many trials over processes, resumable: the same results whatever the placement and the interruptions.

    [bold]skep arena sweep runs/sweep --seeds 50 --processes 8[/bold], after a kill the same again.
    """
    results = _run(_plan(scenarios, policies, seeds, reward, policy_option), processes, folder, quiet=quiet)
    solved = sum(one.is_solved for one in results.trials)
    out().print(f"{folder}/results.json: {len(results.trials)} trials, {solved} solved", markup=False)


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a finished bench or sweep.")],
    as_json: JsonOption = False,
) -> None:
    """Write a sweep's HTML page and Markdown again, or print its standings.

    [bold]skep arena report runs/sweep[/bold]
    """
    from skep.arena.report import standings
    from skep.arena.sweep import load_results

    results = load_results(folder)
    if as_json:
        print_json(standings(results))
        return
    page, document = _write_reports(results, folder if folder.is_dir() else folder.parent)
    out().print(f"{page}\n{document}", markup=False)


def train(
    target: Annotated[Path, typer.Argument(help="Where the learned policy is written (.npz).")],
    scenarios: ScenariosOption = "training",
    reward: RewardOption = "shaped",
    steps: Annotated[int, typer.Option(min=100, max=100_000_000, help="Environment steps.")] = 60_000,
    environments: Annotated[int, typer.Option(min=1, max=4096, help="Environments side by side.")] = 16,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    processes: ProcessesOption = 1,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a policy by deep Q-learning on the vector environment; use it as `--policy dqn --policy-option path=…`.

    [bold]skep arena train dqn.npz --steps 60000[/bold]
    """
    from skep.arena.train import TrainOptions, train_policy

    options = TrainOptions(
        scenarios=scenarios, reward=reward, steps=steps, environments=environments, seed=seed
    )
    with _progress(quiet=quiet) as bar:
        task = bar.add_task("steps", total=steps)
        outcome = train_policy(
            options,
            target,
            lambda done, text: bar.update(task, completed=done, description=text),
            processes=processes,
        )
    if as_json:
        print_json(outcome)
    else:
        out().print(
            f"{target}: {outcome.episodes} episodes, {outcome.solve_rate_last:.0%} of the last {outcome.window} solved",
            markup=False,
        )
