"""Whether a hive runs is read from a pid and its start time; neither a pid used again nor an unreaped process counts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.rollout import layout
from skep.rollout.service import IS_SERVING


def serves(home: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", f'{IS_SERVING}echo "$s"'], cwd=home, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def note(home: Path, pid: int, shift: int = 0) -> None:
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19])
    (home / layout.SERVICE_PID).parent.mkdir(parents=True, exist_ok=True)
    (home / layout.SERVICE_PID).write_text(f"{pid} {started + shift}\n")


@pytest.fixture
def child() -> Iterator[subprocess.Popen]:
    """A process that lives until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        yield child
        child.kill()


def test_a_living_supervisor_serves(child: subprocess.Popen, tmp_path: Path) -> None:
    note(tmp_path, child.pid)
    assert serves(tmp_path) == "running"


def test_another_process_with_its_pid_does_not(child: subprocess.Popen, tmp_path: Path) -> None:
    note(tmp_path, child.pid, shift=-1)
    assert serves(tmp_path) == "stopped"


def test_one_that_was_killed_and_is_not_reaped_does_not(child: subprocess.Popen, tmp_path: Path) -> None:
    note(tmp_path, child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # It is dead, and stays a zombie.
    assert serves(tmp_path) == "stopped"
