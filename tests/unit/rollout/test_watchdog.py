"""A script on a host ends with its connection, under whatever shell it has, and with everything that it started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skep.rollout.shell import EXIT_CUT, command, following, probing, watched
from skep.rollout.transport import HEARD

ENDS_S_MAX = 20.0
MARK = "c0ffee"
Begin = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture(params=[True, False], ids=["leads a session", "leads none"])
def started(programs: Path, request: pytest.FixtureRequest) -> Iterator[Begin]:
    """What runs a command as a server does: one that makes it the leader of a session, or one that does not."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(text: str) -> "subprocess.Popen[bytes]":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            ["sh", "-c", text],
            **pipes,
            env={"PATH": f"{programs}:/usr/bin:/bin", "TMOUT": "1"},
            start_new_session=request.param,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with process:
            process.kill()


@pytest.fixture(params=["by a command", "after a probe"])
def begin(started: Begin, request: pytest.FixtureRequest) -> Begin:
    """What starts a watched script, in either of the two ways."""
    if request.param == "by a command":
        return lambda text: started(command(text))

    def after_a_probe(text: str) -> "subprocess.Popen[bytes]":
        process = started(probing("echo facts", MARK))
        assert told(process) == f"facts\n\n{MARK} 0\n".encode()
        say(process, following(text))
        return process

    return after_a_probe


def told(process: "subprocess.Popen[bytes]") -> bytes:
    """Return what is told up to the mark's line."""
    found = b""
    while not (line := process.stdout.readline()).startswith(MARK.encode()):
        assert line, found
        found += line
    return found + line


def say(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    process.stdin.write(data)
    process.stdin.flush()


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """The pids that a script wrote down; what is left of them is killed."""
    found: list[int] = []
    yield found
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("hears", [True, False])
def test_a_script_and_its_children_end_when_stdin_closes(
    begin: Begin, tmp_path: Path, pids: list[int], hears: bool
) -> None:
    note = tmp_path / "pids"
    script = f"{'begin_watch' if hears else ''}\n( sleep 600 & echo $! >> {note}; echo $$ >> {note}; wait )"
    process = begin(watched(script, hears=hears))
    until(lambda: note.exists() and len(note.read_text().split()) == 2)
    pids += map(int, note.read_text().split())
    process.stdin.close()
    process.wait(ENDS_S_MAX)
    until(lambda: not any(map(runs, pids)))


def runs(pid: int) -> bool:
    """True unless the process is gone, or only waits to be reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_what_we_say_reaches_a_script_that_hears_also_after_it_was_watched(begin: Begin) -> None:
    script = f'begin_watch; end_watch; echo; read -r a <&{HEARD}; begin_watch; echo "heard $a"; exit 3'
    process = begin(watched(script, hears=True))
    assert process.stdout.readline() == b"\n", "it asks"
    say(process, b"go\n")
    assert process.stdout.read() == b"heard go\n"
    assert process.wait(ENDS_S_MAX) == 3


@pytest.mark.parametrize(("script", "status"), [("set -e\ntrue\n", 0), ("set -e\nfalse\n", 1), ("exit 7", 7)])
def test_a_watched_script_ends_with_its_own_status_and_says_nothing_of_the_watch(
    begin: Begin, script: str, status: int
) -> None:
    process = begin(watched(script, hears=False))
    assert process.wait(ENDS_S_MAX) == status
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


def test_bytes_that_follow_a_script_are_left_for_it(begin: Begin) -> None:
    data = bytes(range(256)) * 400
    process = begin(watched(f"head -c {len(data)} <&{HEARD} | od -An -tx1 -v | tr -d ' \\n'", hears=True))
    say(process, data)
    assert bytes.fromhex(process.stdout.read().decode()) == data
    assert process.wait(ENDS_S_MAX) == 0


def test_a_probe_that_nothing_follows_ends_with_its_connection(started: Begin) -> None:
    process = started(probing("cat; echo facts", MARK))
    assert told(process) == f"facts\n\n{MARK} 0\n".encode()
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(ENDS_S_MAX) == 0


def test_a_mark_stands_on_a_line_of_its_own_and_tells_how_the_probe_ended(started: Begin) -> None:
    assert told(started(probing("printf facts; false", MARK))) == f"facts\n{MARK} 1\n".encode()


def test_a_script_that_was_cut_on_its_way_is_not_begun(started: Begin, tmp_path: Path) -> None:
    process = started(probing(":", MARK))
    told(process)
    note = tmp_path / "begun"
    say(process, following(watched(f"touch {note}\ntrue\n", hears=False))[:-8])
    process.stdin.close()
    assert process.wait(ENDS_S_MAX) == EXIT_CUT
    assert not note.exists()


def test_a_silence_ends_neither_a_watched_script_nor_a_waiting_shell(begin: Begin) -> None:
    """bash ends a `read` after `TMOUT` seconds, which the host's environment sets to 1 here."""
    process = begin(watched("sleep 1.5; echo done", hears=False))
    assert process.stdout.read() == b"done\n"
    assert process.wait(ENDS_S_MAX) == 0


def test_a_shell_that_waits_for_a_script_waits_on(started: Begin) -> None:
    process = started(probing(":", MARK))
    told(process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    say(process, following(watched("echo done", hears=False)))
    assert process.stdout.read() == b"done\n"


def test_a_probe_that_ends_by_itself_says_no_mark(started: Begin) -> None:
    process = started(probing("echo facts; exit 70", MARK))
    assert process.stdout.read() == b"facts\n"
    assert process.wait(ENDS_S_MAX) == 70


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ENDS_S_MAX
    while not holds():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.02)
