"""Whether a hive runs is read from a pid and its start time; neither a pid used again nor an unreaped process counts."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skep.rollout import layout
from skep.rollout.recipes import uninstall
from skep.rollout.service import IS_SERVING, LOGS_KEPT, STOP, start_supervised


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


def run_at(home: Path, script: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(home)}
    return subprocess.run(
        ["sh", "-ec", script], cwd=home, env=env, capture_output=True, text=True, timeout=30, check=True
    )


TALKER = """#!/bin/sh
n=0
while [ ! -e "$HOME/quiet" ]; do n=$((n+1)); echo "line $n of a hive that has much to say about its day"; done
exec sleep 600
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A host's home whose hive talks without a pause, until there is a file `quiet`."""
    home = tmp_path / "a home's folder"
    for folder in (layout.BIN, layout.SHARE):
        (home / folder).mkdir(parents=True)
    (home / layout.BIN / "skep").write_text(TALKER)
    (home / layout.BIN / "skep").chmod(0o700)
    yield home
    run_at(home, STOP)


def test_the_log_of_our_own_supervisor_is_bounded_and_its_end_is_kept(home: Path) -> None:
    run_at(home, start_supervised(log_bytes_max=50_000, look_s=0.02))
    log = home / layout.SERVICE_LOG
    kept = [log.with_name(f"{log.name}.{number}") for number in range(1, LOGS_KEPT + 1)]
    first = until(lambda: kept[-1].exists() and kept[-1].read_text())
    until(lambda: kept[-1].read_text() != first)  # The oldest goes.
    (home / "quiet").touch()
    until(lambda: log.stat().st_size <= 50_000)
    assert sorted(path.name for path in log.parent.glob("hive.log*")) == [
        log.name,
        *(one.name for one in kept),
    ]
    assert all(one.stat().st_size > 50_000 for one in kept), "none is cut before it is full"
    starts = [int(one.read_text().split("line ")[1].split()[0]) for one in kept]
    assert starts == sorted(starts, reverse=True), "the newest is the first"
    run_at(home, STOP)
    assert serves(home) == "stopped"
    until(lambda: not marked(home))


def test_a_disk_without_room_for_a_copy_gets_its_log_emptied(home: Path) -> None:
    (home / "tools").mkdir()
    (home / "tools/cp").write_text('#!/bin/sh\n: > "$2"\necho no space left >&2\nexit 1\n')
    (home / "tools/cp").chmod(0o700)
    run_at(home, 'PATH="$HOME/tools:$PATH"\n' + start_supervised(log_bytes_max=50_000, look_s=0.02))
    log = home / layout.SERVICE_LOG
    until(lambda: "no space left" in log.read_text())
    assert [path.name for path in log.parent.glob("hive.log.*") if path.suffix != ".new"] == []


def test_removal_takes_the_kept_logs_too(home: Path) -> None:
    log = home / layout.SERVICE_LOG
    for name in (log.name, *(f"{log.name}.{number}" for number in range(1, LOGS_KEPT + 1))):
        log.with_name(name).touch()
    run_at(home, uninstall().script)
    assert list(log.parent.glob("hive.log*")) == []


def until(condition: Callable[[], object]) -> object:
    deadline_s = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return found


def marked(home: Path) -> list[str]:
    """Return what still runs with this home."""
    mark, found = f"HOME={home}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(entry.name)
    return found
