"""Mutants inside the daemons, against the scenarios that reach them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forking import exit_status, warm_up
from mutants import Mutant
from results import Results

INJECT = Path(__file__).parent / "inject"
SUITES = (
    "preload",
    "provisioning",
    "handoff",
    "health",
    "gpu_discovery",
    "registration",
    "observability",
    "worker",
    "gateway",
)
SCENARIOS_MAX = 4
"""Of the scenarios that reach a mutant, the fastest, one of each feature first."""
SCENARIO_S_MAX = 60.0
PATIENCE = "0.25"
"""A mutant that makes something wait for ever shall not cost 40 s; the control run is as impatient."""


def find_reach(out: Path, only: str) -> None:
    """Run every scenario once, or those that pytest's -k chooses, with daemons that tell what they use; add to what is known."""
    folder = out / "reach"
    folder.mkdir(exist_ok=True)
    paths = [f"tests/features/test_{name}.py" for name in SUITES]
    environment = {**os.environ, **_environment(folder), "SKEP_REACH": str(folder)}
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "skep_scenarios",
        "-n",
        "2",
        *paths,
        *(("-k", only) if only else ()),
    ]
    done = subprocess.run(argv, env=environment, check=False)
    print(f"reach: pytest ended with {done.returncode}; {len(scenarios_by_reach(out))} things are reached")


def scenarios_by_reach(out: Path) -> dict[str, list[str]]:
    """Return, for each thing, the scenarios that passed without a mutant and reach it, the fastest first."""
    durations = {
        row["id"]: row["s"] for row in _rows(out / "reach" / "durations") if row["outcome"] == "passed"
    }
    found: dict[str, set[str]] = defaultdict(set)
    for line in (out / "reach" / "reached").read_text(encoding="utf-8").splitlines():
        what, _, scenario = line.partition("\t")
        if scenario in durations:
            found[what].add(scenario)
            if what.startswith("skep."):
                found[f"{what.partition(':')[0]}:"].add(scenario)  # What stands outside of functions.
    return {what: sorted(names, key=durations.__getitem__) for what, names in found.items()}


def sample(scenarios: Sequence[str], most: int = SCENARIOS_MAX) -> list[str]:
    """Choose: the fastest of each feature, then the fastest of the rest."""
    first: dict[str, str] = {}
    for each in scenarios:
        first.setdefault(each.partition("::")[0], each)
    chosen = list(first.values())[:most]
    return chosen + [each for each in scenarios if each not in chosen][: most - len(chosen)]


def try_features(
    mutants: Sequence[Mutant], results: Results, out: Path, *, deadline_s: float, most: int, again: bool
) -> None:
    """Run the scenarios of each mutant until one fails that passes without a mutant; `again` for what has survived."""
    warm_up()
    reach = scenarios_by_reach(out)
    control = Control(out)
    for mutant in sorted(mutants, key=lambda each: "stays" in each.word):  # What is gone first: it says most.
        chosen = [
            each
            for each in sample(reach.get(mutant.reached_by, ()), most)
            if not control.is_known_unsteady(each)
        ]
        known = results.found.get(mutant.key, {}).get("verdict")
        is_open = known in {None, "unreached"} or (again and known == "survived")
        if not is_open or (known and not chosen):
            continue
        if time.monotonic() > deadline_s:
            return
        verdict, told = "unreached", dict[str, Any]()
        while chosen:
            verdict, told = _try(mutant, chosen, out)
            suspects = [told["by"]] if told.get("by") else chosen
            if verdict != "killed" or all(control.passes(each) for each in suspects):
                break
            chosen = [each for each in chosen if not control.is_known_unsteady(each)]
            verdict, told = "unreached", {}
        facts = {"place": f"{mutant.module}:{mutant.line}", "word": mutant.word, "scenarios": chosen}
        results.add(mutant.key, verdict, **facts, **told)
        print(f"{verdict}: {mutant.module}:{mutant.line}: {mutant.word} {told.get('step', '')}", flush=True)


class Control:
    """Which scenarios pass without a mutant, run in the same impatient way; asked once each, when one has killed."""

    def __init__(self, out: Path) -> None:
        self._out, self._kept = out, out / "steady.json"
        self._known: dict[str, bool] = json.loads(self._kept.read_text()) if self._kept.exists() else {}

    def is_known_unsteady(self, scenario: str) -> bool:
        """Whether it failed before without a mutant."""
        return not self._known.get(scenario, True)

    def passes(self, scenario: str) -> bool:
        """Whether it passes without a mutant."""
        if scenario not in self._known:
            self._known[scenario] = _run([scenario], self._out, {})[0] == 0
            self._kept.write_text(json.dumps(self._known))
        return self._known[scenario]


def _try(mutant: Mutant, scenarios: list[str], out: Path) -> tuple[str, dict[str, Any]]:
    plan, mark = out / "plan.json", out / "mark"
    mark.unlink(missing_ok=True)
    told = {"module": mutant.module, "source": mutant.source, "mark": str(mark), "key": mutant.key}
    plan.write_text(json.dumps(told), encoding="utf-8")
    status, failures = _run(scenarios, out, {"SKEP_MUTANT": str(plan)})
    loaded = mark.read_text().splitlines() if mark.exists() else []
    if not any(line.endswith(mutant.key) for line in loaded):
        return "not loaded", {}
    daemons = sorted({line.split()[0] for line in loaded})
    if status == 0:
        return "survived", {"daemons": daemons}
    first = failures[0] if failures else {"id": "", "step": "", "error": f"pytest ended with {status}"}
    return "killed", {"daemons": daemons, "by": first["id"], "step": first["step"], "error": first["error"]}


def _run(scenarios: list[str], out: Path, more: dict[str, str]) -> tuple[int, list[dict[str, Any]]]:
    notes = out / "notes"
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir()
    environment = {**_environment(notes), "SKEP_TESTKIT_PATIENCE": PATIENCE, **more}

    def prepare() -> None:
        os.environ.update(environment)
        sys.path.insert(0, str(INJECT))

    arguments = [
        "-x",
        "-o",
        "skep_ledger=false",
        "-o",
        f"timeout={SCENARIO_S_MAX:g}",
        "-p",
        "skep_scenarios",
        *scenarios,
    ]
    within_s = SCENARIO_S_MAX * (len(scenarios) + 1)
    status = exit_status(arguments, before=prepare, log=out / "pytest.log", within_s=within_s)
    return status, _rows(notes / "failures")


def _environment(notes: Path) -> dict[str, str]:
    paths = [str(INJECT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "SKEP_NOTES": str(notes)}


def _rows(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )
