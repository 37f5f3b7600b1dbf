"""What a run leaves behind: `step.jsonl`, one whole line a step, and `summary.json`, its totals.

Processes that share a run folder take turns by a lock file, so lines interleave whole. A line is on disk at most
`sync_delay_s_max` after it was written and before `close` returns. The summary knows how many bytes of
`step.jsonl` it covers and reads only what came after; a corrupt one is set aside and made anew from the lines.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from skep.arena.actions import ActionInfo
from skep.arena.observation import Observation
from skep.arena.summary import Summary, fold, load_summary, store_summary
from skep.errors.arena import RecordsUnwritable

STEPS_FILE: Final = "step.jsonl"
LOCK_FILE: Final = ".lock"
SYNC_DELAY_S_MAX: Final = 1.0
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it is written. `status` is `ok`, `failed` or `cancelled`; only `ok` has an observation for sure."""

    run_id: str
    step: int
    sim_name: str
    namespace: str
    deployment: str
    target: int
    trace_in: str
    trace_out: str | None
    trace_sha: str
    seed: int
    driver: str
    observation: Observation | None
    state: tuple[float, ...] | None
    policy: str
    action: str | None
    decision_reason: str
    action_info: ActionInfo | None
    reward_name: str
    reward: float | None
    reward_terms: dict[str, float]
    duration_s: float
    sim_duration_s: float | None
    status: str
    error: dict[str, Any] | None = None


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a run folder's lock; other processes and threads wait."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Records:
    """A run folder that is open for appending; safe for threads, and beside other processes on the same folder."""

    def __init__(self, folder: Path, *, sync_delay_s_max: float = SYNC_DELAY_S_MAX) -> None:
        self.folder = folder
        self._delay_s_max = sync_delay_s_max
        self._state = threading.Condition()
        self._is_dirty = self._is_closing = False
        self._failure: BaseException | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                folder / STEPS_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise RecordsUnwritable(f"{folder}: {error.strerror}", folder=str(folder)) from error
        self._syncer: threading.Thread | None = None

    def append(self, record: StepRecord) -> None:
        """Write one record as one whole line. Raises: RecordsUnwritable; then the file holds no part of it."""
        line = _ENCODER.encode(record) + b"\n"
        with self._state:
            self._raise_failure()
            with locked(self.folder):
                self._append_whole(line)
            if self._is_dirty:
                return
            self._is_dirty = True
            if self._syncer is None:
                self._syncer = threading.Thread(
                    target=self._sync_in_time, name="skep-arena-records", daemon=True
                )
                self._syncer.start()
            self._state.notify_all()

    def sync(self) -> Summary:
        """Bring lines and summary to disk now; return the summary."""
        with self._state:
            return self._sync()

    def close(self) -> None:
        """Bring everything to disk and let go of the folder. Raises: RecordsUnwritable."""
        with self._state:
            self._is_closing = True
            self._state.notify_all()
        if self._syncer is not None:
            self._syncer.join()
        with self._state:
            if self._file < 0:
                return
            try:
                if self._is_dirty:
                    self._sync()
                self._raise_failure()
            finally:
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append_whole(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            size = _set_torn_tail_aside(self._file, size, self.folder)
        try:
            written = os.write(self._file, line)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise RecordsUnwritable(
                f"{self.folder / STEPS_FILE}: {error.strerror}", folder=str(self.folder)
            ) from error
        if written != len(line):
            os.ftruncate(self._file, size)
            raise RecordsUnwritable(
                f"{self.folder / STEPS_FILE}: no room for a whole line", folder=str(self.folder)
            )

    def _sync(self) -> Summary:
        try:
            os.fsync(self._file)
            summary = update_summary(self.folder)
        except OSError as error:
            raise RecordsUnwritable(f"{self.folder}: {error.strerror}", folder=str(self.folder)) from error
        self._is_dirty = False
        return summary

    def _sync_in_time(self) -> None:
        """Sync once a line has waited for the longest delay; a failure is raised by the next call of the owner."""
        with self._state:
            while not self._is_closing:
                self._state.wait_for(lambda: self._is_dirty or self._is_closing)
                if self._state.wait_for(lambda: self._is_closing, timeout=self._delay_s_max):
                    return
                try:
                    self._sync()
                except RecordsUnwritable as error:
                    self._failure = error
                    return

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def _set_torn_tail_aside(file: int, size: int, folder: Path) -> int:
    """Cut off the half line that a killed process left; keep it beside the records. Returns the new size."""
    start = size
    tail = b""
    while start > 0 and b"\n" not in tail:
        step = min(start, 65536)
        start -= step
        tail = os.pread(file, step, start) + tail
    whole = start + tail.rfind(b"\n") + 1
    (folder / f"{STEPS_FILE}.torn-{whole}").write_bytes(tail[whole - start :])
    os.ftruncate(file, whole)
    return whole


def write_step_record(folder: Path, record: StepRecord) -> None:
    """Append one record to a run folder and bring it to disk, for a caller that has no open `Records`."""
    with Records(folder) as records:
        records.append(record)


def update_summary(folder: Path) -> Summary:
    """Fold the lines that a folder's summary does not cover yet into it, and replace it atomically.

    A summary that is corrupt, or covers more than there is, is set aside and made anew.
    """
    with locked(folder):
        summary = load_summary(folder)
        fold(summary, folder / STEPS_FILE)
        store_summary(folder, summary)
    return summary
