"""The test that leaks is the one that is reported as failed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

LEAKS = {
    "process": ("import subprocess; subprocess.Popen(['sleep', '60'])", "*leaked: process * (sleep 60)*"),
    "orphan": ("import os; os.system('setsid sleep 61 &')", "*leaked: process * (sleep 61)*"),
    "port": ("import socket; keep.append(socket.create_server(('127.0.0.1', 0)))", "*leaked: port *"),
    "fd": ("import os; os.pipe()", "*leaked: fd *pipe:*"),
    "thread": (
        "import threading; threading.Thread(target=threading.Event().wait, name='lost', daemon=True).start()",
        "*leaked: thread 'lost'*",
    ),
    "temporary file": ("import tempfile; tempfile.mkdtemp(prefix='lost-')", "*leaked: temporary file lost-*"),
}


def run(pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:asyncio", "--skep-ledger", *arguments
    )


@pytest.mark.parametrize(("code", "told"), LEAKS.values(), ids=LEAKS.keys())
def test_the_test_that_leaks_fails_and_its_neighbours_pass(pytester, code: str, told: str) -> None:
    pytester.makepyfile(
        f"""
        keep = []

        def test_before(): pass

        def test_leaks():
            {code}

        def test_after(): pass
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"*test_leaks {told}"])


def test_what_is_put_back_is_no_leak_and_wider_scopes_are_exempt(pytester) -> None:
    pytester.makepyfile(
        """
        import os, socket, subprocess, tempfile, threading, pytest

        @pytest.fixture(scope="module")
        def server():
            with socket.create_server(("127.0.0.1", 0)) as found:
                yield found

        def test_opens_and_closes(tmp_path):
            process = subprocess.Popen(["true"])
            process.wait()
            thread = threading.Thread(target=lambda: None)
            thread.start()
            with tempfile.NamedTemporaryFile():
                (tmp_path / "kept").write_text("x")

        def test_first_user(request):
            assert request.getfixturevalue("server")

        def test_second_user(server): pass
        """
    )
    run(pytester).assert_outcomes(passed=3)
    run(pytester, "-n", "2").assert_outcomes(passed=3)


def test_a_killed_runner_leaves_nothing_behind(pytester) -> None:
    pytester.makepyfile(
        """
        import pathlib, subprocess, tempfile, time

        def test_hangs(process_guard):
            from skep.process.identity import started_at
            child = subprocess.Popen(["sleep", "300"], start_new_session=True)
            process_guard.watch(child.pid, started_at(child.pid))
            folder = tempfile.mkdtemp()
            pathlib.Path("facts").write_text(f"{child.pid} {folder}")
            time.sleep(300)
        """
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--skep-ledger", "--skep-bdd", "."],
        cwd=pytester.path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    facts = pytester.path / "facts"
    until(lambda: facts.exists() and facts.read_text(), within_s=60)
    pid, folder = facts.read_text().split()
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    until(lambda: not Path(folder).parent.exists() and not alive(int(pid)), within_s=5)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def until(condition, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()
        time.sleep(0.02)
