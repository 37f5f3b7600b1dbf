"""One `skep` daemon as a process: it reports its address on a pipe, and cannot outlive us."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skep.errors.harness import HarnessError, WorkerReadyTimeout
from skep.process import group
from skep.process.guard import Guard
from skep.process.identity import started_at
from skep.testkit.fleet.ask import Response, ask

READY_S_MAX = 60.0
STOP_S_MAX = 15.0
LOG_LINES = 40
MARK = "LC_SKEP_LAB"
"""The variable by which everything that a lab started is found again, children of daemons too."""


class Daemon:
    """A running daemon. `report` is what it said when it was ready."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], log: Path, report_fd: int, alive_fd: int
    ) -> None:
        self.name, self.process, self.log = name, process, log
        self._alive_fd = alive_fd
        self.report: dict[str, Any] = self._ready(report_fd)

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        mark: str,
        guard: Guard | None = None,
        env: Mapping[str, str] | None = None,
    ) -> "Daemon":
        """Start `skep ARGV…` and wait until it reports. Raises: HarnessError with the log's tail."""
        read_fd, write_fd = os.pipe()
        watched_fd, alive_fd = os.pipe()
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "skep.cli.main",
                    *argv,
                    "--report-fd",
                    str(write_fd),
                    "--exit-with-fd",
                    str(watched_fd),
                ],
                env={**os.environ, MARK: mark, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[write_fd, watched_fd],
                start_new_session=True,
            )
        os.close(write_fd)
        os.close(watched_fd)
        if guard is not None:
            guard.watch(process.pid, started_at(process.pid))
        return cls(name, process, log, read_fd, alive_fd)

    @property
    def url(self) -> str:
        """Where its API answers."""
        return str(self.report.get("url") or self.report.get("admin"))

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def ask(self, path: str, body: Any = None, *, method: str | None = None, token: str = "") -> Response:
        """Send one request to its API."""
        return ask(self.url, path, body, method=method, token=token)

    def log_tail(self, lines: int = LOG_LINES) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, within_s: float = STOP_S_MAX) -> int:
        """Ask it to end; return its exit code. Raises: HarnessError when it does not."""
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HarnessError(
                f"{self.name} did not stop within {within_s:g} s:\n{self.log_tail()}"
            ) from None
        self._let_go()
        return code

    def kill(self) -> None:
        """SIGKILL, as a crash would: its workers live on."""
        self.process.kill()
        self.process.wait(STOP_S_MAX)
        self._let_go()

    def _let_go(self) -> None:
        if self._alive_fd >= 0:
            os.close(self._alive_fd)
            self._alive_fd = -1

    def _ready(self, fd: int) -> dict[str, Any]:
        os.set_blocking(fd, False)
        deadline = time.monotonic() + READY_S_MAX
        line = b""
        try:
            while not line.endswith(b"\n"):
                try:
                    chunk = os.read(fd, 4096)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        self.kill()
                        raise WorkerReadyTimeout(
                            f"{self.name} was not ready in {READY_S_MAX:g} s:\n{self.log_tail()}"
                        ) from None
                    time.sleep(0.01)
                    continue
                if not chunk:
                    code = self.process.wait(STOP_S_MAX)
                    self._let_go()
                    raise HarnessError(
                        f"{self.name} ended with {code} before it was ready:\n{self.log_tail()}"
                    )
                line += chunk
        finally:
            os.close(fd)
        found: dict[str, Any] = json.loads(line)
        return found


def end_all(mark: str) -> None:
    """Kill every process that carries a lab's mark, whoever owns it now."""
    group.kill_each(group.marked(MARK, mark))
