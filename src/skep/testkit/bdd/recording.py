"""What a scenario did, as it happens, in the process that runs it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from pytest_bdd.parser import Step

from skep.proof.records import Failure, ResourceRecord, ScenarioRecord, Status, StepRecord
from skep.testkit.bdd.binding import Bound

TRACE_CHARS_MAX = 20_000
MESSAGE_CHARS_MAX = 4_000


class ScenarioEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario that ended, with all that the controller needs: it goes over in the report of its teardown."""

    record: ScenarioRecord
    steps: tuple[StepRecord, ...]
    starts: tuple[float, ...]
    definitions: tuple[tuple[str, str, int], ...]
    row: int | None = None
    resources: tuple[ResourceRecord, ...] = ()

    def with_leak(self, leak: str) -> "ScenarioEvent":
        """The same, failed: the ledger found something after the teardown."""
        if not leak:
            return self
        error = self.record.error or Failure(type="Leaked", message=leak)
        record = msgspec.structs.replace(self.record, status=Status.FAILED, error=error)
        return msgspec.structs.replace(self, record=record)


@dataclass
class Recording:
    """One scenario while it runs. `say` is told each step as it ends."""

    bound: Bound
    seed: int
    worker: str
    level: str
    say: Callable[[StepRecord], None]
    began: float = field(default_factory=time.time)
    steps: list[StepRecord] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    definitions: list[tuple[str, str, int]] = field(default_factory=list)
    resources: list[ResourceRecord] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    _phases: dict[str, pytest.TestReport] = field(default_factory=dict)
    _failure: Failure | None = None
    _clock: float = field(default_factory=time.perf_counter)
    _step_clock: float = 0.0

    def step_begins(self, pattern: str, path: str, line: int) -> None:
        """A step is about to be called."""
        self.starts.append(time.time())
        self._step_clock = time.perf_counter()
        self.definitions.append((pattern, path, line))

    def step_ends(self, step: Step, status: Status, error: BaseException | None = None) -> None:
        """A step was called."""
        if len(self.starts) <= len(self.steps):  # An undefined one never began.
            self.step_begins("", "", 0)
        spent_ms = (time.perf_counter() - self._step_clock) * 1000
        self._add(step, status, spent_ms, failure_of(error) if error is not None else None)

    def phase(self, report: pytest.TestReport, error: BaseException | None) -> None:
        """A phase of the test ended."""
        self._phases[report.when or ""] = report
        if report.failed and self._failure is None:
            self._failure = failure_of(error, trace=report.longreprtext, phase=report.when or "")

    def finish(self) -> ScenarioEvent:
        """Return what became of it; steps that were never reached are recorded as skipped.

        `pytest.skip`, `pytest.fail` and a timeout pass by pytest-bdd's hook for errors: such a step has only begun.
        """
        if len(self.starts) > len(self.steps):
            spent_ms = (time.perf_counter() - self._step_clock) * 1000
            status = Status.SKIPPED if self._failure is None else Status.FAILED
            self._add(self.bound.steps[len(self.steps)], status, spent_ms, self._failure)
        for step in self.bound.steps[len(self.steps) :]:
            self.starts.append(time.time())
            self.definitions.append(("", "", 0))
            self._add(step, Status.SKIPPED, 0.0, None)
        return ScenarioEvent(
            record=self._record(),
            steps=tuple(self.steps),
            starts=tuple(self.starts),
            definitions=tuple(self.definitions),
            row=self.bound.row,
            resources=tuple(self.resources),
        )

    def _add(self, step: Step, status: Status, spent_ms: float, error: Failure | None) -> None:
        _, path, line = self.definitions[len(self.steps)]
        record = StepRecord(
            scenario=self.bound.id,
            index=len(self.steps),
            keyword=step.keyword.strip(),
            text=step.name,
            status=status,
            duration_ms=round(spent_ms, 3),
            line=step.line_number,
            location=f"{path}:{line}" if path else "",
            error=error,
        )
        self.steps.append(record)
        self.say(record)

    def _record(self) -> ScenarioRecord:
        bound = self.bound
        return ScenarioRecord(
            id=bound.id,
            feature=bound.template.feature.name or bound.uri,
            name=bound.scenario.name,
            status=self._status(),
            duration_ms=round((time.perf_counter() - self._clock) * 1000, 3),
            tags=bound.tags,
            uri=bound.uri,
            line=bound.template.line_number,
            seed=self.seed,
            level=self.level,
            worker=self.worker,
            started_at=self.began,
            error=self._failure,
            reason=_skip_reason(tuple(self._phases.values())),
            logs=tuple(self.logs),
        )

    def _status(self) -> Status:
        reports = self._phases.values()
        if any(step.status is Status.UNDEFINED for step in self.steps):
            return Status.UNDEFINED
        if self._failure is not None or any(report.failed for report in reports):
            return Status.FAILED
        return Status.SKIPPED if any(report.skipped for report in reports) else Status.PASSED


def failure_of(error: BaseException | None, *, trace: str = "", phase: str = "call") -> Failure:
    """Return an exception as a record."""
    message = str(error) if error is not None else (trace.strip().splitlines() or [""])[-1]
    prefix = "" if phase in {"", "call"} else f"at {phase}: "
    return Failure(
        type=type(error).__name__ if error is not None else "Failed",
        message=(prefix + message)[:MESSAGE_CHARS_MAX],
        trace=trace[-TRACE_CHARS_MAX:],
    )


def _skip_reason(reports: Sequence[Any]) -> str:
    for report in reports:
        if report.skipped and isinstance(report.longrepr, tuple):
            return str(report.longrepr[2]).removeprefix("Skipped: ")
    return ""
