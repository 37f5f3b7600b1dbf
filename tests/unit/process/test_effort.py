"""A group that works is told from one that waits."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from skep.process.effort import Effort


@contextmanager
def running(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def until_grew(effort: Effort, *, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if effort.grew():
            return True
    return False


def test_a_group_that_computes_grows() -> None:
    with running("while True: pass") as pid:
        assert until_grew(Effort(pid))


def test_a_group_that_waits_does_not_grow() -> None:
    with running("import sys, time; print(flush=True); time.sleep(60)") as pid:
        effort = Effort(pid)
        while until_grew(effort, within_s=0.5):
            pass  # It starts.
        assert not until_grew(effort, within_s=0.5)


def test_a_group_that_is_gone_does_not_grow() -> None:
    with running("pass") as pid:
        pass
    assert not Effort(pid).grew()
