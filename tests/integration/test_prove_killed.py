"""A runner that is SIGKILLed in the middle of a scenario with a real hive: nothing of it is left five seconds later."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skep.process import group
from skep.proof.verify import Verdict, verify_bundle
from skep.testkit.fleet.daemon import MARK
from skep.testkit.waiting import patient_s, wait_until, when

pytestmark = pytest.mark.timeout(200)

LEFT_S_MAX = 5.0
FEATURE = """
Feature: Killed
  Scenario: A pool is ready, and its runner is killed
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct" and 2 replicas
    When somebody waits
    Then the hive should be ready
"""
STEPS = """
import pathlib, tempfile, time
from pytest_bdd import when
from skep.testkit.steps import *

@when("somebody waits")
def waits(world):
    told = pathlib.Path("facts.new")
    told.write_text(f"{world.lab.mark} {tempfile.gettempdir()}")
    told.rename("facts")
    time.sleep(600)
"""


@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_killed_runner_leaves_no_process_no_folder_and_a_partial_bundle(tmp_path, processes) -> None:
    suite = tmp_path / "features"
    suite.mkdir()
    (suite / "killed.feature").write_text(FEATURE)
    (suite / "conftest.py").write_text(STEPS)
    (suite / "test_killed.py").write_text('from pytest_bdd import scenarios\nscenarios("killed.feature")\n')
    argv = [sys.executable, "-m", "skep.cli.main", "prove", "--run-id", "killed", *processes]
    with (tmp_path / "out").open("wb") as out:
        runner = subprocess.Popen(argv, cwd=tmp_path, stdout=out, stderr=out)
    facts = tmp_path / "facts"
    wait_until(when("the pool is ready", lambda: facts.exists() or runner.poll() is not None), within_s=120)
    assert runner.poll() is None, (tmp_path / "out").read_text()
    mark, folder = facts.read_text().split()
    assert len(group.marked(MARK, mark)) >= 3, "a hive and two workers"
    runner.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    runner.wait()
    gone = when("nothing is left", lambda: group.marked(MARK, mark), lambda found: not found)
    wait_until(gone & when("its folder is gone", lambda: not Path(folder).exists()), within_s=LEFT_S_MAX)
    assert time.monotonic() - killed < patient_s(LEFT_S_MAX) + 1
    result = verify_bundle(tmp_path / ".proof_bundle" / "bdd" / "killed")
    assert result.verdict is Verdict.PARTIAL
    assert "was running: features/killed.feature:3" in result.notes
    assert list((tmp_path / ".proof_bundle" / "bdd" / "killed" / "logs").rglob("hive.log"))
