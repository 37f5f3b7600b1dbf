"""The language-model policy on our own gateway: a real queen, hive and worker with the tiny model."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.arena.actions import BUILT_IN
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.episode import run_episode
from skep.arena.policies.llm import LlmPolicy
from skep.arena.runner import StepOptions
from skep.arena.scenarios import find_scenario

pytestmark = pytest.mark.llama
READY_S_MAX, STOP_S_MAX = 90.0, 20.0


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    """A fleet on loopback, as `skep up` starts it; yields its address."""
    argv = [str(Path(sys.executable).with_name("skep")), "up", "--port", "0", "--quiet"]
    environment = {**os.environ, "SKEP_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    giving_up = threading.Timer(READY_S_MAX, process.kill)
    giving_up.start()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        giving_up.cancel()
        assert url, process.communicate()[1]
        yield url
    finally:
        giving_up.cancel()
        giving_up.join()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=STOP_S_MAX)


def test_model_on_our_own_gateway_decides_and_repeats_itself(gateway: str, tmp_path: Path) -> None:
    scenario = find_scenario("cpu-slightly-over")
    seen = []
    for run in ("first", "second"):
        options = StepOptions(workspace=tmp_path / run, steps_max=2, reference=scenario.reference)
        with EmbeddedDriver(scenario.nodes) as driver:
            result = run_episode(
                scenario.trace,
                "default",
                "web",
                3,
                60.0,
                LlmPolicy(gateway, timeout_s=90),
                "shaped",
                4,
                driver,
                options=options,
            )
        assert all(step.decision.action in BUILT_IN for step in result.steps)
        lines = (tmp_path / run / "runs/step.jsonl").read_bytes().splitlines()
        assert {json.loads(line)["policy"] for line in lines} == {"llm"}
        seen.append([step.decision.action for step in result.steps])
    assert seen[0] == seen[1]
