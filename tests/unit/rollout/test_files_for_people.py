"""The files for people who have Docker, Vagrant or GitHub: they agree with each other, and what they run exists."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from skep.rollout.config import load

ROOT = Path(__file__).parents[3]
HOSTS = ROOT / "tests/hosts"
JOBS: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]


def test_the_composed_hosts_are_those_that_are_declared() -> None:
    services = yaml.safe_load((HOSTS / "compose.yml").read_text())["services"]
    mapped = {name: service["ports"] for name, service in services.items()}
    declared = {
        host.alias: [f"{host.hostname}:{host.ssh_port}:22"] for host in load(HOSTS / "compose.toml").hosts
    }
    assert mapped == declared
    assert {service["hostname"] for service in services.values()} == set(services)
    assert all((HOSTS / service["build"] / "Dockerfile").exists() for service in services.values())


def test_the_image_takes_the_key_that_the_script_makes() -> None:
    copied = re.findall(r"^COPY (\S+)", (HOSTS / "Dockerfile").read_text(), re.MULTILINE)
    assert copied == ["id_hosts.pub"]


def test_the_boxes_are_those_that_are_declared() -> None:
    boxes = dict(re.findall(r'"([\w-]+)" => \["([\d.]+)"', (HOSTS / "Vagrantfile").read_text()))
    assert boxes == {host.alias: host.hostname for host in load(HOSTS / "vagrant.toml").hosts}


def test_the_key_is_made_once_and_let_in_once(tmp_path: Path) -> None:
    script = Path(shutil.copy(HOSTS / "make-key", tmp_path))
    home = tmp_path / "my home"
    home.mkdir()
    for _ in range(2):
        done = subprocess.run(
            [script, "--localhost"],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        )
    key = tmp_path / "id_hosts"
    assert done.stdout.decode() == f"{key}\n"
    assert key.stat().st_mode & 0o777 == 0o600
    allowed = home / ".ssh/authorized_keys"
    assert allowed.read_text() == (tmp_path / "id_hosts.pub").read_text()
    assert allowed.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("job", "step"), [(name, step) for name, step in STEPS if "run" in step])
def test_what_a_job_runs_is_there(job: str, step: dict[str, Any]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    script = step["run"]
    assert set(re.findall(r"\bmake ([a-z-]+)", script)) <= targets, job
    for path in re.findall(r"\b(?:tests|benchmarks|scripts)/[\w./-]+", script):
        assert (ROOT / path).exists(), f"{job}: {path}"
    subprocess.run(["bash", "-n", "-c", script], check=True)
    if "test_rollout_ssh" in script:
        asked = set(re.findall(r"TEST_SSH_\w+", (ROOT / "tests/integration/test_rollout_ssh.py").read_text()))
        assert asked <= set(step["env"])


def test_bundles_are_kept_also_of_a_run_that_failed() -> None:
    kept = [step for _, step in STEPS if step.get("with", {}).get("path") == ".proof_bundle"]
    assert [step["if"] for step in kept] == ["always()"]
