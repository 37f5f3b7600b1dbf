"""A script on a host ends with its connection, under whatever shell the host has, and with everything that it started."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skep.rollout.ssh import wrapped
from skep.rollout.transport import HEARD

ENDS_S_MAX = 20.0
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def path_of_shell(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH in which `sh` is this shell."""
    shell = shutil.which(request.param)
    assert shell
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to(shell)
    return f"{tmp_path / 'bin'}:/usr/bin:/bin"


@pytest.fixture
def started(path_of_shell: str, tmp_path: Path) -> Iterator[list[int]]:
    """The pids that the script wrote down; what is left of them is killed."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("leads", [True, False], ids=["leads a session", "leads none"])
@pytest.mark.parametrize("hears", [True, False])
def test_a_script_and_its_children_end_when_stdin_closes(
    path_of_shell: str, tmp_path: Path, started: list[int], hears: bool, leads: bool
) -> None:
    note = tmp_path / "pids"
    script = f"{'begin_watch' if hears else ''}\n( sleep 600 & echo $! >> {note}; echo $$ >> {note}; wait )"
    process = subprocess.Popen(
        ["sh", "-c", wrapped(script, hears=hears)],
        stdin=subprocess.PIPE,
        env={"PATH": path_of_shell},
        start_new_session=leads,
    )
    until(lambda: note.exists() and len(note.read_text().split()) == 2)
    started += map(int, note.read_text().split())
    assert process.stdin
    process.stdin.close()
    process.wait(ENDS_S_MAX)
    until(lambda: not any(map(runs, started)))


def runs(pid: int) -> bool:
    """True unless the process is gone, or only waits to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("leads", [True, False], ids=["leads a session", "leads none"])
def test_what_we_say_reaches_a_script_that_hears_also_after_it_was_watched(
    path_of_shell: str, leads: bool
) -> None:
    script = f'begin_watch; end_watch; echo; read -r a <&{HEARD}; begin_watch; echo "heard $a"; exit 3'
    with subprocess.Popen(
        ["sh", "-c", wrapped(script, hears=True)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": path_of_shell},
        start_new_session=leads,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "\n", "it asks"
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.read() == "heard go\n"
        assert process.wait(ENDS_S_MAX) == 3


@pytest.mark.parametrize("leads", [True, False], ids=["leads a session", "leads none"])
@pytest.mark.parametrize(("script", "status"), [("set -e\ntrue\n", 0), ("set -e\nfalse\n", 1), ("exit 7", 7)])
def test_a_watched_script_ends_with_its_own_status_and_says_nothing_of_the_watch(
    path_of_shell: str, leads: bool, script: str, status: int
) -> None:
    with subprocess.Popen(
        ["sh", "-c", wrapped(script, hears=False)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": path_of_shell},
        start_new_session=leads,
    ) as process:
        assert process.wait(ENDS_S_MAX) == status
        assert process.stdout
        assert process.stderr
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def until(holds) -> None:
    deadline = time.monotonic() + ENDS_S_MAX
    while not holds():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)
