"""Sweeps: the same results whatever the placement, the order and the interruptions; and what reports make of them."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.arena.placement import Here, Processes, place
from skep.arena.report import render_html, render_markdown, standings
from skep.arena.report.stats import bootstrap, wilson
from skep.arena.report.svg import Series, line_chart
from skep.arena.scenarios import select_scenarios
from skep.arena.sweep import Plan, load_results, make_plan, run_sweep
from skep.arena.trial import Trial, run_trial
from skep.errors import Conflict, InvalidInput
from skep.process.identity import read_stat

SCENARIOS = select_scenarios("all-ready,too-few,cpu-slightly-over,held-out-job")


def plan(seeds: int = 2, policies: tuple[str, ...] = ("heuristic", "random")) -> Plan:
    return make_plan(SCENARIOS, policies, range(seeds), "shaped")


class Backwards:
    """A placement that runs everything in the opposite order."""

    def run(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, reversed(list(items)))


def bytes_of(folder: Path) -> bytes:
    return (folder / "results.json").read_bytes()


def test_results_are_equal_to_the_byte_whatever_the_placement(tmp_path: Path) -> None:
    run_sweep(plan(), Here(), tmp_path / "here")
    run_sweep(plan(), Backwards(), tmp_path / "backwards")
    run_sweep(plan(), Processes(2), tmp_path / "processes")
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "backwards") == bytes_of(tmp_path / "processes")


def test_same_trial_has_the_same_result() -> None:
    trial = Trial("twenty-pods-over", "random", 5, is_sampled=True)
    assert msgspec.json.encode(run_trial(trial)) == msgspec.json.encode(run_trial(trial))


def test_interrupted_sweep_goes_on_and_runs_nothing_twice(tmp_path: Path) -> None:
    run_sweep(plan(), Here(), tmp_path / "whole")
    seen: list[str] = []

    def interrupt(result: Any) -> None:
        seen.append(result.key())
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan(), Here(), tmp_path / "resumed", interrupt)
    lines = tmp_path / "resumed/trials.jsonl"
    with lines.open("ab") as file:
        file.write(b'{"half a line')
    run_sweep(plan(), Here(), tmp_path / "resumed")
    assert bytes_of(tmp_path / "resumed") == bytes_of(tmp_path / "whole")
    assert len(lines.read_bytes().splitlines()) == len(plan().trials())


SWEEP = (
    "arena",
    "sweep",
    "--scenarios",
    "training",
    "--policies",
    "heuristic,random,noop",
    "--seeds",
    "6",
    "--quiet",
)


def start_sweep(folder: Path, processes: int) -> subprocess.Popen[bytes]:
    argv = [
        sys.executable,
        "-m",
        "skep.cli.main",
        *SWEEP[:2],
        str(folder),
        *SWEEP[2:],
        "--processes",
        str(processes),
    ]
    # A killed sweep cannot clear its temporary folder: that stands inside the test's own.
    scratch = folder.parent / "tmp"
    scratch.mkdir(exist_ok=True)
    env = {**os.environ, "TMPDIR": str(scratch)}
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True, env=env)


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    pause = threading.Event()
    for _ in range(int(within_s / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("the condition never came true")


@pytest.mark.nested
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds children by /proc")
def test_killed_sweep_leaves_no_process_and_resumes_to_equal_bytes(tmp_path: Path) -> None:
    lines = tmp_path / "killed/trials.jsonl"
    with start_sweep(tmp_path / "killed", 2) as victim:
        wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 3)
        workers = children_of(victim.pid)
        assert len(workers) >= 2
        victim.send_signal(signal.SIGKILL)
    # One that waits to be reaped by whoever inherited it is gone.
    wait_until(lambda: all((stat := read_stat(worker)) is None or stat.is_dead for worker in workers))
    done_before = lines.read_bytes().count(b"\n")
    assert done_before < 15 * 3 * 6
    assert start_sweep(tmp_path / "killed", 2).wait(100) == 0
    assert start_sweep(tmp_path / "one", 1).wait(100) == 0
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "one")


def test_folder_of_another_plan_is_refused(tmp_path: Path) -> None:
    run_sweep(plan(1, ("noop",)), Here(), tmp_path)
    with pytest.raises(Conflict, match=r"plan\.json"):
        run_sweep(plan(2, ("noop",)), Here(), tmp_path)


def test_plans_are_checked() -> None:
    with pytest.raises(InvalidInput):
        make_plan((), ("noop",), (0,), "base").trials()
    with pytest.raises(InvalidInput, match="1000000"):
        make_plan(SCENARIOS, ("noop",), range(1_000_000), "base").trials()
    assert isinstance(place(1), Here)
    assert isinstance(place(3), Processes)
    with pytest.raises(ValueError, match="1 or more"):
        Processes(0)


def test_policy_that_fails_loses_and_the_sweep_goes_on(tmp_path: Path) -> None:
    failing = make_plan(
        SCENARIOS[:1], ("llm", "noop"), (0,), "base", {"llm": {"url": "http://127.0.0.1:9/v1", "model": "m"}}
    )
    results = run_sweep(failing, Here(), tmp_path)
    llm, noop = results.trials
    assert (llm.is_solved, llm.ended_by) == (False, "policy failed")
    assert "cannot be reached" in (llm.error or "")
    assert noop.is_solved
    assert "cannot be reached" in render_html(results)


def test_results_load_again_and_strangers_are_refused(tmp_path: Path) -> None:
    results = run_sweep(plan(1, ("noop",)), Here(), tmp_path)
    assert load_results(tmp_path) == results
    with pytest.raises(InvalidInput, match="no results"):
        load_results(tmp_path / "nowhere")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InvalidInput):
        load_results(tmp_path)


# Statistics and reports.


def test_wilson_interval_of_known_values() -> None:
    found = wilson(8, 10)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0).value is None
    assert (wilson(5, 5).high, wilson(0, 5).low) == (1.0, 0.0)


def test_bootstrap_covers_the_mean_and_repeats_itself() -> None:
    values = [float(one) for one in range(20)]
    found = bootstrap(values)
    assert found == bootstrap(values)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 9.5 < found.high
    assert bootstrap([]).value is None
    assert bootstrap([2.0, 2.0]) == type(found)(2.0, 2.0, 2.0)


def test_reports_rank_and_show_everything() -> None:
    results = run_sweep(plan(), Here())
    found = standings(results)
    assert next((one.part, one.policy) for one in found) == ("training", "heuristic")
    assert {one.part for one in found} == {"training", "held-out"}
    text = render_markdown(results)
    assert "| heuristic | 6/6 | 100 %" in text
    page = render_html(results)
    assert page.startswith("<!doctype html>")
    assert "prefers-color-scheme:dark" in page
    for outside in ("<script", "http://", "https://", "@import", "url("):
        assert outside not in page
    for scenario in results.plan.scenarios:
        assert f'id="{scenario}"' in page
    assert page.count("<svg") >= 4 * len(SCENARIOS)


def test_page_escapes_what_others_wrote() -> None:
    results = run_sweep(plan(1, ("noop",)), Here())
    hostile = msgspec.structs.replace(results.trials[0], error="<script>alert(1)</script>")
    page = render_html(msgspec.structs.replace(results, trials=(hostile, *results.trials[1:])))
    assert "<script>" not in page


def test_results_are_plain_json(tmp_path: Path) -> None:
    run_sweep(plan(1, ("noop",)), Here(), tmp_path)
    found = json.loads(bytes_of(tmp_path))
    assert found["generated_by"] == "skep arena"
    assert {"trial", "is_solved", "return", "views"} <= set(found["trials"][0])
    assert len(list(tmp_path.glob("results.json*"))) == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="no folder can be made"):
        run_sweep(plan(1), Here(), tmp_path / "file" / "sweep")


def test_lines_that_lie_on_each_other_both_show() -> None:
    line = [(0.0, 0.0), (1.0, 3.0)]
    drawn = line_chart("two", [Series("a", line, 0), Series("b", line, 1)], x_label="x", y_label="y")
    assert drawn.count("stroke-dasharray") == 1
    counted = line_chart("pods", [Series("a", line, 0)], x_label="s", y_label="pods", is_stepped=True)
    assert "0.5" not in counted.partition('class="axis')[0].partition('class="tick mid"')[0]
