"""A process that we own and watch by pidfd, whether we started it (`child`) or found it (`adopted`).

The reap is a callback of the event loop, not a task: nothing that is cancelled can prevent it.
"""

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import msgspec

from skep.errors.process import ReapTimedOut
from skep.process import group
from skep.process.identity import is_running

GRACE_S = 5.0
REAP_S_MAX = 5.0


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended. Both None: it was not our child, so the kernel did not tell. `forced`: SIGKILL by us."""

    code: int | None = None
    signal: int | None = None
    forced: bool = False

    def __str__(self) -> str:
        """Return it for people."""
        if self.signal is not None:
            return f"signal {signal.Signals(self.signal).name}"
        return "an unknown exit" if self.code is None else f"exit code {self.code}"


class OwnedProcess(ABC):
    """The leader of its own session and process group; `pgid` is its pid.

    `async with` stops it on the way out. When it ends by itself, what is left of its group is killed at once.
    """

    def __init__(self, *, pid: int, started_at: int, pidfd: int) -> None:
        self.pid = self.pgid = pid
        self.started_at = started_at
        self._pidfd = pidfd
        self._forced = False
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[Exit] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._on_exit)

    @abstractmethod
    def _collect(self) -> Exit:
        """Reap the process that has just ended, without waiting."""

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._gone.result() if self._gone.done() else None

    @property
    def is_running(self) -> bool:
        """True until it has ended, also when the loop has not heard of the end yet."""
        return not self._gone.done() and is_running(self.pid, self.started_at)

    async def wait(self) -> Exit:
        """Return how it ended, when it has."""
        return await asyncio.shield(self._gone)

    def send(self, number: int) -> None:
        """Send a signal to the whole group; too late is fine."""
        if not self._gone.done():
            group.send(self.pgid, number)

    def kill(self) -> None:
        """SIGKILL the whole group now, without awaiting anything."""
        if not self._gone.done():
            self._forced = True
            group.send(self.pgid, signal.SIGKILL)

    async def stop(self, grace_s: float = GRACE_S) -> Exit:
        """SIGTERM the group, wait `grace_s`, SIGKILL it, and wait until nothing of it is left.

        A cancel during the wait kills at once; a second one cannot prevent that. Raises: ReapTimedOut.
        """
        try:
            self.send(signal.SIGTERM)
            self.send(signal.SIGCONT)  # A stopped process sees the SIGTERM only when it runs again.
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        return await asyncio.shield(self._reaped())

    async def _reaped(self) -> Exit:
        try:
            async with asyncio.timeout(REAP_S_MAX):
                ended = await self.wait()
        except TimeoutError:
            raise ReapTimedOut(
                f"process {self.pid} was killed and is still there after {REAP_S_MAX:.0f} s",
                pid=self.pid,
                members=[self.pid],
            ) from None
        left = await group.wait_empty(self.pgid, within_s=REAP_S_MAX)
        if left:
            pids = [one.pid for one in left]
            raise ReapTimedOut(
                f"processes {pids} of group {self.pgid} do not end", pid=self.pid, members=pids
            )
        return ended

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Before the leader is reaped its pid, and so the group's number, cannot be reused.
        group.kill_leftovers(self.pgid)
        if not self._gone.done():
            self._gone.set_result(self._collect())

    def release(self) -> None:
        """Stop watching, and leave the process alone: somebody else owns it from now on."""
        if not self._gone.done():
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._gone.set_result(Exit())

    async def aclose(self) -> None:
        """Stop it with the standard grace."""
        await self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
