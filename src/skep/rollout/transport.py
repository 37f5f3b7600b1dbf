"""The seam between rollout and a machine: run a script, and answer what it says. Everything else is above it.

`ssh.SshTransport` is the real side; `scripted.ScriptedTransport` replays answers and refuses what it does not expect.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from skep.spec.host import HiveHost

OUTPUT_BYTES_MAX = 1 << 20
HEARD = 3
"""The descriptor on which a script that is answered reads the answers; its stdin is empty."""

OnLine = Callable[[str], str | Path | None]
"""Sees a line of a script's output. What it returns goes to the script: a text as a line, a file byte for byte."""


class Result(NamedTuple):
    """How a script ended. Output is bounded to `OUTPUT_BYTES_MAX` a stream, the newest kept."""

    exit_status: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """One multiplexed connection to one host."""

    async def run(
        self, script: str, *, limit_s: float, on_line: OnLine | None = None, is_brief: bool = False
    ) -> Result:
        """Run a POSIX sh script; its process group ends with the connection.

        `on_line` sees each line of stdout as it comes, and may answer it: then the script reads descriptor `HEARD` itself, and
        has the shell functions `begin_watch` (from now on nothing is said: end with the connection) and `end_watch` (before it
        reads again). `is_brief`: the script only reads, and ends by itself; nothing watches over it, and its
        shell may take the next script.
        Raises: ConnectionLost, StepLimitExceeded, ArtifactMissing (a file that was to be sent cannot be read).
        """
        ...

    async def aclose(self) -> None:
        """Close the connection; twice is fine."""
        ...


class Connector(Protocol):
    """How a transport is made."""

    async def connect(self, host: HiveHost) -> Transport:
        """Return a live transport. Raises: HostUnreachable, HostKeyRefused, LoginRefused."""
        ...
