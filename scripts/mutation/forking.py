"""pytest in a fork: everything heavy is imported once, in the parent."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ALWAYS = ("-q", "-p", "no:xdist", "-p", "no:schemathesis", "-W", "ignore::pytest.PytestAssertRewriteWarning")


def warm_up() -> None:
    """Import what every child needs, and nothing of ours: a mutant must come first."""
    import hypothesis
    import msgspec
    import pytest

    # The same examples for every mutant, none from an earlier run, and few: a mutant dies early or is wrong everywhere.
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, max_examples=50
    )
    hypothesis.settings.load_profile("mutation")
    _ = msgspec, pytest


def exit_status(arguments: Sequence[str], *, before: Callable[[], None], log: Path, within_s: float) -> int:
    """Run pytest in a child; return its exit code, or −1 when it had to be killed."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            os.setsid()
            fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            before()
            import pytest

            status = int(pytest.main([*ALWAYS, *arguments]))
        finally:
            sys.stdout.flush()
            os._exit(status)
    deadline_s = time.monotonic() + within_s
    while True:
        pid, ended = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(ended)
        if time.monotonic() > deadline_s:
            os.kill(child, signal.SIGKILL)  # What it started ends with its pipes.
            os.waitpid(child, 0)
            return -1
        time.sleep(0.01)
