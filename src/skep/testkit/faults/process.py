"""What goes wrong with a process, done to one that runs."""

import os
import random
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from skep.errors import InvalidInput


def kill(pid: int) -> None:
    """End it as the kernel would: no clean-up."""
    os.kill(pid, signal.SIGKILL)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hang it for as long as the context lasts: it is there, and answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def descriptors_exhausted(pid: int) -> Iterator[None]:
    """Let it open no further file: its limit becomes what it has open now."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names alone
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def choose(pids: Sequence[int], *, seed: int) -> int:
    """Choose a victim, the same for the same seed. Raises: InvalidInput when there is none."""
    if not pids:
        raise InvalidInput("there is no process to choose from")
    return random.Random(seed).choice(sorted(pids))  # noqa: S311 - a replayable choice, no secret


def stubborn(*, seconds: float = 60.0) -> str:
    """Python source of a program that ignores SIGTERM and forks a grandchild that does so too."""
    return (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork()\n"
        f"time.sleep({seconds})\n"
    )
