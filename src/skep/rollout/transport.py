"""The seam between rollout and a machine: run a script, send a file. Everything else is above it.

`ssh.SshTransport` is the real side; `scripted.ScriptedTransport` replays answers and refuses what it does not expect.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from skep.spec.host import HiveHost

OUTPUT_BYTES_MAX = 1 << 20

OnLine = Callable[[str], str | None]
"""Sees a line of a script's output; what it returns goes to the script's stdin as a line."""


class Result(NamedTuple):
    """How a script ended. Output is bounded to `OUTPUT_BYTES_MAX` a stream, the newest kept."""

    exit_status: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """One multiplexed connection to one host."""

    async def run(self, script: str, *, limit_s: float, on_line: OnLine | None = None) -> Result:
        """Run a POSIX sh script; its process group ends with the connection.

        `on_line` sees each line of stdout as it comes, and may answer it; without it, stdin is empty. Raises: ConnectionLost, StepLimitExceeded.
        """
        ...

    async def send(self, source: Path, target: str, *, mode: int) -> None:
        """Make the remote file `target` (an absolute path) hold `source`, atomically. Raises: ConnectionLost, StepFailed."""
        ...

    async def aclose(self) -> None:
        """Close the connection; twice is fine."""
        ...


class Connector(Protocol):
    """How a transport is made."""

    async def connect(self, host: HiveHost) -> Transport:
        """Return a live transport. Raises: HostUnreachable, HostKeyRefused, LoginRefused."""
        ...
