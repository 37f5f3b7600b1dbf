"""Starting a child: its own session, its log file, and nothing of ours that it was not given."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from skep.errors.process import SpawnFailed
from skep.process import log
from skep.process.identity import started_at
from skep.process.owned import Exit, OwnedProcess

__all__ = ["Child", "ChildSpec", "Exit", "spawn"]


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. `env` is the whole environment; `pass_fds` keep their numbers; no `log_path`: output is dropped."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    log_path: Path | None = None
    pass_fds: tuple[int, ...] = ()
    cwd: Path | None = None


class Child(OwnedProcess):
    """A process that we started."""

    def __init__(self, popen: subprocess.Popen[bytes], *, started_at: int, pidfd: int) -> None:
        self._popen = popen
        super().__init__(pid=popen.pid, started_at=started_at, pidfd=pidfd)

    def _collect(self) -> Exit:
        code = self._popen.wait()
        ended_by = -code if code < 0 else None
        return Exit(code=None if ended_by else code, signal=ended_by, forced=self._forced)

    def release(self) -> None:
        """Stop watching; it lives on, and whoever owns us then reaps it."""
        if self.exit is None:
            self._popen.returncode = (
                0  # So that the interpreter does not warn of a child it thinks forgotten.
            )
        super().release()


async def spawn(spec: ChildSpec) -> Child:
    """Start the child in its own session and process group. Raises: SpawnFailed."""
    output: int = log.open_for_append(spec.log_path) if spec.log_path else subprocess.DEVNULL
    try:
        # Not in a thread: a cancel would lose the process that the thread is about to start.
        popen = subprocess.Popen(  # noqa: ASYNC220 - about a millisecond, see above
            spec.argv,
            env=dict(spec.env),
            cwd=spec.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=spec.pass_fds,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise SpawnFailed(
            f"cannot start {spec.argv[0]}: {error}", argv0=spec.argv[0], reason=str(error)
        ) from error
    finally:
        if output >= 0:
            os.close(output)
    try:
        return Child(popen, started_at=started_at(popen.pid), pidfd=os.pidfd_open(popen.pid))
    except BaseException:
        popen.kill()
        popen.wait()
        raise
