"""Helpers of the process tests: real children, written in a line or two of Python."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from skep.process.child import ChildSpec
from skep.process.identity import read_stat


def _until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


async def _until_async(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., None]:
    return _until


@pytest.fixture
def until_async() -> Callable[..., object]:
    return _until_async


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., ChildSpec]:
    """Make the spec of a child that runs this code; its output goes to `child.log`."""

    def make(code: str, *args: str, pass_fds: Sequence[int] = (), **env: str) -> ChildSpec:
        return ChildSpec(
            argv=(sys.executable, "-c", code, *args),
            env={"PATH": os.environ["PATH"], **env},
            log_path=tmp_path / "child.log",
            pass_fds=tuple(pass_fds),
            cwd=tmp_path,
        )

    return make


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    def gone(pid: int) -> bool:
        stat = read_stat(pid)
        return stat is None or stat.is_dead

    return gone
