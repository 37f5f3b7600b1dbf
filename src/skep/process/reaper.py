"""Zombies and strays: descendants that outlived their parents come to us, and we reap them.

A daemon that is pid 1 of a container, or that called `become_subreaper`, inherits the orphans of its children.
"""

import ctypes
import os
from collections.abc import Collection
from contextlib import suppress

from skep.process import group
from skep.process.identity import all_stats

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become_subreaper() -> bool:
    """Let orphaned descendants become our children instead of init's; False when the kernel refuses."""
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def reap_zombies(*, except_for: Collection[int]) -> list[int]:
    """Reap our dead children whose exit nobody else waits for, and return their pids."""
    reaped = []
    for stat in all_stats():
        if stat.parent == os.getpid() and stat.is_dead and stat.pid not in except_for:
            with suppress(ChildProcessError):
                os.waitpid(stat.pid, os.WNOHANG)
                reaped.append(stat.pid)
    return reaped


def kill_marked(variable: str, value: str) -> int:
    """SIGKILL every process with that mark in its environment, wherever it hides; return how many."""
    return group.kill_each(group.marked(variable, value))
