"""A benchmark as one HTML page: no script, nothing fetched, light and dark, made to be looked at."""

import html
from importlib.resources import files
from typing import Final

from skep.arena.report.markdown import number, percent
from skep.arena.report.stats import Standing, standings
from skep.arena.report.svg import Bar, Series, bar_chart, heat_map, line_chart
from skep.arena.sweep import Results
from skep.arena.trial import Sample, TrialResult

ACTION_CLASSES: Final = {
    "noop": "a0",
    "bump_cpu_small": "a1",
    "reduce_cpu_small": "a2",
    "bump_mem_small": "a3",
    "reduce_mem_small": "a4",
    "scale_up_replicas": "a5",
    "scale_down_replicas": "a6",
}
NODES_SHOWN_MAX: Final = 12


def render_html(results: Results) -> str:
    """Return the page."""
    plan = results.plan
    colours = {policy: at for at, policy in enumerate(plan.policies)}
    found = standings(results)
    style = files("skep.arena.report").joinpath("page.css").read_text(encoding="utf-8")
    body = [
        "<header><h1>Policies compared</h1>",
        (
            f"<p>{len(plan.scenarios)} scenarios × {len(plan.policies)} policies × {len(plan.seeds)} seeds on the "
            f"embedded cluster, reward <code>{html.escape(plan.reward)}</code>. Intervals are 95 %: Wilson for rates, "
            "bootstrap over trials for means.</p></header>"
        ),
        f"<nav>{_legend(colours)}</nav>",
    ]
    for part in ("training", "held-out"):
        rows = [one for one in found if one.part == part]
        if rows:
            body.append(_part(part, rows, colours))
    body.append(_matrix(results))
    body.append("<section><h2>Scenario by scenario</h2>")
    body.append(
        f'<p class="hint">Each square is a step: {_action_legend()}. Pods and nodes are of the first seed; a node in full colour has all its CPU requested.</p>'
    )
    body += [_scenario(scenario, results, colours) for scenario in plan.scenarios]
    body.append("</section>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="generator" content="{html.escape(results.generated_by)}"><title>Policies compared</title>'
        f"<style>{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _legend(colours: dict[str, int]) -> str:
    return "".join(
        f'<span class="key"><i class="c{at}"></i>{html.escape(policy)}</span>'
        for policy, at in colours.items()
    )


def _action_legend() -> str:
    return " ".join(
        f'<i class="step {css}"></i>&nbsp;{name.replace("_small", "").replace("_", " ")}'
        for name, css in ACTION_CLASSES.items()
    )


def _part(part: str, rows: list[Standing], colours: dict[str, int]) -> str:
    bars = [
        Bar(
            one.policy,
            one.solve_rate.value or 0,
            one.solve_rate.low or 0,
            one.solve_rate.high or 0,
            colours[one.policy],
        )
        for one in rows
    ]
    curves = [
        Series(
            one.policy, [(at + 1, value) for at, value in enumerate(one.return_by_step)], colours[one.policy]
        )
        for one in rows
        if one.return_by_step
    ]
    cells = "".join(
        f"<tr><th>{html.escape(one.policy)}</th><td>{one.solved}/{one.trials}</td><td>{percent(one.solve_rate)}</td>"
        f"<td>{number(one.steps_to_solve)}</td><td>{number(one.return_)}</td></tr>"
        for one in rows
    )
    return (
        f"<section><h2>{part.capitalize()} scenarios</h2><div class='charts'>"
        f"<figure><figcaption>Solved, with 95 % interval</figcaption>{bar_chart(f'solve rate, {part}', bars)}</figure>"
        f"<figure><figcaption>Mean reward at each step</figcaption>"
        f"{line_chart(f'reward curves, {part}', curves, x_label='step', y_label='reward')}</figure></div>"
        "<div class='wide'><table><thead><tr><th>policy</th><th>solved</th><th>solve rate</th><th>steps to solve</th>"
        f"<th>return</th></tr></thead><tbody>{cells}</tbody></table></div></section>"
    )


def _matrix(results: Results) -> str:
    plan = results.plan
    head = "".join(f"<th>{html.escape(policy)}</th>" for policy in plan.policies)
    rows = []
    for scenario in plan.scenarios:
        cells = []
        for policy in plan.policies:
            trials = _trials(results, scenario, policy)
            solved = sum(one.is_solved for one in trials)
            css = "all" if solved == len(trials) else "part" if solved else "no"
            cells.append(f'<td class="{css}">{solved}/{len(trials)}</td>')
        rows.append(
            f'<tr><th><a href="#{html.escape(scenario)}">{html.escape(scenario)}</a></th>{"".join(cells)}</tr>'
        )
    return (
        "<section><h2>Solved, by scenario</h2><div class='wide'><table class='matrix'><thead><tr><th>scenario</th>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _trials(results: Results, scenario: str, policy: str) -> list[TrialResult]:
    return [one for one in results.trials if (one.trial.scenario, one.trial.policy) == (scenario, policy)]


def _scenario(scenario: str, results: Results, colours: dict[str, int]) -> str:
    firsts = [trials[0] for policy in results.plan.policies if (trials := _trials(results, scenario, policy))]
    sampled = [one for one in firsts if one.first]
    before = sampled[0].first if sampled else ()
    decisions = "".join(
        f"<tr><th>{html.escape(one.trial.policy)}</th><td>{_steps(one)}</td><td>{_verdict(one)}</td></tr>"
        for one in firsts
    )
    ready = [
        Series(
            one.trial.policy,
            [(sample.at_s, float(sample.ready)) for sample in one.last],
            colours[one.trial.policy],
        )
        for one in sampled
    ]
    best = max(sampled, key=lambda one: (one.is_solved, -one.steps), default=None)
    parts = [
        f'<details id="{html.escape(scenario)}" open><summary>{html.escape(scenario)}</summary>',
        f'<div class="wide"><table class="decisions"><tbody>{decisions}</tbody></table></div><div class="charts">',
        f"<figure><figcaption>Pods over time, as the scenario begins</figcaption>{_pods(before)}</figure>",
        (
            "<figure><figcaption>Ready pods over time, as each policy's last step saw them</figcaption>"
            f"{line_chart('ready pods', ready, x_label='s', y_label='ready', is_stepped=True, y_low=0)}</figure>"
        ),
        f"<figure><figcaption>CPU requested per node, at the beginning</figcaption>{_nodes(before)}</figure>",
    ]
    if best is not None:
        caption = f"CPU requested per node, after {html.escape(best.trial.policy)}"
        parts.append(f"<figure><figcaption>{caption}</figcaption>{_nodes(best.last)}</figure>")
    return "".join([*parts, "</div></details>"])


def _pods(samples: tuple[Sample, ...]) -> str:
    names = (("ready", 2), ("pending", 3), ("total", 7))
    series = [
        Series(name, [(one.at_s, float(getattr(one, name))) for one in samples], colour)
        for name, colour in names
    ]
    keys = "".join(f'<span class="key"><i class="c{colour}"></i>{name}</span>' for name, colour in names)
    return (
        line_chart("pods", series, x_label="s", y_label="pods", is_stepped=True, y_low=0)
        + f'<p class="keys">{keys}</p>'
    )


def _nodes(samples: tuple[Sample, ...]) -> str:
    names = list(dict.fromkeys(name for one in samples for name, _, _ in one.nodes))[:NODES_SHOWN_MAX]
    rows = [
        (name, [next((cpu for node, cpu, _ in one.nodes if node == name), 0.0) for one in samples])
        for name in names
    ]
    return heat_map("CPU requested per node", rows, [one.at_s for one in samples])


def _steps(result: TrialResult) -> str:
    squares = []
    for at, view in enumerate(result.views):
        about = f"{at + 1}. {view.action}: {view.reason}; {view.ready} ready, {view.pending} pending of {view.total}; reward {view.reward:g}"
        css = ACTION_CLASSES.get(view.action, "a7") + (" blocked" if view.blocked else "")
        squares.append(f'<i class="step {css}" title="{html.escape(about)}"></i>')
    return "".join(squares)


def _verdict(result: TrialResult) -> str:
    if result.error is not None:
        return f'<span class="no">{html.escape(result.error[:120])}</span>'
    if result.is_solved:
        actions = f"{result.actions} action{'' if result.actions == 1 else 's'}"
        return f'<span class="all">solved after {actions}</span>'
    return f'<span class="no">{html.escape(result.ended_by)} after {result.steps} steps</span>'
