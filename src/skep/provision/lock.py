"""A lock between processes that dies with its owner: flock on a file that stays."""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from skep.errors.provision import LockBroken, LockTimedOut

WAIT_S_MAX = 7200.0
POLL_S = 0.1


@asynccontextmanager
async def locked(
    path: Path, *, wait_s_max: float = WAIT_S_MAX, on_wait: Callable[[], None] | None = None
) -> AsyncGenerator[None]:
    """Hold the lock at `path`; waiters poll, so a cancelled one leaves nothing behind.

    `on_wait` is called once when somebody else holds it. Raises: LockTimedOut, LockBroken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockBroken(f"cannot open the lock {path}: {error.strerror}", path=str(path)) from error
    try:
        await _acquire(handle, path, wait_s_max, on_wait)
        yield
    finally:
        os.close(handle)


async def _acquire(handle: int, path: Path, wait_s_max: float, on_wait: Callable[[], None] | None) -> None:
    try:
        async with asyncio.timeout(wait_s_max):
            told = False
            while not _try_lock(handle):
                if on_wait and not told:
                    on_wait()
                    told = True
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise LockTimedOut(
            f"{path} has been held by another process for {wait_s_max:g} s", path=str(path)
        ) from None


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
