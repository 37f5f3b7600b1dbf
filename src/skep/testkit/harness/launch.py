"""How the harness starts a worker: its argv, its environment, and the three descriptors that it is handed."""

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skep.process.child import Child, ChildSpec, spawn
from skep.process.report import ReportPipe
from skep.process.socket import bind_listener

READY_S, READY_FAKE_S = 30.0, 10.0


class LaunchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to start. `extra` are further flags, `env` further variables."""

    worker_id: str
    model: str
    backend: str
    devices: str
    slots: int
    context: int
    token: str | None
    nonce: str
    log_path: Path
    extra: Sequence[str] = ()
    env: Mapping[str, str] = msgspec.field(default_factory=dict)

    def argv(self, *, listen_fd: int, report_fd: int, exit_with_fd: int) -> tuple[str, ...]:
        """Return the command line."""
        flags: dict[str, Any] = {
            "--worker-id": self.worker_id,
            "--model": self.model,
            "--devices": self.devices,
            "--slots": self.slots,
            "--context": self.context,
            "--listen-fd": listen_fd,
            "--report-fd": report_fd,
            "--exit-with-fd": exit_with_fd,
            "--backend": self.backend,
        }
        pairs = [str(part) for pair in flags.items() for part in pair]
        return (sys.executable, "-m", "skep.cli.main", "worker", *pairs, *self.extra)

    def environment(self) -> dict[str, str]:
        """Return the child's whole environment: ours without the other workers' identity."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("SKEP_WORKER_")}
        env |= {"SKEP_WORKER_NONCE": self.nonce, "PYTHONUNBUFFERED": "1", **self.env}
        if self.token:
            env["SKEP_WORKER_TOKEN"] = self.token
        return env


class Launched:
    """A child, the pipe on which it reports, the port that is its own, and the pipe that it must not outlive."""

    def __init__(self, child: Child, report: ReportPipe, port: int, alive_fd: int) -> None:
        self.child, self.report, self.port = child, report, port
        self._alive_fd = alive_fd

    def let_go(self) -> None:
        """Close our ends: the worker sees that its owner is gone. Twice is fine."""
        self.report.close()
        fd, self._alive_fd = self._alive_fd, -1
        if fd >= 0:
            os.close(fd)


async def launch(plan: LaunchPlan) -> Launched:
    """Start the process. Raises: SpawnFailed, BindFailed; nothing is left behind then."""
    listener = bind_listener("127.0.0.1")
    report = ReportPipe.open()
    theirs, ours = os.pipe()
    try:
        child = await spawn(
            ChildSpec(
                argv=plan.argv(listen_fd=listener.fileno(), report_fd=report.write_fd, exit_with_fd=theirs),
                env=plan.environment(),
                log_path=plan.log_path,
                pass_fds=(listener.fileno(), report.write_fd, theirs),
            )
        )
        port: int = listener.getsockname()[1]
    except BaseException:
        report.close()
        os.close(ours)
        raise
    finally:
        listener.close()  # The port must die with the child.
        os.close(theirs)
    report.close_write()
    return Launched(child, report, port, ours)


def new_nonce() -> str:
    """Return an identity that no other process has."""
    return uuid.uuid4().hex
