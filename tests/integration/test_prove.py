"""`skep prove` and `skep proof` as processes, over a small suite."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from skep.testkit.waiting import wait_until, when

pytestmark = pytest.mark.timeout(400)

FEATURE = """
Feature: Sums
  @AB-SUM-1001
  Scenario: Adding
    Given a number 3
    When I add 4
    Then the sum should be 7

  Scenario Outline: Many
    Given a number <a>
    When I add <a>
    Then the sum should be <b>
    Examples:
      | a | b |
      | 1 | 2 |
      | 2 | 4 |
"""
OTHER = """
Feature: Slow
  @slow
  Scenario: Waiting
    Given a number 1
    When somebody waits
    Then the sum should be 1
"""
STEPS = """
import asyncio, pathlib
from pytest_bdd import given, parsers, then, when

@given(parsers.parse("a number {n:d}"), target_fixture="box")
def number(n, seed):
    with pathlib.Path("seeds-drawn").open("a") as file:
        file.write(f"{seed}\\n")
    return [n]

@when(parsers.parse("I add {n:d}"))
async def add(box, n):
    box.append(n)

@when("somebody waits")
async def waits():
    pathlib.Path("waiting").touch()
    await asyncio.sleep(60 if pathlib.Path("slow").exists() else 0)

@then(parsers.parse("the sum should be {n:d}"))
def check(box, n):
    assert sum(box) == n
"""


@pytest.fixture
def suite(tmp_path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "sums.feature").write_text(FEATURE)
    (folder / "slow.feature").write_text(OTHER)
    (folder / "conftest.py").write_text(STEPS)
    (folder / "test_all.py").write_text(
        'from pytest_bdd import scenarios\nscenarios("sums.feature", "slow.feature")\n'
    )
    return tmp_path


def skep(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skep.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def shown(folder: Path, name: str = "latest") -> dict:
    found = skep(folder, "proof", "show", name, "--json")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_a_run_in_two_processes_is_proved_and_replayed_with_its_seeds(suite) -> None:
    first = skep(suite, "prove", "-n", "2")
    assert first.returncode == 0, first.stdout + first.stderr
    seeds = sorted((suite / "seeds-drawn").read_text().split())
    (suite / "seeds-drawn").unlink()
    assert skep(suite, "proof", "verify").stdout.strip().endswith("intact")
    assert {each["worker"] for each in shown(suite)["scenarios"]} <= {"gw0", "gw1"}
    assert skep(suite, "prove", "--replay", "latest").returncode == 0
    assert sorted((suite / "seeds-drawn").read_text().split()) == seeds
    assert shown(suite)["metadata"]["replay_of"]


@pytest.mark.parametrize(
    "names", [("SKEP_FEATURE_PATH", "SKEP_RUN_ID"), ("LLORCH_BDD_FEATURE_PATH", "LLORCH_RUN_ID")]
)
def test_the_environment_chooses_the_feature_and_names_the_run(suite, names) -> None:
    env = dict(zip(names, ("features/slow.feature", "mine"), strict=True))
    assert skep(suite, "prove", **env).returncode == 0
    found = shown(suite, "mine")
    assert [each["name"] for each in found["scenarios"]] == ["Waiting"]
    taken = skep(suite, "prove", **env)
    assert taken.returncode == 1
    assert "never overwritten" in taken.stdout + taken.stderr


def test_tags_choose_and_nothing_chosen_proves_nothing(suite) -> None:
    assert skep(suite, "prove", "--tags", "@AB-SUM-1001 and not @slow").returncode == 0
    assert [each["name"] for each in shown(suite)["scenarios"]] == ["Adding"]
    assert skep(suite, "prove", "--tags", "@none").returncode == 1


def test_a_dry_run_checks_and_runs_nothing(suite) -> None:
    assert skep(suite, "prove", "--dry-run").returncode == 0
    assert not (suite / "seeds-drawn").exists()
    assert not (suite / ".proof_bundle").exists()
    (suite / "features" / "sums.feature").write_text(FEATURE.replace("I add 4", "I subtract 4"))
    dry = skep(suite, "prove", "--dry-run")
    assert dry.returncode == 1
    assert "sums.feature:6: undefined-step" in dry.stdout


def test_live_output_shows_each_step(suite) -> None:
    live = skep(suite, "prove", "--nocapture", "--feature", "sums.feature")
    assert "✓ When I add 4" in live.stderr


def test_a_failure_is_shown_with_its_step_and_differs_from_the_run_before(suite) -> None:
    assert skep(suite, "prove", "--run-id", "before").returncode == 0
    (suite / "features" / "sums.feature").write_text(FEATURE.replace("should be 7", "should be 8"))
    assert skep(suite, "prove", "--run-id", "after").returncode == 1
    found = skep(suite, "proof", "show", "after").stdout
    assert "failed: Then the sum should be 8" in found
    diff = skep(suite, "proof", "diff", "before", "after")
    assert diff.returncode == 1
    assert diff.stdout.startswith("broke: Adding")
    assert "before" in skep(suite, "proof", "list").stdout


@pytest.mark.parametrize("processes", [(), ("-n", "1")])
def test_a_run_that_is_killed_leaves_a_partial_bundle(suite, processes) -> None:
    (suite / "slow").touch()
    (suite / "features" / "test_all.py").write_text(
        'from pytest_bdd import scenarios\nscenarios("sums.feature")\nscenarios("slow.feature")\n'
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "skep.cli.main", "prove", "--run-id", "killed", *processes],
        cwd=suite,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (suite / "waiting").exists():
        assert time.monotonic() < deadline
        assert runner.poll() is None
        time.sleep(0.02)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    nobody = when("nothing of the runner is left", lambda: working_in(suite), lambda left: not left)
    wait_until(nobody, within_s=5)
    verdict = skep(suite, "proof", "verify", "killed")
    assert verdict.returncode == 1
    assert ": partial" in verdict.stdout
    assert "was running: features/slow.feature:4" in verdict.stdout
    assert [each["status"] for each in shown(suite, "killed")["scenarios"]] == ["passed"] * 3


def working_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working folder is this one: a runner, its workers, its guard."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_steps_are_listed_with_their_uses(suite) -> None:
    found = {each["pattern"]: each for each in json.loads(skep(suite, "steps", "--json").stdout)}
    assert found["I add {n:d}"]["uses"] == 3
    assert found["I add {n:d}"]["example"] == "I add 4"
    assert "somebody waits" in skep(suite, "steps", "--search", "waits").stdout


def test_a_run_in_which_all_was_skipped_proves_nothing(suite) -> None:
    feature = suite / "features" / "sums.feature"
    feature.write_text(FEATURE.replace("Feature: Sums", "@level.netns\nFeature: Sums"))
    done = skep(suite, "prove", "--run-id", "skips", "--tags", "AB-SUM-1001", "--level", "loopback")
    assert done.returncode == 1, done.stdout
    assert "proof bundle (failed)" in done.stdout
    view = shown(suite, "skips")
    assert [each["status"] for each in view["scenarios"]] == ["skipped"]
    attestation = json.loads((suite / ".proof_bundle" / "bdd" / "skips" / "attestation.json").read_text())
    assert attestation["predicate"]["result"] == "FAILED"
