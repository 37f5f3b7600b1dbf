"""One real worker process per test: started, proved to be ours, driven over HTTP, and ended with its whole group."""

import asyncio
import shutil
import signal
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from skep.errors import SkepError
from skep.errors.harness import (
    HarnessError,
    WorkerDied,
    WorkerInvalidResponse,
    WorkerReadyTimeout,
    WorkerSpawnFailed,
)
from skep.process import log
from skep.process.owned import Exit
from skep.testkit.harness import records
from skep.testkit.harness.client import WorkerClient
from skep.testkit.harness.launch import (
    READY_FAKE_S,
    READY_S,
    Launched,
    LaunchPlan,
    launch,
    new_nonce,
)
from skep.testkit.harness.memory import MemoryLedger
from skep.web.client import make_client
from skep.wire import start

LOG_LINES = 200
STOP_GRACE_S = 6.0
REQUEST_S = 30.0
REAP_S = 1.0
_POLL_S = 0.01


class WorkerHarness(WorkerClient):
    """A worker under test. Made by `start`; ends with `aclose` or by leaving its context.

    `port`, `base_url`, `worker_id`, `nonce`, `token` and `backend` say where, who and what it is.
    """

    def __init__(self, plan: LaunchPlan, launched: Launched, folder: Path | None) -> None:
        self._plan, self._launched, self._folder = plan, launched, folder
        self.worker_id, self.nonce, self.token, self.backend = (
            plan.worker_id,
            plan.nonce,
            plan.token,
            plan.backend,
        )
        self.port = launched.port
        self.base_url = f"http://127.0.0.1:{launched.port}"
        super().__init__(
            make_client(self.base_url, token=plan.token, total_s=None), MemoryLedger(launched.child.pid)
        )
        self._record = records.open_record(self.worker_id, self._report_lines)

    # Lifetime ------------------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        model: str | Path,
        devices: str = "cpu",
        *,
        gpu_device: int | None = None,
        backend: str | None = None,
        worker_id: str | None = None,
        slots: int = 4,
        context: int = 1024,
        token: str | None = None,
        extra: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        ready_s: float | None = None,
        log_dir: Path | None = None,
    ) -> Self:
        """Start a worker and wait until it has proved itself: its nonce, its model resident, a token generated.

        `model` is a GGUF file, or `fake:NAME?…`, which implies the fake backend. `gpu_device=N` is short for
        `devices="N"`. `extra` are further flags of `skep worker`. Without `log_dir` the log goes with the worker.

        Raises: WorkerSpawnFailed, WorkerReadyTimeout, WorkerDied; whatever it raises, nothing is left running.
        """
        reference = str(model)
        kind = backend or ("fake" if reference.startswith("fake:") else "llama")
        name = worker_id or f"w-{uuid.uuid4().hex[:8]}"
        folder = None if log_dir else Path(tempfile.mkdtemp(prefix="skep-harness-"))
        plan = LaunchPlan(
            worker_id=name,
            model=reference,
            backend=kind,
            devices=devices if gpu_device is None else str(gpu_device),
            slots=slots,
            context=context,
            token=token,
            nonce=new_nonce(),
            log_path=(log_dir or folder or Path()) / f"{name}.log",
            extra=tuple(extra),
            env=dict(env or {}),
        )
        try:
            launched = await launch(plan)
        except SkepError as error:
            _remove(folder)
            raise WorkerSpawnFailed(f"worker {name} cannot be started: {error}", cause=error.code, reason=str(error),
                                    log_tail=[]) from error  # fmt: skip
        harness = cls(plan, launched, folder)
        try:
            await harness._wait_ready(ready_s or (READY_FAKE_S if kind == "fake" else READY_S))
        except BaseException:
            await asyncio.shield(harness.aclose())
            raise
        return harness

    async def aclose(self, *, grace_s: float = STOP_GRACE_S) -> Exit:
        """End the worker and its whole process group, gently first; twice is fine. Returns how it ended."""
        try:
            if self.is_running:
                await self._look()
            await self.client.close()
        finally:
            try:
                ended = await self._launched.child.stop(grace_s)
            finally:
                self._launched.let_go()
                self._record.close()
                _remove(self._folder)
        return ended

    async def stop(self, *, grace_s: float = STOP_GRACE_S) -> Exit:
        """SIGTERM, then SIGKILL after `grace_s`; the harness stays usable for its log and memory."""
        return await self._launched.child.stop(grace_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker's process group."""
        self._launched.child.send(number)

    async def wait_exit(self, *, within_s: float = 10.0) -> Exit:
        """Return how the process ended. Raises: TimeoutError."""
        async with asyncio.timeout(within_s):
            return await self._launched.child.wait()

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._launched.child.is_running

    @property
    def pid(self) -> int:
        """The process, which leads its own group."""
        return self._launched.child.pid

    @property
    def logs(self) -> str:
        """The last lines of the worker's log."""
        return "\n".join(log.tail(self._plan.log_path, LOG_LINES))

    def death(self) -> WorkerDied | None:
        """Return the error that tells how the process ended; None while it runs."""
        child = self._launched.child
        if child.is_running:
            return None
        ended = child.exit or Exit()
        return WorkerDied(
            f"worker {self.worker_id} ended with {ended}",
            exit_code=ended.code,
            signal=ended.signal,
            log_tail=self._tail(),
        )

    # Inside --------------------------------------------------------------------------------------------------------

    async def _wait_ready(self, ready_s: float) -> None:
        try:
            async with asyncio.timeout(ready_s):
                await self._read_report()
                found = await self.get("/health")
        except TimeoutError:
            raise WorkerReadyTimeout(
                f"worker {self.worker_id} was not ready within {ready_s:g} s",
                ready_s=ready_s,
                log_tail=self._tail(),
            ) from None
        if found.get("instance") != self.nonce or not found.get("resident"):
            raise WorkerInvalidResponse(
                f"port {self.port} is answered by another process: {found}", path="/health"
            )
        self.memory.begin(found.get("vram_used_bytes"))

    async def _read_report(self) -> None:
        async for line in self._launched.report.lines():
            match start.decode(line):
                case start.Ready():
                    return
                case start.Failed(code=code, message=message):
                    await self.death_soon()
                    raise WorkerSpawnFailed(
                        f"worker {self.worker_id} gave up: {message}",
                        cause=code,
                        reason=message,
                        log_tail=self._tail(),
                    )
        await self._launched.child.wait()
        raise self.death() or HarnessError("the worker closed its report without a word")

    async def death_soon(self) -> WorkerDied | None:
        """As `death`, after waiting for a process that has just ended to be reaped."""
        with suppress(TimeoutError):
            await self.wait_exit(within_s=REAP_S)
        return self.death()

    async def _look(self) -> None:
        """Take the last figures; a worker that does not answer is no reason to fail now."""
        try:
            async with asyncio.timeout(1.0):
                await self.health()
        except (HarnessError, TimeoutError):
            self.memory.look()

    def _tail(self) -> list[str]:
        return log.tail(self._plan.log_path, 40)

    def _report_lines(self) -> list[str]:
        self.memory.look()
        ended = self._launched.child.exit
        state = "running" if ended is None else str(ended)
        return [
            f"worker {self.worker_id} (pid {self.pid}, {self._plan.backend}, port {self.port}): {state}",
            *self.memory.lines(),
            "log:",
            *log.tail(self._plan.log_path, LOG_LINES),
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
